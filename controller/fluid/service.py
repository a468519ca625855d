"""Who serves what in a fluid study: interactive demand at once, NIW from what is left over, oldest deadline first."""

from collections import deque
from collections.abc import Mapping

from controller.types import Placement, Pool

_HOME_SHARE = 0.70
"""Demand stays in its region up to this utilisation (SageServe's routing threshold), then goes where room is."""


def utilisations(
    demand: Mapping[Pool, float], capacity: Mapping[Pool, float], extra: Mapping[str, float]
) -> dict[Pool, float]:
    """Load over capacity of every pool of one model, tokens/s each; above 1 where demand exceeds all capacity.

    Demand is served at home up to 0.70 of the pool, the rest wherever capacity is free. `extra`: NIW tokens/s that the
    model serves, spread by capacity.
    """
    load = {pool: min(demand.get(pool, 0.0), _HOME_SHARE * room) for pool, room in capacity.items()}
    left = sum(demand.values()) - sum(load.values())
    free = sum(capacity.values()) - sum(load.values())
    total = sum(capacity.values())
    answer = {}
    for pool, room in capacity.items():
        spilt = left * (room - load[pool]) / free if free > 0 else 0.0
        batch = extra.get(pool.model, 0.0) * room / total if total > 0 else 0.0
        answer[pool] = (load[pool] + spilt + batch) / room if room > 0 else 0.0
    return answer


def ready_capacity(ready: Mapping[Placement, int], theta: Mapping[Placement, float]) -> dict[Pool, float]:
    """Tokens/s that the READY servers of each pool sustain for interactive requests."""
    answer: dict[Pool, float] = {}
    for p, count in ready.items():
        answer.setdefault(p.pool, 0.0)
        if p.role.takes_interactive:
            answer[p.pool] += count * theta[p]
    return answer


class Backlog:
    """NIW tokens of one model that wait, by deadline."""

    def __init__(self) -> None:
        self._waiting: deque[list[float]] = deque()
        self.served_tokens = 0.0
        self.late_tokens = 0.0

    def add(self, tokens: float, due_s: float) -> None:
        if tokens <= 0:
            return
        if self._waiting and self._waiting[-1][0] == due_s:
            self._waiting[-1][1] += tokens
        else:
            self._waiting.append([due_s, tokens])

    def serve(self, tokens: float, now_s: float) -> float:
        """Serve up to `tokens`, first due first; how many were served. Those past their deadline count as late."""
        served = 0.0
        while self._waiting and tokens - served > 1e-9:
            head = self._waiting[0]
            taken = min(head[1], tokens - served)
            served += taken
            head[1] -= taken
            if head[0] < now_s:
                self.late_tokens += taken
            if head[1] <= 1e-9:
                self._waiting.popleft()
        self.served_tokens += served
        return served

    def expire(self, end_s: float) -> None:
        """At the end of the study: what waits and was due by then is late."""
        self.late_tokens += sum(tokens for due_s, tokens in self._waiting if due_s <= end_s)

    @property
    def tokens(self) -> float:
        return sum(tokens for _, tokens in self._waiting)

    def due(self, bucket_s: float = 3600.0) -> tuple[tuple[float, float], ...]:
        """(due_s, tokens) in buckets of deadlines, as `Observation.niw_due` has them."""
        buckets: dict[float, float] = {}
        for due_s, tokens in self._waiting:
            start_s = due_s // bucket_s * bucket_s
            buckets[start_s] = buckets.get(start_s, 0.0) + tokens
        return tuple(sorted(buckets.items()))

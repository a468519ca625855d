"""The queue of non-interactive requests: they wait until a pool has room, or until their time has come."""

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping

from controller.rules.niw import NiwRule, deadline_s
from controller.types import Pool
from workloads.clock import RunClock
from workloads.request import Request

Due = tuple[tuple[float, float], ...]


class NiwQueue:
    """Per model, in the order of promotion. A pool with room takes requests as `rules` say; one promoted goes at once.

    `utilisation` tells a pool's effective utilisation, `release` sends a request (to a pool, or with None as an
    interactive one, by the routing rule), `preferred` orders the regions by region of origin. `deadline_after_s` is
    the deadline of requests that have none of their own; what `due` tells is put together over a 24th of it (an hour,
    where it is SageServe's day or there is none).
    """

    def __init__(
        self,
        rules: NiwRule,
        *,
        clock: RunClock,
        models: tuple[str, ...],
        preferred: Mapping[str, tuple[str, ...]],
        utilisation: Callable[[Pool], float],
        release: Callable[[Request, Pool | None], None],
        deadline_after_s: float = math.inf,
    ) -> None:
        self._rules = rules
        self._full_from = rules.full_from
        self._clock = clock
        # The number of its arrival breaks ties: first come, first served.
        self._waiting: dict[str, list[tuple[float, int, Request]]] = {model: [] for model in models}
        self._tokens = dict.fromkeys(models, 0)
        self._backlog = {model: _Backlog(deadline_after_s) for model in models}
        self._preferred = preferred
        self._utilisation = utilisation
        self._release = release
        self._added = 0
        self._length = 0
        self._promotes_at_s = math.inf
        self._sooner: asyncio.Future[None] | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return self._length

    async def emptied(self) -> None:
        """Returns when nothing waits."""
        await self._empty.wait()

    def length_of(self, model: str) -> int:
        """Requests of one model that wait."""
        return len(self._waiting[model])

    def queued_by_model(self) -> dict[str, int]:
        """Requests waiting, by model."""
        return {model: len(queue) for model, queue in self._waiting.items()}

    def queued_tokens(self) -> dict[str, int]:
        """Prompt and output tokens waiting, by model."""
        return dict(self._tokens)

    def due(self) -> dict[str, Due]:
        """By model, (due_s, tokens) by rising due_s: tokens waiting that are due from then on, up to the next entry.
        What has no deadline is left out."""
        return {model: backlog.due() for model, backlog in self._backlog.items()}

    def add(self, request: Request) -> None:
        """A request arrives; a pool that has room takes what waits, in the request's order of regions."""
        promotion_s = self._rules.promotion_s(request)
        heapq.heappush(self._waiting[request.model], (promotion_s, self._added, request))
        self._added += 1
        self._length += 1
        self._tokens[request.model] += request.total_tokens
        self._backlog[request.model].add(request, request.total_tokens)
        self._empty.clear()
        if promotion_s < self._promotes_at_s:
            self._promotes_at_s = promotion_s
            if self._sooner is not None and not self._sooner.done():
                self._sooner.set_result(None)
        for region in self._preferred[request.region]:
            self.offer(Pool(request.model, region))

    def offer(self, pool: Pool) -> None:
        """A pool may have room: its load fell, or a server came."""
        queue = self._waiting[pool.model]
        if not queue:
            return
        utilisation = self._utilisation(pool)
        if utilisation >= self._full_from:
            return
        pressure = self._rules.pressure(queue[0][2], self._clock.now_s())
        for _ in range(min(self._rules.takes(utilisation, pressure), len(queue))):
            self._release(self._pop(pool.model), pool)

    async def promote(self) -> None:
        """Forever: send each request whose time has come by `rules` as if it were interactive."""
        while True:
            due_s = min((queue[0][0] for queue in self._waiting.values() if queue), default=math.inf)
            self._promotes_at_s = due_s
            self._sooner = asyncio.get_running_loop().create_future()
            await self._clock.first_of(due_s, self._sooner)
            if self._promotes_at_s < due_s:
                continue  # woken for a request that comes before
            # The clock may read a hair less than `due_s` now; to wait for that again would be to wait forever.
            for model, queue in self._waiting.items():
                while queue and queue[0][0] <= max(due_s, self._clock.now_s()):
                    self._release(self._pop(model), None)

    def drain(self) -> list[Request]:
        """Take out everything that waits: the run ends."""
        left = [request for queue in self._waiting.values() for *_, request in sorted(queue)]
        for model, queue in self._waiting.items():
            while queue:
                self._pop(model)
        return left

    def _pop(self, model: str) -> Request:
        request = heapq.heappop(self._waiting[model])[2]
        self._length -= 1
        self._tokens[model] -= request.total_tokens
        self._backlog[model].add(request, -request.total_tokens)
        if not self._length:
            self._empty.set()
        return request


class _Backlog:
    """Tokens of one model by deadline, kept up to date as they come and go: it is looked at with every observation."""

    def __init__(self, deadline_after_s: float) -> None:
        self._deadline_after_s = deadline_after_s
        self._width_s = deadline_after_s / 24 if deadline_after_s < math.inf else 3600.0
        self._tokens: dict[int, int] = {}
        self._due: Due | None = ()

    def add(self, request: Request, tokens: int) -> None:
        """Count `tokens` of the request, below 0 when it leaves."""
        at_s = deadline_s(request, self._deadline_after_s)
        if at_s == math.inf:
            return
        bucket = math.floor(at_s / self._width_s)
        left = self._tokens.get(bucket, 0) + tokens
        if left:
            self._tokens[bucket] = left
        else:
            del self._tokens[bucket]
        self._due = None

    def due(self) -> Due:
        if self._due is None:
            self._due = tuple((bucket * self._width_s, float(self._tokens[bucket])) for bucket in sorted(self._tokens))
        return self._due

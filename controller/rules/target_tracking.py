"""Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) as arithmetic: how many servers a metric asks for, the memory
that keeps it from shrinking at once, and how fast it may go.

Source: "Horizontal Pod Autoscaling" in Kubernetes' documentation, and its pkg/controller/podautoscaler.

Servers are counted in equivalents (a server of another GPU type may be worth 1.8), times are seconds of the run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

_NOISE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Servers added (above 0) or removed (below 0) at a time."""

    at_s: float
    servers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What was recommended at a time."""

    at_s: float
    servers: float


def for_demand(demand: float, *, per_server: float, current: float, tolerance: float) -> float:
    """Servers for a demand of which one server takes `per_server`: ceil(demand / per_server), or `current` where
    demand per server is within `tolerance` of that (External metric, AverageValue).

    READY or not makes no difference: demand does not wait for servers.
    """
    needed = demand / per_server
    if current > 0 and abs(needed / current - 1) <= tolerance:
        return current
    return ceil(needed - _NOISE)


def for_mean(value: float, *, target: float, ready: int, unready: int, tolerance: float) -> float:
    """Servers to bring the mean of the READY ones, `value`, to `target`: ceil(servers x value / target) (Pods metric).

    On the way up those not READY yet count as if they were at 0, on the way down not at all. Where counting them
    turns the way up into one down, nothing changes. Without a READY server there is nothing to go by: no change.
    """
    current = ready + unready
    if ready == 0:
        return current
    ratio = value / target
    if ratio > 1 and unready:
        ratio *= ready / current
        return current if ratio <= 1 + tolerance else ceil(ratio * current - _NOISE)
    return current if abs(ratio - 1) <= tolerance else ceil(ratio * ready - _NOISE)


def stabilised(current: float, recommended: float, earlier: Iterable[Recommendation]) -> float:
    """Up to what is recommended at once; down only to the largest recommendation, `earlier` ones included."""
    if recommended > current:
        return recommended
    return min(current, max([recommended, *(each.servers for each in earlier)]))


def still_largest(
    recommendations: Sequence[Recommendation], at_s: float, window_s: float
) -> tuple[Recommendation, ...]:
    """Those within the window, by time, that a later and no smaller one has not made useless: all that a sliding
    maximum needs. A steady recommendation so takes the place of one, and no two have the same time.
    """
    kept: list[Recommendation] = []
    for each in sorted(recommendations, key=lambda r: (r.at_s, r.servers)):
        if each.at_s < at_s - window_s:
            continue
        while kept and kept[-1].servers <= each.servers:
            kept.pop()
        kept.append(each)
    return tuple(kept)


def with_change(changes: Iterable[Change], new: Change, keep_s: float) -> tuple[Change, ...]:
    """The changes of the last `keep_s` with a new one; those of one moment are one."""
    sums: dict[float, int] = {}
    for each in (*changes, new):
        if each.at_s > new.at_s - keep_s:
            sums[each.at_s] = sums.get(each.at_s, 0) + each.servers
    return tuple(Change(at_s=at_s, servers=servers) for at_s, servers in sums.items() if servers)


def changed_within(changes: Iterable[Change], at_s: float, period_s: float) -> tuple[int, int]:
    """(servers added, servers removed) in the last `period_s`, its beginning left out."""
    recent = [change.servers for change in changes if change.at_s > at_s - period_s]
    return sum(n for n in recent if n > 0), -sum(n for n in recent if n < 0)


def most_after(current: int, begun: int, *, value: int, percent: bool) -> int:
    """Highest count a rate policy allows when `begun` servers stood as its period began; never below `current`."""
    allowed = ceil(begun * (1 + value / 100) - _NOISE) if percent else begun + value
    return max(current, allowed)


def least_after(current: int, begun: int, *, value: int, percent: bool) -> int:
    """Lowest count a rate policy allows when `begun` servers stood as its period began; never above `current`."""
    allowed = floor(begun * (1 - value / 100) + _NOISE) if percent else begun - value
    return max(0, min(current, allowed))

"""The largest rate of requests within an SLO, by trying rates. Each try is an open loop on the real server."""

from collections.abc import Awaitable, Callable

from profiler.profile_parts import LatencySlo, LoadPoint

# Rates this close to each other end the search; the noise of a p95 over a hundred requests is no finer.
CLOSE_ENOUGH = 1.1
_STEP = 1.5
# Where fewer answers end than requests arrive, a queue grows, however short it still is. Arrivals are random: of a
# hundred in the window a tenth more or less is chance.
KEEPS_UP = 0.8

TryRate = Callable[[float], Awaitable[LoadPoint | None]]


async def search_theta(
    try_rate: TryRate, first_requests_per_s: float, slo: LatencySlo, most_tries: int
) -> tuple[LoadPoint | None, float | None]:
    """The point of the largest rate that kept `slo`, and the smallest rate above it that missed it.

    From the first rate up or down by half until one keeps and one misses, then by halving between them on a
    logarithmic scale. `try_rate` answers None when the time is up: then what is known so far is the answer.
    None for the point when no rate tried kept the SLO, for the rate when none missed it.
    """
    best: LoadPoint | None = None
    missed: float | None = None
    rate = first_requests_per_s
    for _ in range(most_tries):
        point = await try_rate(rate)
        if point is None:
            break
        if keeps(point, slo):
            best = point
        else:
            missed = rate
        kept = None if best is None else best.requests_per_s
        if kept is None:
            rate /= _STEP
        elif missed is None:
            rate *= _STEP
        elif missed / kept <= CLOSE_ENOUGH:
            break
        else:
            rate = (kept * missed) ** 0.5
    return best, missed


def keeps(point: LoadPoint, slo: LatencySlo) -> bool:
    """Whether p95 TTFT and TPOT lie within the SLO, no request failed, and answers kept up with arrivals."""
    if point.requests_per_s is not None and point.completed_per_s < KEEPS_UP * point.requests_per_s:
        return False
    limits = ((point.ttft_s, slo.ttft_s), (point.tpot_s, slo.tpot_s))
    return point.failed == 0 and all(limit is None or (seen is None or seen.p95 <= limit) for seen, limit in limits)

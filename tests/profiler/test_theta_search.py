import asyncio
from collections.abc import Callable

import pytest

from profiler.profile_parts import LatencySlo, LoadPoint, Percentiles
from profiler.theta_search import CLOSE_ENOUGH, keeps, search_theta

SLO = LatencySlo(ttft_s=1.0)


def point(requests_per_s: float, ttft_p95_s: float, failed: int = 0) -> LoadPoint:
    times = Percentiles(p50=ttft_p95_s / 2, p90=ttft_p95_s, p95=ttft_p95_s, p99=ttft_p95_s, mean=ttft_p95_s / 2, n=100)
    return LoadPoint(
        requests_per_s=requests_per_s,
        prompt_tokens=100,
        output_tokens=10,
        completed=100,
        failed=failed,
        ttft_s=times,
        tpot_s=None,
        e2e_s=times,
        window_s=10,
        completed_per_s=requests_per_s,
        prompt_tokens_per_s=0,
        output_tokens_per_s=0,
    )


def search(
    ttft_p95_s: Callable[[float], float], first: float, tries: int = 12, time_for: int = 99
) -> tuple[LoadPoint | None, float | None, list[float]]:
    tried: list[float] = []

    async def try_rate(rate: float) -> LoadPoint | None:
        if len(tried) == time_for:
            return None
        tried.append(rate)
        return point(rate, ttft_p95_s(rate))

    best, missed = asyncio.run(search_theta(try_rate, first, SLO, tries))
    return best, missed, tried


@pytest.mark.parametrize("first", [0.5, 4.0, 10.0, 60.0])
def test_the_limit_is_found_from_below_and_from_above(first: float) -> None:
    best, missed, tried = search(lambda rate: rate / 10, first)
    assert best is not None
    assert best.requests_per_s is not None
    assert missed is not None
    assert best.requests_per_s <= 10 <= missed <= CLOSE_ENOUGH * best.requests_per_s
    assert len(set(tried)) == len(tried)


def test_a_server_that_keeps_every_rate_has_none_that_it_missed() -> None:
    best, missed, tried = search(lambda rate: 0.1, 1.0, tries=5)
    assert best is not None
    assert best.requests_per_s == max(tried)
    assert missed is None


def test_a_server_that_keeps_no_rate_has_no_theta() -> None:
    best, missed, tried = search(lambda rate: 9.0, 1.0, tries=4)
    assert best is None
    assert missed == min(tried)


def test_when_the_time_is_up_what_is_known_is_the_answer() -> None:
    best, missed, tried = search(lambda rate: rate / 10, 4.0, time_for=2)
    assert best is not None
    assert best.requests_per_s == pytest.approx(6.0)
    assert (missed, len(tried)) == (None, 2)


def test_a_rate_with_which_answers_do_not_keep_up_is_too_high_however_short_the_queue_is_still() -> None:
    behind = point(10.0, 0.5).model_copy(update={"completed_per_s": 6.0})
    assert not keeps(behind, SLO)


def test_a_rate_at_which_requests_failed_does_not_keep_the_slo() -> None:
    assert keeps(point(1.0, 0.5), SLO)
    assert not keeps(point(1.0, 0.5, failed=1), SLO)
    assert not keeps(point(1.0, 1.5), SLO)

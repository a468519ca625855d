"""Loads on an emulated server in virtual time."""

from collections.abc import Callable
from typing import Any

import pytest

from profiler.load import percentiles, run_closed_loop, run_open_loop
from profiler.loads import Loads
from profiler.plan import LengthMix, MeasurementPlan
from profiler.points import ClosedLoop, OpenLoop, ServerLimits
from profiler.profile_parts import LatencySlo
from profiler.session import Session
from profiler.step_time import StepTimeModel
from profiler.target import MeasurementError

LOOP = ClosedLoop(concurrency=8, prompt_tokens=200, output_tokens=50, requests=64)
SLO = LatencySlo(ttft_s=0.2)


def closed(on_emulated: Callable[..., Any], loop: ClosedLoop = LOOP, **options: Any) -> Any:
    async def work(target: Any, session: Session) -> Any:
        return await run_closed_loop(target, session.prompts, loop, SLO)

    return on_emulated(work, **options)


def opened(on_emulated: Callable[..., Any], requests_per_s: float, cv: float = 0.0, requests: int = 100) -> Any:
    loop = OpenLoop(
        requests_per_s=requests_per_s,
        prompt_tokens=200,
        output_tokens=50,
        prompt_cv=cv,
        output_cv=cv,
        requests=requests,
        filling_s=1.0,
    )

    async def work(target: Any, session: Session) -> Any:
        return await run_open_loop(target, session.prompts, loop, session.limits, session.now_s, 0, SLO)

    return on_emulated(work)


def test_every_request_of_a_closed_loop_is_one_row(on_emulated: Callable[..., Any]) -> None:
    load = closed(on_emulated)
    assert (load.point.completed, load.point.failed, len(load.rows)) == (64, 0, 64)
    assert [row.request for row in load.rows] == list(range(64))
    assert [row.sent_s for row in load.rows] == sorted(row.sent_s for row in load.rows)
    assert all(0 < row.ttft_s <= row.e2e_s for row in load.rows)


def test_a_closed_loop_keeps_its_requests_in_flight(on_emulated: Callable[..., Any]) -> None:
    rows = closed(on_emulated).rows
    for moment in [row.sent_s for row in rows[8:-8]]:
        assert sum(row.sent_s <= moment < row.sent_s + row.e2e_s for row in rows) in (8, 9)


def test_rates_and_latencies_of_a_closed_loop_agree_by_littles_law(on_emulated: Callable[..., Any]) -> None:
    point = closed(on_emulated).point
    assert point.completed_per_s * point.e2e_s.mean == pytest.approx(8, rel=0.1)
    assert point.output_tokens_per_s == pytest.approx(50 * point.completed_per_s, rel=0.15)
    assert point.prompt_tokens_per_s == pytest.approx(200 * point.completed_per_s, rel=0.15)


def test_the_first_wave_of_a_closed_loop_is_not_in_its_percentiles(on_emulated: Callable[..., Any]) -> None:
    load = closed(on_emulated)
    later = [row.ttft_s for row in load.rows[8:]]
    assert load.point.ttft_s.n == len(later) == 64 - 8
    assert load.point.ttft_s.mean == pytest.approx(sum(later) / len(later))
    assert load.rows[0].ttft_s < min(later), "the very first found an empty server"


def test_goodput_counts_what_met_its_slo(on_emulated: Callable[..., Any]) -> None:
    point = closed(on_emulated).point
    assert 0 <= point.slo_attainment <= 1
    assert point.goodput_per_s == pytest.approx(point.slo_attainment * point.completed_per_s)


def test_an_open_loop_sends_on_time_whatever_becomes_of_its_requests(on_emulated: Callable[..., Any]) -> None:
    slow, fast = opened(on_emulated, 1.0), opened(on_emulated, 1000.0)
    gaps_slow = [b.sent_s - a.sent_s for a, b in zip(slow.rows, slow.rows[1:], strict=False)]
    gaps_fast = [b.sent_s - a.sent_s for a, b in zip(fast.rows, fast.rows[1:], strict=False)]
    assert gaps_fast == pytest.approx([gap / 1000 for gap in gaps_slow], abs=1e-6)
    assert fast.point.ttft_s.p95 > 3 * slow.point.ttft_s.p95


def test_the_rate_of_an_open_loop_is_the_one_asked_for(on_emulated: Callable[..., Any]) -> None:
    rows = opened(on_emulated, 5.0, requests=60).rows
    assert (len(rows) - 1) / (rows[-1].sent_s - rows[0].sent_s) == pytest.approx(5.0, rel=1e-3)


def test_lengths_of_an_open_loop_scatter_as_asked(on_emulated: Callable[..., Any]) -> None:
    lengths = [row.prompt_tokens for row in opened(on_emulated, 20.0, cv=1.0, requests=300).rows]
    mean = sum(lengths) / len(lengths)
    spread = (sum((length - mean) ** 2 for length in lengths) / len(lengths)) ** 0.5
    assert mean == pytest.approx(200, rel=0.2)
    assert spread / mean == pytest.approx(1.0, abs=0.25)


def test_a_load_of_which_all_fails_is_an_error_that_tells_why(on_emulated: Callable[..., Any]) -> None:
    with pytest.raises(MeasurementError, match=r"all 64 requests failed: out of memory"):
        closed(on_emulated, broken_over_tokens=0)


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles([None, None]) is None
    assert percentiles([None, 2.0]).n == 1  # type: ignore[union-attr]


PLAN = MeasurementPlan(
    budget_s=3600, mix=LengthMix(prompt_tokens=200, output_tokens=50), slo=LatencySlo(ttft_s=0.5), theta_tries=6
)


def test_theta_is_a_rate_that_keeps_the_slo_just_below_one_that_misses_it(
    on_emulated: Callable[..., Any], truth: StepTimeModel, limits: ServerLimits
) -> None:
    async def work(target: Any, session: Session) -> Any:
        loads = Loads(session, meter=None)
        theta = await loads.theta(await loads.closed_loops(truth))
        return theta, loads.recorded(), await loads.power([], truth)

    theta, recorded, power = on_emulated(work, plan=PLAN)
    by_rate = {load.point.requests_per_s: load.point for load in recorded if load.point.requests_per_s}
    assert theta.requests_per_s < theta.missed_at_requests_per_s <= 1.6 * theta.requests_per_s
    assert by_rate[theta.requests_per_s].ttft_s.p95 <= 0.5
    assert max(by_rate[rate].ttft_s.p95 for rate in by_rate if rate > theta.requests_per_s) > 0.5
    assert theta.tokens_per_s == pytest.approx(250 * theta.requests_per_s)
    assert [load.point.concurrency for load in recorded if load.point.concurrency] == [1, 4, 16, 64]
    assert power is None


def test_theta_is_a_rate_that_the_server_keeps_for_long(on_emulated: Callable[..., Any], truth: StepTimeModel) -> None:
    async def work(target: Any, session: Session) -> Any:
        loads = Loads(session, meter=None)
        theta = await loads.theta(await loads.closed_loops(truth))
        long = OpenLoop(
            requests_per_s=0.95 * theta.requests_per_s,
            prompt_tokens=200,
            output_tokens=50,
            prompt_cv=0,
            output_cv=0,
            requests=3000,
            filling_s=10.0,
        )
        return await run_open_loop(target, session.prompts, long, session.limits, session.now_s, 7, PLAN.slo)

    point = on_emulated(work, plan=PLAN).point
    assert point.completed_per_s == pytest.approx(point.requests_per_s, rel=0.05)
    assert point.ttft_s.p95 < 1.5 * 0.5


def test_loads_of_an_earlier_run_are_not_measured_again(on_emulated: Callable[..., Any], truth: StepTimeModel) -> None:
    async def work(target: Any, session: Session) -> int:
        loads = Loads(session, meter=None)
        await loads.theta(await loads.closed_loops(truth))
        return len(target.prompts)

    assert on_emulated(work, plan=PLAN) > 0
    assert on_emulated(work, plan=PLAN) == 0

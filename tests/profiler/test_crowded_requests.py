"""What a request costs beside its iterations among others: on an emulated server whose truth is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.analytical import analytical_profile
from profiler.crowded_requests import CrowdedRequests, crowd_points, crowded_overheads_s
from profiler.gpu_types import H100
from profiler.iterations import Iterations
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.plan import MeasurementPlan
from profiler.points import ServerLimits
from profiler.profile import ServerProfile
from profiler.profile_parts import CrowdedRequest
from profiler.session import Session
from profiler.step_time import StepTimeModel
from profiler.target import MeasurementError

PER_SEQUENCE_S = 5e-4
UNMEASURED = analytical_profile(LLAMA_3_1_8B, H100, 1)


@pytest.fixture
def crowded(on_emulated: Callable[..., Any], truth: StepTimeModel) -> Callable[..., Any]:
    """The points of an emulated server, and the notes of the session."""

    def measure(*, async_scheduling: bool = True, **options: Any) -> tuple[tuple[CrowdedRequest, ...], tuple[str, ...]]:
        async def work(target: Any, session: Session) -> Any:
            points = await CrowdedRequests(session, truth, async_scheduling=async_scheduling).measure()
            return points, session.notes

        points, notes = on_emulated(work, async_scheduling=async_scheduling, **options)
        return points, notes

    return measure


@pytest.mark.parametrize("async_scheduling", [True, False])
@pytest.mark.parametrize("truth_s", [0.0, PER_SEQUENCE_S])
def test_the_overhead_of_a_known_server_comes_back_at_every_width(
    crowded: Callable[..., Any],
    limits: ServerLimits,
    request_overhead_s: float,
    async_scheduling: bool,
    truth_s: float,
) -> None:
    points, notes = crowded(async_scheduling=async_scheduling, request_overhead_per_sequence_s=truth_s)
    assert notes == ()
    assert [point.decode_seqs for point in points] == [8, 21, 42, limits.widest - 1]
    assert all(point.n >= 24 for point in points)
    for point in points:
        assert point.overhead_s == pytest.approx(request_overhead_s + truth_s * point.decode_seqs, abs=1e-3)


def test_the_overhead_of_requests_is_told_from_that_of_iterations_by_the_whole_measurement(
    on_emulated: Callable[..., Any], request_overhead_s: float
) -> None:
    """The step times are those that were fitted, and so is what an idle server's requests cost."""

    async def work(target: Any, session: Session) -> Any:
        fit = await Iterations(session).measure()
        return fit, await CrowdedRequests(session, fit.step_time, async_scheduling=True).measure()

    plan = MeasurementPlan(budget_s=3600, most_points=24, held_out=4)
    fit, points = on_emulated(work, plan=plan, request_overhead_per_sequence_s=PER_SEQUENCE_S)
    assert fit.request_overhead_s == pytest.approx(request_overhead_s, rel=0.3)
    for point in points:
        truth_s = request_overhead_s + PER_SEQUENCE_S * point.decode_seqs
        assert point.overhead_s == pytest.approx(truth_s, rel=0.05, abs=1e-3)


def test_what_was_measured_before_is_not_measured_again(crowded: Callable[..., Any], tmp_path: Path) -> None:
    first, _ = crowded(plan=MeasurementPlan(budget_s=3600))
    before = (tmp_path / "journal").read_text()
    again, _ = crowded(plan=MeasurementPlan(budget_s=3600))
    assert again == first
    assert (tmp_path / "journal").read_text() == before
    kept = [entry for entry in map(json.loads, before.splitlines()) if entry.get("kind") == "crowd"]
    assert len(kept) == 3 * len(first)
    assert sum(len(entry["overheads_s"]) for entry in kept) == sum(point.n for point in first)


def test_fewer_repeats_or_none_are_measured_when_time_is_short_and_a_note_says_so(crowded: Callable[..., Any]) -> None:
    points, notes = crowded(plan=MeasurementPlan(budget_s=3))
    assert points == ()
    assert notes == ("request overhead under load was not measured: the time was too short; give it more budget",)
    points, notes = crowded(plan=MeasurementPlan(budget_s=9))
    assert [point.n <= 12 for point in points] == [True] * 4
    assert notes == (
        "request overhead under load was measured in 1 of 3 repeats only: the time was too short; give it more budget",
    )
    points, notes = crowded(plan=MeasurementPlan(budget_s=3600))
    assert all(point.n > 24 for point in points)
    assert notes == ()


def test_it_takes_a_small_part_of_the_time(on_emulated: Callable[..., Any], truth: StepTimeModel) -> None:
    async def work(target: Any, session: Session) -> float:
        await CrowdedRequests(session, truth, async_scheduling=True).measure()
        took_s: float = target.clock.now_s()
        return took_s

    assert on_emulated(work, request_overhead_per_sequence_s=PER_SEQUENCE_S) < 25


def test_a_width_that_fails_is_named_and_costs_no_other(on_emulated: Callable[..., Any], truth: StepTimeModel) -> None:
    async def work(target: Any, session: Session) -> Any:
        complete = target.complete

        async def too_many(prompt: Any, max_tokens: int, **options: Any) -> Any:
            answer = await complete(prompt, max_tokens, **options)
            return replace(answer, error="out of memory") if max_tokens > 150 else answer

        target.complete = too_many
        return await CrowdedRequests(session, truth, async_scheduling=True).measure(), session.notes

    points, notes = on_emulated(work)
    assert [point.decode_seqs for point in points] == [8, 21, 42]
    assert notes == ("only some repeats of crowd of 63: out of memory",)


def test_a_crowd_is_as_wide_as_the_server_holds_beside_one_more_request() -> None:
    def widths(**limits: int) -> list[int]:
        roomy = {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "max_model_len": 2048, "kv_tokens": 64_000}
        return [point.decode_seqs for point in crowd_points(ServerLimits(**{**roomy, **limits}))]

    assert widths() == [8, 21, 42, 63]
    assert widths(max_num_seqs=2) == [1]
    assert widths(max_num_seqs=1) == []
    assert widths(max_model_len=64) == []
    assert 0 < max(widths(kv_tokens=4000)) < 63


def test_tokens_that_reach_the_client_late_or_several_at_a_time_change_nothing() -> None:
    """Iterations of 10 ms, 14 ms with a request in them; its token is seen 50 ms after it was sent."""
    step_s, own_s, overhead_s = 0.010, 0.014, 0.021
    took_s = np.full(60, step_s)
    with_request = np.arange(12, 55, 6)
    took_s[with_request] = own_s
    ends_s = np.cumsum(took_s)
    engine_s = 1.5 * step_s + own_s
    passing_s = [(end_s - engine_s - overhead_s, end_s) for end_s in ends_s[with_request]]
    in_twos_s = np.repeat(ends_s[1::2], 2)
    rows_s = np.array([ends_s, ends_s - 0.004, ends_s + 0.003, in_twos_s])
    found_s = crowded_overheads_s(rows_s, passing_s, own_s - step_s, async_scheduling=True)
    assert found_s == pytest.approx([overhead_s] * len(with_request), abs=1e-4)


def test_requests_that_passed_while_not_all_sequences_decoded_do_not_count() -> None:
    ends_s = 0.01 * np.arange(1, 61)
    rows_s = np.array([ends_s, ends_s + 0.1])
    passing_s = [(at_s, at_s + 0.05) for at_s in (0.02, 0.05, 0.15, 0.25, 0.35, 0.45, 0.61)]
    assert len(crowded_overheads_s(rows_s, passing_s, 0.0, async_scheduling=True)) == 4
    with pytest.raises(MeasurementError, match="2 requests passed, and 4 are wanted"):
        crowded_overheads_s(rows_s, passing_s[:4], 0.0, async_scheduling=True)


def crowds(*of: tuple[int, float]) -> tuple[CrowdedRequest, ...]:
    return tuple(CrowdedRequest(decode_seqs=seqs, overhead_s=overhead_s, n=30) for seqs, overhead_s in of)


@pytest.mark.parametrize(
    ("running", "overhead_s"), [(0, 3e-3), (4, 5e-3), (8, 7e-3), (20, 9e-3), (32, 11e-3), (256, 11e-3)]
)
def test_between_crowds_that_were_measured_the_overhead_grows_evenly_and_beyond_them_no_more(
    running: int, overhead_s: float
) -> None:
    profile = UNMEASURED.model_copy(
        update={"request_overhead_s": 3e-3, "crowded_requests": crowds((8, 7e-3), (32, 11e-3))}
    )
    assert profile.request_overhead_among_s(running) == pytest.approx(overhead_s)


def test_an_overhead_that_does_not_grow_is_none_that_shrinks() -> None:
    update = {"request_overhead_s": 3e-3, "crowded_requests": crowds((8, 2e-3), (60, -1e-3))}
    profile = UNMEASURED.model_copy(update=update)
    assert [profile.request_overhead_among_s(running) for running in (0, 8, 30, 60)] == [3e-3] * 4


def test_what_nobody_measured_adds_nothing() -> None:
    assert UNMEASURED.request_overhead_s is None
    assert UNMEASURED.request_overhead_among_s(40) == 0.0


@pytest.mark.parametrize("widths", [(32, 8), (8, 8)])
def test_crowds_are_told_in_rising_order_each_once(widths: tuple[int, int]) -> None:
    points = [one.model_dump() for one in crowds(*((width, 1e-3) for width in widths))]
    told = UNMEASURED.model_dump() | {"crowded_requests": points}
    with pytest.raises(ValueError, match="give each number once, in rising order"):
        ServerProfile.model_validate(told)

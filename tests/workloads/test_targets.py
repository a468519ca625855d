"""Targets: what production-style traces have, what toys lack, and what cannot be told."""

from collections.abc import Mapping

import numpy as np
import pytest

from workloads.preset import bundled_presets, read_values
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.targets import TARGETS, TargetResult, Verdict, judge
from workloads.trace import Trace
from workloads.trace_metadata import Calendar, TraceMetadata
from workloads.transforms import cut


def _preset(name: str, **changes: object) -> SyntheticWorkload:
    return SyntheticWorkload.model_validate({**read_values(bundled_presets()[name]), **changes})


def _by_number(results: list[TargetResult]) -> dict[str, TargetResult]:
    return {result.target.number: result for result in results}


def _toy(size: int = 20_000, horizon_s: float = 8 * 86400.0) -> Trace:
    """Poisson arrivals of one model, one region and one tier at an even rate; smooth lengths; nobody known."""
    rng = np.random.default_rng(1)
    return Trace.from_columns(
        request_id=np.arange(size),
        arrival_s=np.sort(rng.uniform(0, horizon_s, size)),
        model=["m"] * size,
        region=["r"] * size,
        tier=["IW-F"] * size,
        prompt_tokens=np.exp(rng.normal(6, 1, size)).astype(int) + 1,
        output_tokens=np.full(size, 10),
        deadline_s=np.full(size, np.nan),
        metadata=TraceMetadata(horizon_s=horizon_s, calendar=Calendar(start_hour_of_week=0.0)),
    )


def test_there_are_twelve_targets_and_each_line_has_its_own_number_and_a_source():
    numbers = [target.number for target in TARGETS]
    assert sorted({int(number.rstrip("abcde")) for number in numbers}) == list(range(1, 13))
    assert len(set(numbers)) == len(numbers)
    assert all(target.source for target in TARGETS)


@pytest.mark.slow
def test_a_sageserve_day_meets_all_targets_whatever_the_seed():
    workload = _preset("sageserve-day")
    fallen_short = {
        (seed, result.target.number): (result.verdict, dict(result.values), result.note)
        for seed in range(10)
        for result in judge(synthesise(workload, seed))
        if result.verdict is not Verdict.PASS
    }
    assert fallen_short == {}


@pytest.fixture(scope="module")
def small_day() -> Mapping[str, TargetResult]:
    return _by_number(judge(synthesise(_preset("sageserve-day", mean_requests_per_s=0.2), 1)))


def test_what_only_a_week_can_tell_of_a_synthetic_day_is_told_of_its_weeks_and_says_so(small_day):
    assert small_day["4b"].on_week.startswith(
        "the two weeks from its Monday on, drawn from the same workload and seed at 0.2"
    )
    assert 0.16 <= small_day["4b"].values[""] <= 0.57
    assert small_day["11a"].on_week == ""


def test_a_target_for_a_rate_that_a_trace_does_not_have_does_not_apply(small_day):
    assert small_day["6b"].verdict is Verdict.NOT_APPLICABLE
    assert small_day["6b"].note == "fewer than 30 minutes at 28-45 requests/s"


def test_parameters_are_held_against_what_was_declared(small_day):
    assert (small_day["1"].verdict, small_day["1"].note) == (Verdict.PASS, "declared 6.3")
    assert small_day["2"].note == "declared 1.5"


def test_a_trace_that_was_changed_declares_nothing_and_is_measured_as_it_is():
    trace = synthesise(_preset("sageserve-day", mean_requests_per_s=0.2), 1)
    judged = _by_number(judge(cut(trace, 0.0, 6 * 3600.0)))
    assert judged["1"].verdict is Verdict.NOT_APPLICABLE
    assert judged["1"].note == "a parameter, and the trace declares none"
    assert judged["4b"].note == "the trace lacks a day of weekdays or a day of weekend"
    assert judged["4b"].on_week == judged["10e"].on_week == ""


def test_a_toy_misses_what_it_has_and_says_why_the_rest_does_not_apply():
    judged = _by_number(judge(_toy()))
    missed = {number for number, result in judged.items() if result.verdict is Verdict.MISS}
    assert {"3a", "4a", "4b", "10a", "10d", "11a", "11b"} <= missed
    assert judged["3b"].note == "no NIW requests"
    assert judged["8a"].note == "1 regions instead of three"
    assert judged["12a"].note == judged["12b"].note == "the trace does not say whose the requests are"
    assert all(r.note for r in judged.values() if r.verdict is Verdict.NOT_APPLICABLE)


def test_every_value_of_a_group_must_lie_in_the_range(small_day):
    assert set(small_day["10a"].values) == {"llama-2-70b", "bloom-176b", "llama-3.1-8b", "llama-3.2-3b"}
    models = read_values(bundled_presets()["sageserve-day"])["models"]
    models["bloom-176b"]["prompt_tokens"] = [[0, 10], [0.5, 300], [1, 14000]]
    judged = _by_number(judge(synthesise(_preset("sageserve-day", models=models, mean_requests_per_s=0.2), 1)))
    assert judged["10a"].verdict is Verdict.MISS
    assert judged["10a"].values["bloom-176b"] == pytest.approx(300, rel=0.1)


def test_a_step_of_one_model_is_found_where_there_is_one(small_day):
    flat = _by_number(judge(synthesise(_preset("sageserve-day", level_steps=(), mean_requests_per_s=0.2), 1)))
    assert small_day["9b"].verdict is Verdict.PASS
    assert flat["9b"].values[""] < 1.4


def test_an_empty_trace_can_be_judged():
    results = judge(_toy(size=0))
    assert {result.verdict for result in results} == {Verdict.NOT_APPLICABLE}
    assert all(result.note for result in results)

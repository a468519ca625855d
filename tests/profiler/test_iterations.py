"""Profiles of an emulated server whose step times are known, in virtual time."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.iterations import Iterations
from profiler.plan import MeasurementPlan
from profiler.session import Session
from profiler.step_time import StepTimeModel
from profiler.target import MeasurementError

SMALL = MeasurementPlan(budget_s=3600, most_points=24, held_out=4)


def test_a_profile_of_40_points_predicts_a_known_server_within_3_percent(
    measured: Callable[..., Any], truth: StepTimeModel, request_overhead_s: float
) -> None:
    outcome = measured()
    held_out = outcome.fit.quality.held_out
    assert len({sample.point for sample in outcome.samples}) <= 40
    assert held_out.n == 8
    assert held_out.mape < 0.03
    for batch in ((0, 0, 1, 500), (0, 0, 64, 60_000), (512, 512 * 256, 0, 0), (2048, 2048 * 1024, 8, 4000)):
        assert outcome.fit.step_time.step_s(*batch) == pytest.approx(truth.step_s(*batch), rel=0.03)
    assert outcome.fit.request_overhead_s == pytest.approx(request_overhead_s, rel=0.2)
    assert outcome.notes == ()


def test_every_point_has_three_repeats_or_more_and_held_out_ones_are_not_fitted(measured: Callable[..., Any]) -> None:
    outcome = measured(plan=SMALL)
    repeats: dict[str, list[int]] = {}
    for sample in outcome.samples:
        repeats.setdefault(sample.point, []).append(sample.repeat)
    assert all(sorted(seen) == list(range(len(seen))) and len(seen) >= 3 for seen in repeats.values())
    held_out = {sample.point for sample in outcome.samples if sample.held_out}
    assert len(held_out) == 4
    assert not held_out & set(outcome.fit.leave_one_out)


def test_no_prompt_whose_prefill_is_timed_comes_twice(measured: Callable[..., Any]) -> None:
    outcome = measured(plan=SMALL)
    lengths = {round(s.prefill_tokens * s.steps) for s in outcome.samples if s.kind == "prefill" and s.steps == 1}
    timed = [prompt for prompt in outcome.prompts if len(prompt) in lengths and len(prompt) > 16]
    assert len(set(timed)) > len(lengths)
    by_length = {length: [p for p in timed if len(p) == length] for length in lengths - {16, 64, 1024}}
    assert all(len(set(prompts)) == len(prompts) for prompts in by_length.values())


class Killed(Exception):
    """Stands for SIGKILL: nothing runs after it."""


def test_what_was_measured_before_a_kill_is_not_measured_again(
    on_emulated: Callable[..., Any], measured: Callable[..., Any], tmp_path: Path
) -> None:
    async def killed_after_30(target: Any, session: Session) -> None:
        add = session.journal.add

        def counting(kind: str, **found: Any) -> None:
            add(kind, **found)
            if sum(1 for _ in session.journal.of("sample")) == 30:
                raise Killed

        session.journal.add = counting  # type: ignore[method-assign]
        await Iterations(session).measure()

    with pytest.raises(Killed):
        on_emulated(killed_after_30, plan=SMALL)
    before = (tmp_path / "journal").read_text().splitlines()
    outcome = measured(plan=SMALL)
    after = (tmp_path / "journal").read_text().splitlines()
    assert after[: len(before)] == before
    samples = [entry["sample"] for entry in map(json.loads, after) if "sample" in entry]
    keys = [(sample["point"], sample["repeat"]) for sample in samples]
    assert len(set(keys)) == len(keys) == len(outcome.samples) > 30


def test_a_session_that_goes_on_asks_for_prompts_that_no_cache_knows(
    on_emulated: Callable[..., Any], measured: Callable[..., Any]
) -> None:
    first = measured(plan=SMALL)

    async def go_on(target: Any, session: Session) -> list[tuple[int, ...]]:
        await Iterations(session).measure_fresh(4, lambda point: True)
        return list(target.prompts)

    long = {prompt for prompt in on_emulated(go_on, plan=SMALL) if len(prompt) > 500}
    assert long
    assert not long & set(first.prompts)


def test_a_point_that_fails_is_named_and_the_rest_is_measured(measured: Callable[..., Any]) -> None:
    outcome = measured(plan=SMALL, broken_over_tokens=5000)
    assert any(note.startswith("left out: prefill 6") and "out of memory" in note for note in outcome.notes)
    assert max(sample.prefill_tokens * sample.steps for sample in outcome.samples) <= 5000


def test_a_single_fault_costs_a_repeat_and_not_the_point(on_emulated: Callable[..., Any]) -> None:
    async def one_hiccup(target: Any, session: Session) -> tuple[Any, tuple[str, ...]]:
        complete, calls = target.complete, 0

        async def hiccup(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            answer = await complete(*arguments, **options)
            return replace(answer, error="connection reset") if calls == 400 else answer

        target.complete = hiccup
        iterations = Iterations(session)
        await iterations.measure()
        return iterations.samples, session.notes

    samples, notes = on_emulated(one_hiccup, plan=SMALL)
    assert notes == ()
    assert min(sum(s.point == name for s in samples) for name in {s.point for s in samples}) >= 2


def test_a_larger_budget_measures_what_a_small_one_left_out(measured: Callable[..., Any]) -> None:
    short = measured(plan=replace(SMALL, budget_s=12.0))
    assert any("the time was too short" in note for note in short.notes)
    long = measured(plan=SMALL)
    assert long.notes == ()
    assert {sample.point for sample in short.samples} < {sample.point for sample in long.samples}


def test_a_server_that_dies_ends_the_session_and_costs_no_point(
    on_emulated: Callable[..., Any], measured: Callable[..., Any]
) -> None:
    async def dies(target: Any, session: Session) -> None:
        complete, calls = target.complete, 0

        async def until_then(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            answer = await complete(*arguments, **options)
            return replace(answer, error="cannot connect") if calls > 400 else answer

        target.complete = until_then
        await Iterations(session).measure()

    with pytest.raises(MeasurementError, match="the server answers no more: cannot connect"):
        on_emulated(dies, plan=SMALL)
    outcome = measured(plan=SMALL)
    assert outcome.notes == ()
    assert outcome.fit.quality.held_out.n == 4


def test_a_server_that_answers_nothing_is_an_error_and_no_profile(measured: Callable[..., Any]) -> None:
    with pytest.raises(MeasurementError, match="out of memory"):
        measured(plan=SMALL, broken_over_tokens=0)


def test_a_small_budget_leaves_the_costly_points_out_and_says_so(measured: Callable[..., Any]) -> None:
    outcome = measured(plan=replace(SMALL, budget_s=30.0))
    assert any("the time was too short" in note for note in outcome.notes)
    assert outcome.took_s < 60
    assert outcome.fit.quality.residuals.n >= 8


def test_three_points_judge_the_fit_of_a_budget_whose_share_for_them_is_spent(measured: Callable[..., Any]) -> None:
    outcome = measured(plan=replace(SMALL, budget_s=30.0))
    assert outcome.fit.quality.held_out.n == 3

"""Learning a workload: what is made again from what was learned has the statistics of what it was learned from."""

import numpy as np
import pytest

from workloads.describe import describe
from workloads.dispersion import index_of_dispersion
from workloads.fitting.lengths import quantile_table
from workloads.fitting.workload import FitError, FittedWorkload, fit_workload
from workloads.hourly_load import hourly_load
from workloads.preset import bundled_presets, read_values
from workloads.request import Tier
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata
from workloads.transforms import cut

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original() -> Trace:
    """Saturday to Tuesday, with a step on Sunday at noon."""
    changes: dict[str, object] = {
        "mean_requests_per_s": 0.9,
        "horizon_h": 96,
        "start_weekday": "saturday",
        "level_steps": [{"model": "llama-3.2-3b", "at_h": 36, "factor": 3}],
    }
    values = {**read_values(bundled_presets()["sageserve-day"]), **changes}
    # What is learned of a step is the step and the chance around it: little of that here.
    values["interactive"].update(level_sd=0.05, bursts_per_day=0)
    del values["models"]["bloom-176b"]["regime"]
    return synthesise(SyntheticWorkload.model_validate(values), 5)


@pytest.fixture(scope="module")
def fitted(original) -> FittedWorkload:
    return fit_workload(original)


@pytest.fixture(scope="module")
def again(fitted) -> Trace:
    return synthesise(fitted.workload, 77)


def test_rates_by_hour_and_weekday_are_close(original, again):
    assert len(again) == pytest.approx(len(original), rel=0.06)
    first, second = (hourly_load(trace, trace.interactive) for trace in (original, again))
    ratio = second.mean_weekday() / first.mean_weekday()
    assert np.abs(np.log(ratio)).mean() < 0.12
    assert np.corrcoef(first.mean_weekday(), second.mean_weekday())[0, 1] > 0.96
    assert second.weekend_to_weekday().value == pytest.approx(first.weekend_to_weekday().value, rel=0.15)


@pytest.mark.parametrize("tier", list(Tier))
def test_dispersion_of_each_tier_is_close(tier, original, again):
    first, second = (
        index_of_dispersion(trace.numbers("arrival_s")[trace.labels("tier").rows(tier)], trace.horizon_s)
        for trace in (original, again)
    )
    assert second == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize("column", ["prompt_tokens", "output_tokens"])
def test_quantiles_of_lengths_are_close(column, original, again):
    for name in original.labels("model").names:
        first, second = (
            np.quantile(trace.numbers(column)[trace.labels("model").rows(name)], [0.1, 0.5, 0.9, 0.98])
            for trace in (original, again)
        )
        assert second == pytest.approx(first, rel=0.06)


def test_shares_and_phases_of_regions_models_and_tiers_are_close(original, fitted, again):
    first, second = describe(original), describe(again)
    for kind in ("tiers", "regions", "models"):
        for name, group in getattr(first, kind).items():
            assert getattr(second, kind)[name].request_share == pytest.approx(group.request_share, abs=0.03)
    offsets = {name: region.phase_offset_h for name, region in fitted.workload.regions.items()}
    assert offsets["east"] - offsets["west"] == pytest.approx(2.0, abs=0.5)


def test_tenants_and_their_gaps_are_learned(original, fitted):
    assert fitted.workload.tenants == 24
    assert fitted.workload.tenant_skew == pytest.approx(1.0, abs=0.03)
    assert fitted.workload.interarrival_cv[Tier.IW_F] == pytest.approx(1.8, rel=0.25)
    first, second = (describe(synthesise(fitted.workload, 3)), describe(original))
    assert first.top_10_tenants_share.value == pytest.approx(second.top_10_tenants_share.value, abs=0.02)


def test_a_step_is_learned_for_what_it_is(fitted):
    (step,) = [step for step in fitted.workload.level_steps if step.part == "interactive"]
    assert step.model == "llama-3.2-3b"
    assert step.at_h == pytest.approx(36, abs=3)
    assert step.factor == pytest.approx(3, rel=0.1)


def test_what_was_learned_survives_a_file(fitted):
    values = fitted.workload.model_dump(mode="json", exclude_defaults=True)
    assert SyntheticWorkload.model_validate(values) == fitted.workload


def test_bursts_are_learned(original):
    quiet = fit_workload(synthesise(SyntheticWorkload(horizon_h=24, mean_requests_per_s=3, tenants=4), 1))
    assert 0.5 <= quiet.workload.interactive.bursts_per_day <= 6
    assert 3 <= quiet.workload.interactive.burst_factor_low <= quiet.workload.interactive.burst_factor_high <= 16
    assert quiet.workload.interactive.burst_minutes == 2


def _anonymous(prompt_tokens, output_tokens, arrival_s) -> Trace:
    size = len(arrival_s)
    return Trace.from_columns(
        request_id=np.arange(size),
        arrival_s=np.sort(arrival_s),
        model=["m"] * size,
        region=["r"] * size,
        tier=["IW-F"] * size,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        deadline_s=np.full(size, np.nan),
        metadata=TraceMetadata(horizon_s=3600.0),
    )


def test_an_hour_of_poisson_arrivals_without_calendar_or_tenants_is_learned_as_one_poisson_stream():
    rng = np.random.default_rng(4)
    size = 8_000
    trace = _anonymous(rng.integers(10, 1000, size), rng.integers(1, 300, size), rng.uniform(0, 3600, size))
    fitted = fit_workload(trace)
    assert fitted.workload.tenants == 1
    assert fitted.workload.interarrival_cv[Tier.IW_F] == pytest.approx(1.0, abs=0.08)
    assert any("weekday of time 0" in note for note in fitted.notes)
    assert any("whose the requests are" in note for note in fitted.notes)
    made = synthesise(fitted.workload, 1)
    assert len(made) == pytest.approx(size, rel=0.03)
    assert made.interactive.all()


def test_lengths_that_hang_together_are_said_to_come_apart():
    rng = np.random.default_rng(5)
    prompt = rng.integers(10, 1000, 5000)
    notes = fit_workload(_anonymous(prompt, prompt // 2 + 1, rng.uniform(0, 3600, 5000))).notes
    assert any("prompt and output lengths correlate by 1.00" in note for note in notes)


def test_prompts_cut_to_a_context_are_cut_again_and_not_shortened_twice():
    rng = np.random.default_rng(6)
    output = rng.integers(1, 400, 20_000)
    prompt = np.minimum(rng.integers(500, 1500, 20_000), 1000 - output)
    fitted = fit_workload(_anonymous(prompt, output, rng.uniform(0, 3600, 20_000)))
    made = synthesise(fitted.workload, 2)
    assert made.total_tokens.max() == 1000
    assert made.numbers("prompt_tokens").mean() == pytest.approx(prompt.mean(), rel=0.02)


def test_a_table_of_quantiles_keeps_steps_and_ends():
    table = quantile_table(np.array([5] + [100] * 60 + [700] * 39, dtype=np.int32))
    assert table[0] == (0.0, 5)
    assert table[-1] == (1.0, 700)
    assert [tokens for _, tokens in table] == [5, 5, 100, 100, 700, 700]


def test_too_little_to_learn_from_is_refused(original):
    with pytest.raises(FitError, match="at least 100 are needed"):
        fit_workload(cut(original, 0.0, 60.0))

"""Synthetic traces: the numbers that were asked for, and the same ones every time."""

import numpy as np
import pytest
from pydantic import ValidationError

from workloads.describe import describe
from workloads.request import Tier
from workloads.shapes import LoadShape
from workloads.synthesis import SyntheticWorkload, short_workload, synthesise
from workloads.trace import Trace
from workloads.transforms import split_history

FLAT = LoadShape(peak_to_trough=1.0, weekend_to_weekday=1.0, level_sd=0, bursts_per_day=0)


@pytest.fixture(scope="module")
def week() -> Trace:
    return synthesise(SyntheticWorkload(mean_requests_per_s=0.3, tenants=12), seed=11)


def _day(**changes) -> SyntheticWorkload:
    return SyntheticWorkload(**{"mean_requests_per_s": 0.2, "horizon_h": 24, "tenants": 2, **changes})


def _content(trace: Trace) -> dict[str, list[object]]:
    """Every column but the ids, which count from the start of each window; no deadline is None here, for ==."""
    columns = trace.table.drop_columns(["request_id", "deadline_s"]).to_pydict()
    return {**columns, "deadline_s": [request.deadline_s for request in trace.requests()]}


def _shares(trace: Trace, column: str) -> dict[str, float]:
    labels = trace.labels(column)
    return dict(zip(labels.names, np.bincount(labels.codes) / len(trace), strict=True))


def test_the_same_seed_gives_the_same_trace_and_another_seed_another():
    first, again, other = (synthesise(_day(), seed) for seed in (1, 1, 2))
    assert first.digest() == again.digest()
    assert first.digest() != other.digest()


def test_a_trace_is_sorted_and_numbered_and_lies_within_its_horizon(week):
    arrival_s = week.numbers("arrival_s")
    assert (np.diff(arrival_s) >= 0).all()
    assert week.numbers("request_id").tolist() == list(range(len(week)))
    assert arrival_s[-1] < week.horizon_s == 168 * 3600


def test_history_and_run_are_the_two_halves_of_one_window_whether_or_not_both_are_drawn():
    workload = _day(start_hour=7.5)
    history = synthesise(workload, 3, from_h=-30, to_h=0)
    run = synthesise(workload, 3)
    both = synthesise(workload, 3, from_h=-30, to_h=24)
    before, after = split_history(both, 30 * 3600.0)
    assert _content(before) == _content(history)
    assert _content(after) == _content(run)
    assert after.metadata.calendar == run.metadata.calendar
    assert history.metadata.calendar is not None
    assert history.metadata.calendar.start_hour_of_week == 168 + 7.5 - 30


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    workload = _day()
    short, whole = synthesise(workload, 4, to_h=5), synthesise(workload, 4)
    assert _content(short) == {name: values[: len(short)] for name, values in _content(whole).items()}
    assert 0 < len(short) < len(whole)


def test_changing_one_stream_leaves_the_others_alone():
    before = _day(interarrival_cv={Tier.IW_F: 1.5, Tier.IW_N: 1.5, Tier.NIW: 2.0})
    after = _day(interarrival_cv={Tier.IW_F: 1.5, Tier.IW_N: 1.5, Tier.NIW: 3.0})
    traces = [synthesise(workload, 5) for workload in (before, after)]
    interactive = [trace.rows(trace.interactive) for trace in traces]
    niw = [trace.rows(~trace.interactive) for trace in traces]
    columns = ["arrival_s", "model", "region", "prompt_tokens", "output_tokens"]
    assert interactive[0].select(columns).to_pydict() == interactive[1].select(columns).to_pydict()
    assert niw[0].select(columns).to_pydict() != niw[1].select(columns).to_pydict()


def test_the_mean_rate_over_the_run_is_the_one_asked_for():
    counts = [len(synthesise(_day(horizon_h=10, start_hour=8, mean_requests_per_s=0.3), seed)) for seed in range(8)]
    assert np.mean(counts) == pytest.approx(0.3 * 36000, rel=0.08)


def test_tiers_regions_and_models_have_the_shares_asked_for(week):
    tiers, regions = _shares(week, "tier"), _shares(week, "region")
    assert (tiers["IW-F"] + tiers["IW-N"]) / tiers["NIW"] == pytest.approx(3.0, rel=0.15)
    assert tiers["IW-F"] / tiers["IW-N"] == pytest.approx(1.5, rel=0.05)
    assert regions == pytest.approx({"west": 0.43 / 1.01, "central": 0.30 / 1.01, "east": 0.28 / 1.01}, abs=0.02)
    tokens = [group.token_share for group in describe(week).models.values()]
    assert max(tokens) / min(tokens) < 2


def test_shares_may_be_of_requests_and_differ_by_model_and_region():
    workload = _day(
        mean_requests_per_s=0.5,
        shares_of="requests",
        models={
            "llama-3.1-8b": {"share": 3},
            "llama-3.2-3b": {"share": 1, "region_shares": {"east": 4, "west": 1}},
        },
        interactive=FLAT,
        niw=FLAT,
    )
    table = synthesise(workload, 6).table.to_pandas()
    counts = table.groupby(["model", "region"], observed=True).size()
    assert counts["llama-3.1-8b"].sum() / counts["llama-3.2-3b"].sum() == pytest.approx(3, rel=0.1)
    assert counts["llama-3.2-3b", "east"] / counts["llama-3.2-3b", "west"] == pytest.approx(4, rel=0.15)
    assert "central" not in counts["llama-3.2-3b"]


def test_a_week_looks_like_production(week):
    described = describe(week)
    interactive, niw = described.loads["interactive"], described.loads["niw"]
    assert interactive.autocorrelation_24h.value >= 0.75
    assert 3 <= interactive.peak_to_trough.value <= 10
    assert 0.24 <= interactive.weekend_to_weekday.value <= 0.5
    assert abs(niw.autocorrelation_24h.value) <= 0.29
    assert 1.0 < niw.peak_to_trough_4h.value <= 2.0
    assert 0.6 <= niw.weekend_to_weekday.value <= 0.8
    assert 0.6 <= described.top_10_tenants_share.value <= 0.95
    assert week.numbers("output_tokens").mean() == pytest.approx(220, rel=0.1)


def test_at_the_rate_of_a_production_fleet_counts_are_as_dispersed_as_measured():
    workload = SyntheticWorkload(mean_requests_per_s=35, start_hour=10, horizon_h=3)
    described = describe(synthesise(workload, 8)).loads["all"]
    assert 1.8 <= described.index_of_dispersion_10s.value <= 3.2
    assert 1.0 <= described.interarrival_cv.value <= 3.2
    assert 1.1 <= described.minute_p99_to_hour_median.value <= 3.3


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.5])
def test_a_single_stream_has_the_gaps_asked_for(cv):
    workload = SyntheticWorkload(
        mean_requests_per_s=1.0,
        horizon_h=12,
        tenants=1,
        models={"llama-3.1-8b": {}},
        regions={"east": {}},
        interactive=FLAT,
        interactive_per_niw=1e9,
        iw_f_share_of_interactive=1.0,
        interarrival_cv={Tier.IW_F: cv, Tier.IW_N: 1.0, Tier.NIW: 1.0},
    )
    gaps = np.diff(synthesise(workload, 9).numbers("arrival_s"))
    assert gaps.mean() == pytest.approx(1.0, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_a_step_may_touch_only_a_part_of_a_model():
    step = {"model": "llama-3.1-8b", "at_h": 12, "factor": 3, "part": "interactive"}
    workload = _day(mean_requests_per_s=1, models={"llama-3.1-8b": {}}, level_steps=(step,), interactive=FLAT, niw=FLAT)
    trace = synthesise(workload, 12)
    late = trace.numbers("arrival_s") >= 12 * 3600
    interactive = trace.interactive
    assert (late & interactive).sum() / (~late & interactive).sum() == pytest.approx(3, rel=0.1)
    assert (late & ~interactive).sum() / (~late & ~interactive).sum() == pytest.approx(1, rel=0.1)


def test_niw_may_ask_for_other_models():
    models = {"llama-3.1-8b": {"share": 1, "niw_share": 0}, "llama-3.2-3b": {"share": 1, "niw_share": 1}}
    trace = synthesise(_day(shares_of="requests", models=models, interactive=FLAT, niw=FLAT), 14)
    niw = ~trace.interactive
    small = trace.labels("model").rows("llama-3.2-3b")
    assert small[niw].all()
    assert small[~niw].mean() == pytest.approx(0.5, abs=0.05)
    assert niw.mean() == pytest.approx(0.25, abs=0.05)


def test_requests_fit_the_context_of_their_model_and_the_cap(week):
    described = describe(week)
    for name, limit in (("llama-2-70b", 4096), ("bloom-176b", 2048), ("llama-3.1-8b", 32768), ("llama-3.2-3b", 32768)):
        assert week.total_tokens[week.labels("model").rows(name)].max() <= limit
        assert described.output_lengths[name].p99 <= 2000
    cut = week.metadata.steps[0].parameters["cut_share"]
    assert cut["llama-2-70b"] > 0.5 > 0.1 > cut["llama-3.1-8b"] > 0


def test_only_niw_requests_have_a_deadline_and_it_is_a_day_away(week):
    slack_s = week.numbers("deadline_s") - week.numbers("arrival_s")
    assert np.isnan(slack_s[week.interactive]).all()
    assert slack_s[~week.interactive] == pytest.approx(86400.0, abs=1e-5)


def test_a_region_ahead_in_time_peaks_earlier():
    workload = _day(
        mean_requests_per_s=1.0,
        regions={"here": {}, "ahead": {"phase_offset_h": 6}},
        models={"llama-3.1-8b": {}},
        start_weekday="tuesday",
        interactive=LoadShape(level_sd=0, bursts_per_day=0),
        interactive_per_niw=100,
    )
    trace = synthesise(workload, 10)
    hour = trace.numbers("arrival_s") / 3600 * 2 * np.pi / 24
    region = trace.labels("region")
    peak_h = {
        name: np.angle(np.exp(1j * hour[region.rows(name)]).mean()) % (2 * np.pi) * 24 / (2 * np.pi)
        for name in region.names
    }
    assert peak_h["here"] == pytest.approx(14, abs=0.7)
    assert peak_h["ahead"] == pytest.approx(8, abs=0.7)


def test_a_level_step_multiplies_one_model_from_its_hour_on():
    models = {"llama-3.1-8b": {}, "llama-3.2-3b": {}}
    step = {"model": "llama-3.1-8b", "at_h": 12, "factor": 3}
    workload = _day(mean_requests_per_s=1, models=models, level_steps=(step,), interactive=FLAT, niw=FLAT)
    trace = synthesise(workload, 12)
    late = trace.numbers("arrival_s") >= 12 * 3600
    stepped = trace.labels("model").rows("llama-3.1-8b")
    assert (late & stepped).sum() / (~late & stepped).sum() == pytest.approx(3, rel=0.1)
    assert (late & ~stepped).sum() / (~late & ~stepped).sum() == pytest.approx(1, rel=0.1)


def test_a_day_squeezed_into_three_minutes_keeps_its_shape_and_its_rate():
    trace = synthesise(short_workload(["m"], ["east", "west"], day_s=180, mean_requests_per_s=20), 13)
    assert trace.horizon_s == 180
    assert len(trace) == pytest.approx(20 * 180, rel=0.25)
    counts = np.histogram(trace.numbers("arrival_s")[trace.interactive], 12, (0, 180))[0]
    assert counts.max() / counts.min() > 2.5
    assert 90 <= 15 * counts.argmax() <= 120
    assert trace.numbers("prompt_tokens").max() <= 200
    assert trace.numbers("output_tokens").max() <= 64
    slack_s = (trace.numbers("deadline_s") - trace.numbers("arrival_s"))[~trace.interactive]
    assert slack_s == pytest.approx(180.0, abs=1e-5)


def test_the_metadata_say_how_the_trace_was_made(week):
    (step,) = week.metadata.steps
    assert (step.name, week.metadata.seed) == ("synthesise", 11)
    again = SyntheticWorkload.model_validate(step.parameters["workload"])
    assert again == SyntheticWorkload(mean_requests_per_s=0.3, tenants=12)


def test_a_built_in_model_may_leave_out_what_is_built_in():
    workload = SyntheticWorkload.model_validate({"models": {"llama-2-70b": None, "bloom-176b": {"share": 2}}})
    assert workload.models["llama-2-70b"].max_model_len == 4096
    assert workload.models["bloom-176b"].share == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean_requests_per_second": 2}, "mean_requests_per_second"),
        ({"mean_requests_per_s": 0}, "mean_requests_per_s"),
        ({"models": {"unknown": {}}}, "max_model_len"),
        ({"models": {"llama-2-70b": {"region_shares": {"mars": 1}}}}, "no region 'mars'; have west, central, east"),
        ({"models": {"llama-2-70b": {"region_shares": {"east": 0}}}}, "adds up to 0"),
        ({"level_steps": [{"model": "x", "at_h": 1, "factor": 2}]}, "level_steps: no model 'x'"),
        ({"models": {"llama-2-70b": {"niw_share": 0}}}, "niw_share is 0 for all"),
        ({"interarrival_cv": {"IW-F": 1, "IW-N": 1}}, "interarrival_cv.NIW=None; every tier needs one"),
    ],
)
def test_a_workload_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        SyntheticWorkload.model_validate(changes)


def test_an_empty_window_or_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="from_h must be below to_h"):
        synthesise(_day(), 1, from_h=3, to_h=3)
    with pytest.raises(ValueError, match="seed=-1; must be 0 or more"):
        synthesise(_day(), -1)


def test_a_window_so_short_that_nothing_arrives_is_an_empty_trace():
    trace = synthesise(_day(mean_requests_per_s=1e-6), 1, to_h=0.01)
    assert len(trace) == 0
    assert list(trace.requests()) == []
    assert trace.horizon_s == pytest.approx(36)

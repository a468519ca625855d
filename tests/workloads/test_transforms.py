"""Transforms of traces: what they keep, what they change, what they write down."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.dispersion import index_of_dispersion
from workloads.shapes import LoadShape
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata
from workloads.transforms import clip_lengths, cut, scale_rate, split_history, stretch_time, thin


@pytest.fixture(scope="module")
def day() -> Trace:
    return synthesise(SyntheticWorkload(mean_requests_per_s=0.4, horizon_h=24, tenants=4), 21)


@pytest.fixture(scope="module")
def bursty() -> Trace:
    flat = LoadShape(peak_to_trough=3.0, weekend_to_weekday=1.0, level_sd=0, bursts_per_day=0)
    workload = SyntheticWorkload(
        mean_requests_per_s=12,
        horizon_h=3,
        tenants=1,
        models={"llama-3.1-8b": {}},
        interactive=flat,
        niw=flat,
        interarrival_cv={"IW-F": 2.5, "IW-N": 2.5, "NIW": 2.5},
    )
    return synthesise(workload, 22)


def _ids(trace: Trace) -> list[int]:
    return trace.numbers("request_id").tolist()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.floats(1.0, 86399.0), max_size=4, unique=True))
def test_cutting_a_trace_to_pieces_loses_and_repeats_nothing(day, cuts):
    edges = [0.0, *sorted(cuts), day.horizon_s]
    pieces = [cut(day, low, high) for low, high in pairwise(edges)]
    assert [i for piece in pieces for i in _ids(piece)] == _ids(day)
    assert sum(piece.horizon_s for piece in pieces) == pytest.approx(day.horizon_s)
    assert sum(int(piece.total_tokens.sum()) for piece in pieces) == int(day.total_tokens.sum())


def test_a_cut_moves_time_zero_deadlines_and_calendar(day):
    piece = cut(day, 30_000.0, 50_000.0)
    first = next(r for r in day.requests() if r.arrival_s >= 30_000.0)
    assert next(piece.requests()).arrival_s == pytest.approx(first.arrival_s - 30_000.0)
    slack_s = piece.numbers("deadline_s") - piece.numbers("arrival_s")
    assert slack_s[~piece.interactive] == pytest.approx(86400.0, abs=1e-5)
    assert piece.metadata.calendar.start_hour_of_week == pytest.approx(30_000 / 3600)
    assert [step.name for step in piece.metadata.steps] == ["synthesise", "cut"]
    assert piece.metadata.steps[-1].parameters == {"from_s": 30_000.0, "to_s": 50_000.0}


def test_a_transform_leaves_the_trace_it_is_given_alone(day):
    before = day.digest()
    stretch_time(day, 0.5)
    clip_lengths(day, {"llama-3.1-8b": 100})
    cut(day, 10.0, 20.0)
    assert day.digest() == before


def test_split_history_gives_all_requests_to_one_side_or_the_other(day):
    history, run = split_history(day, 40_000.0)
    assert _ids(history) + _ids(run) == _ids(day)
    assert (history.horizon_s, run.horizon_s) == (40_000.0, 46_400.0)


@pytest.mark.parametrize(("from_s", "to_s"), [(-1.0, 5.0), (5.0, 5.0), (0.0, 86_401.0)])
def test_a_cut_beyond_the_trace_is_refused(day, from_s, to_s):
    with pytest.raises(ValueError, match=r"must be a window within 0\.\.86400"):
        cut(day, from_s, to_s)


def test_stretching_and_stretching_back_is_the_same_trace(day):
    there = stretch_time(day, 4.0)
    back = stretch_time(there, 0.25)
    assert back.digest() == day.digest()
    assert there.horizon_s == 4 * day.horizon_s
    assert there.metadata.calendar.day_s == 4 * 86400
    assert (there.numbers("deadline_s") - there.numbers("arrival_s"))[~there.interactive] == pytest.approx(4 * 86400)


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(0.001, 100.0))
def test_stretched_time_still_holds_every_request_in_order(day, factor):
    assert _ids(stretch_time(day, factor)) == _ids(day)


def test_clipped_requests_fit_and_models_without_a_limit_stay(day):
    clipped = clip_lengths(day, {"llama-3.1-8b": 1000})
    rows = day.labels("model").rows("llama-3.1-8b")
    assert clipped.total_tokens[rows].max() == 1000
    assert (clipped.total_tokens[~rows] == day.total_tokens[~rows]).all()
    parameters = clipped.metadata.steps[-1].parameters
    assert parameters["cut_share"]["llama-3.1-8b"] == pytest.approx((day.total_tokens[rows] > 1000).mean(), abs=1e-6)


def test_thinning_by_tenants_keeps_real_requests_of_whole_tenants(day):
    thinned = thin(day, 0.3, 1, how="sample_tenants")
    assert len(thinned) == pytest.approx(0.3 * len(day), rel=0.1)
    keys = ["model", "region", "tier", "tenant"]
    sizes = day.table.to_pandas().groupby(keys, observed=True).size()
    kept = thinned.table.to_pandas().groupby(keys, observed=True).size()
    assert (kept == sizes[kept.index]).all()
    assert set(_ids(thinned)) < set(_ids(day))
    assert thinned.metadata.steps[-1].parameters["kept_share"] == len(thinned) / len(day)


def test_thinning_by_tenants_needs_tenants():
    trace = Trace.from_columns(
        request_id=[0],
        arrival_s=[0.0],
        model=["m"],
        region=["r"],
        tier=["IW-F"],
        prompt_tokens=[1],
        output_tokens=[1],
        deadline_s=[np.nan],
        metadata=TraceMetadata(horizon_s=1.0),
    )
    with pytest.raises(ValueError, match="use how='redraw'"):
        thin(trace, 0.5, 1, how="sample_tenants")


@pytest.mark.parametrize("factor", [0.02, 0.2, 3.0])
def test_a_redrawn_trace_has_the_rate_asked_for_and_is_as_bursty_as_before(bursty, factor):
    redrawn = scale_rate(bursty, factor, 3)
    assert len(redrawn) == pytest.approx(factor * len(bursty), rel=0.15)
    before = index_of_dispersion(bursty.numbers("arrival_s"), bursty.horizon_s)
    after = index_of_dispersion(redrawn.numbers("arrival_s"), redrawn.horizon_s)
    assert before > 2
    assert after == pytest.approx(before, rel=0.2)


def test_a_redrawn_trace_keeps_shape_mix_and_lengths(bursty):
    redrawn = thin(bursty, 0.5, 4)
    halves = [np.histogram(trace.numbers("arrival_s"), 6, (0, bursty.horizon_s))[0] for trace in (bursty, redrawn)]
    assert halves[1] / halves[1].sum() == pytest.approx(halves[0] / halves[0].sum(), abs=0.02)
    for column in ("tier", "region"):
        shares = [np.bincount(trace.labels(column).codes) / len(trace) for trace in (bursty, redrawn)]
        assert shares[1] == pytest.approx(shares[0], abs=0.02)
    for column in ("prompt_tokens", "output_tokens"):
        medians = [np.median(trace.numbers(column)) for trace in (bursty, redrawn)]
        assert medians[1] == pytest.approx(medians[0], rel=0.05)
    slack_s = (redrawn.numbers("deadline_s") - redrawn.numbers("arrival_s"))[~redrawn.interactive]
    assert slack_s == pytest.approx(86400.0, abs=1e-4)


def test_redrawing_depends_on_the_seed_alone(day):
    assert scale_rate(day, 0.5, 1).digest() == scale_rate(day, 0.5, 1).digest()
    assert scale_rate(day, 0.5, 1).digest() != scale_rate(day, 0.5, 2).digest()


def test_nothing_can_be_made_of_an_empty_trace_but_an_empty_trace(day):
    empty = cut(day, 0.0, 1e-3)
    assert len(empty) == 0
    for transformed in (scale_rate(empty, 3.0, 1), thin(empty, 0.5, 1, how="sample_tenants"), stretch_time(empty, 2.0)):
        assert len(transformed) == 0


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5])
def test_a_thinning_factor_must_lie_between_zero_and_one(day, factor):
    with pytest.raises(ValueError, match="must be above 0 and at most 1"):
        thin(day, factor, 1)


def test_a_transformed_trace_can_be_read_back(day, tmp_path):
    made = scale_rate(clip_lengths(cut(day, 0.0, 20_000.0), {"bloom-176b": 1024}), 0.5, 9)
    made.write(tmp_path / "made.parquet")
    again = Trace.read(tmp_path / "made.parquet")
    assert again.digest() == made.digest()
    assert [step.name for step in again.metadata.steps] == ["synthesise", "cut", "clip_lengths", "scale_rate"]

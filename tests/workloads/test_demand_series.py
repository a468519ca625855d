"""Demand series: every token once, in the bin of its arrival."""

import numpy as np
import pytest

from workloads.demand import demand_series
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata
from workloads.transforms import cut, split_history


def _trace() -> Trace:
    return Trace.from_columns(
        request_id=[0, 1, 2, 3],
        arrival_s=[0.0, 9.0, 10.0, 29.0],
        model=["a", "a", "b", "a"],
        region=["east", "east", "west", "east"],
        tier=["IW-F", "IW-N", "IW-F", "NIW"],
        prompt_tokens=[60, 20, 30, 70],
        output_tokens=[40, 10, 20, 30],
        deadline_s=[np.nan, np.nan, np.nan, 100.0],
        metadata=TraceMetadata(horizon_s=30.0),
    )


def test_tokens_count_in_the_bin_of_arrival_by_pool_and_class():
    series = demand_series(_trace(), 10.0, 0.0, 30.0)
    assert series.interactive["a", "east"].tolist() == [13.0, 0.0, 0.0]
    assert series.interactive["b", "west"].tolist() == [0.0, 5.0, 0.0]
    assert series.interactive["a", "west"].tolist() == [0.0, 0.0, 0.0]
    assert series.niw["a", "east"].tolist() == [0.0, 0.0, 10.0]
    assert series.interactive_output["a", "east"].tolist() == [5.0, 0.0, 0.0]
    assert series.interactive_output["b", "west"].tolist() == [0.0, 2.0, 0.0]


def test_a_window_leaves_out_what_lies_before_and_after_it():
    series = demand_series(_trace(), 5.0, 5.0, 15.0)
    assert series.interactive["a", "east"].tolist() == [6.0, 0.0]
    assert series.interactive["b", "west"].tolist() == [0.0, 10.0]


def test_pools_that_the_trace_lacks_have_no_demand():
    series = demand_series(_trace(), 10.0, 0.0, 30.0, pools=[("c", "north"), ("a", "east")])
    assert list(series.interactive) == list(series.niw) == [("c", "north"), ("a", "east")]
    assert series.niw["c", "north"].tolist() == [0.0, 0.0, 0.0]


def test_an_arrival_at_the_very_horizon_counts_in_the_last_bin_and_in_the_last_piece():
    trace = cut(_trace(), 0.0, 29.5)
    at_the_end = Trace(table=trace.table, metadata=TraceMetadata(horizon_s=29.0))
    assert demand_series(at_the_end, 14.5, 0.0, 29.0).niw["a", "east"].tolist() == [0.0, 100 / 14.5]
    assert [len(piece) for piece in split_history(at_the_end, 10.0)] == [2, 2]


def test_no_token_is_lost():
    trace = synthesise(SyntheticWorkload(mean_requests_per_s=0.2, horizon_h=12, tenants=2), 31)
    series = demand_series(trace, 60.0, 0.0, trace.horizon_s)
    total = sum(values.sum() for values in (*series.interactive.values(), *series.niw.values()))
    assert total * 60.0 == pytest.approx(trace.total_tokens.sum())


@pytest.mark.parametrize(
    ("bin_s", "from_s", "to_s", "message"),
    [
        (7.0, 0.0, 30.0, "no whole number of bins"),
        (0.0, 0.0, 30.0, "must be above 0"),
        (10.0, 0.0, 40.0, "reaches beyond the trace"),
        (10.0, -10.0, 30.0, "reaches beyond the trace"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(bin_s, from_s, to_s, message):
    with pytest.raises(ValueError, match=message):
        demand_series(_trace(), bin_s, from_s, to_s)

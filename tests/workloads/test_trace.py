"""Traces: what goes in comes out, in order, and survives a file."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.request import Request, Tier
from workloads.trace import Labels, Trace
from workloads.trace_metadata import Calendar, TraceMetadata, TraceStep

REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 1e6, allow_nan=False),
        st.sampled_from(["m1", "m2", "m3"]),
        st.sampled_from(["east", "west"]),
        st.sampled_from(list(Tier)),
        st.integers(1, 2**31 - 1),
        st.integers(1, 5000),
    ),
    max_size=30,
)


def _request(request_id, arrival_s, model, region, tier, prompt_tokens, output_tokens):
    return Request(
        request_id=request_id,
        arrival_s=arrival_s,
        model=model,
        region=region,
        tier=tier,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        deadline_s=arrival_s + 100 if tier is Tier.NIW else None,
    )


def _trace(requests: list[Request], **metadata: object) -> Trace:
    return Trace.from_columns(
        request_id=[r.request_id for r in requests],
        arrival_s=[r.arrival_s for r in requests],
        model=[r.model for r in requests],
        region=[r.region for r in requests],
        tier=[r.tier for r in requests],
        prompt_tokens=[r.prompt_tokens for r in requests],
        output_tokens=[r.output_tokens for r in requests],
        deadline_s=[float("nan") if r.deadline_s is None else r.deadline_s for r in requests],
        metadata=TraceMetadata(horizon_s=1e6, **metadata),
    )


@settings(deadline=None)
@given(REQUESTS)
def test_the_requests_that_go_into_a_trace_come_out_of_it_in_order(rows):
    requests = [_request(i, *row) for i, row in enumerate(sorted(rows, key=lambda row: row[0]))]
    trace = _trace(requests)
    assert list(trace.requests()) == requests
    assert len(trace) == len(requests)


@settings(max_examples=20, deadline=None)
@given(rows=REQUESTS)
def test_a_trace_that_is_written_and_read_again_is_the_same(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "trace.parquet"
    requests = [_request(i, *row) for i, row in enumerate(sorted(rows, key=lambda row: row[0]))]
    trace = _trace(
        requests,
        seed=5,
        calendar=Calendar(start_hour_of_week=30.0),
        steps=(TraceStep(name="recorded", parameters={"from": "a log"}),),
    )
    trace.write(path)
    again = Trace.read(path)
    assert again.digest() == trace.digest()
    assert again.metadata == trace.metadata
    assert list(again.requests()) == requests


def test_a_file_is_compressed_and_says_how_the_trace_came_to_be(tmp_path):
    path = tmp_path / "trace.parquet"
    _trace([_request(0, 1.0, "m", "east", Tier.IW_F, 5, 6)], steps=(TraceStep(name="recorded"),)).write(path)
    file = pq.ParquetFile(path)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert b'"recorded"' in file.schema_arrow.metadata[b"sageserve_testbed"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace.parquet"]


def test_requests_of_more_than_one_block_all_come_out():
    size = 150_000
    trace = Trace.from_columns(
        request_id=np.arange(size),
        arrival_s=np.arange(size) / 10,
        model=Labels(np.zeros(size, dtype=np.int16), ("m",)),
        region=Labels(np.zeros(size, dtype=np.int16), ("east",)),
        tier=Labels(np.zeros(size, dtype=np.int16), ("IW-F",)),
        prompt_tokens=np.full(size, 3),
        output_tokens=np.full(size, 4),
        deadline_s=np.full(size, np.nan),
        metadata=TraceMetadata(horizon_s=15_000),
    )
    assert [r.request_id for r in trace.requests()] == list(range(size))


def test_the_digest_does_not_depend_on_the_order_of_categories_or_on_ones_that_do_not_occur():
    codes = np.array([0, 1], dtype=np.int16)
    digests = set()
    for model in (
        Labels(codes, ("a", "b")),
        Labels(codes[::-1], ("b", "a")),
        Labels(codes, ("a", "b", "c")),
        ["a", "b"],
    ):
        trace = Trace.from_columns(
            request_id=[0, 1],
            arrival_s=[0.0, 1.0],
            model=model,
            region=["r", "r"],
            tier=["IW-F", "NIW"],
            prompt_tokens=[1, 1],
            output_tokens=[1, 1],
            deadline_s=[np.nan, 7.0],
            metadata=TraceMetadata(horizon_s=2.0),
        )
        assert trace.labels("model").names == ("a", "b")
        digests.add(trace.digest())
    assert len(digests) == 1


@pytest.mark.parametrize(
    "change", [{"arrival_s": 2.0}, {"model": "n"}, {"tier": Tier.IW_N}, {"prompt_tokens": 6}, {"output_tokens": 7}]
)
def test_the_digest_changes_with_every_column(change):
    values = {"arrival_s": 1.0, "model": "m", "region": "r", "tier": Tier.IW_F, "prompt_tokens": 5, "output_tokens": 6}
    before = _trace([Request(request_id=0, **values)])
    after = _trace([Request(request_id=0, **{**values, **change})])
    assert before.digest() != after.digest()


def test_the_digest_changes_with_the_horizon_but_not_with_the_steps():
    request = _request(0, 1.0, "m", "r", Tier.IW_F, 5, 6)
    plain = _trace([request])
    told = _trace([request], steps=(TraceStep(name="recorded"),))
    longer = Trace(table=plain.table, metadata=TraceMetadata(horizon_s=2e6))
    assert plain.digest() == told.digest() != longer.digest()


def test_columns_cannot_be_written_to():
    trace = _trace([_request(0, 1.0, "m", "r", Tier.IW_F, 5, 6)])
    with pytest.raises(ValueError, match="read-only"):
        trace.numbers("prompt_tokens")[0] = 9

"""Traces in the formats of others: what a format holds comes back, and streaming is reading and writing."""

import json
from datetime import datetime, timedelta

import numpy as np
import pytest

from workloads.formats.conversion import NotStreamable, stream_file, write_trace
from workloads.formats.known import FORMATS
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.optional_columns import OPTIONAL_COLUMNS
from workloads.request import Tier
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.trace import Trace
from workloads.trace_checks import COLUMNS, TraceError
from workloads.trace_metadata import TraceMetadata
from workloads.transforms import cut

SAID = {"model": "m", "region": "west", "tier": Tier.IW_F}


@pytest.fixture(scope="module")
def day() -> Trace:
    return synthesise(SyntheticWorkload(mean_requests_per_s=0.05, horizon_h=24, tenants=3), 8)


def _full(**changes) -> Trace:
    """Three requests that use every column there is."""
    columns = {
        "request_id": [5, 7, 9],
        "arrival_s": [0.5, 1.25, 3.0],
        "model": ["a", "b", "a"],
        "region": ["west", "east", "central"],
        "tier": ["IW-F", "NIW", "IW-N"],
        "prompt_tokens": [40, 33, 16],
        "output_tokens": [1, 2, 3],
        "deadline_s": [np.nan, 90.0, np.nan],
        "tenant": [3, -1, 0],
    }
    optional = {
        "session": [0, -1, 0],
        "turn": [1, 0, 2],
        "think_s": [np.nan, np.nan, 1.5],
        "prefix_hashes": [[1, 2, 3], [], [-(2**62)]],
        "cancel_after_s": [np.nan, 8.0, np.nan],
    }
    metadata = TraceMetadata(horizon_s=10.0, prefix_block_tokens=16)
    return Trace.from_columns(**{**columns, **changes}, optional=optional, metadata=metadata)


@pytest.mark.parametrize("name", ["parquet", "csv"])
def test_our_own_formats_hold_everything(name, tmp_path):
    trace = _full()
    write_trace(trace, tmp_path / "file", FORMATS[name])
    again, report = read_trace(tmp_path / "file")
    assert again.digest() == trace.digest()
    assert again.metadata == trace.metadata
    assert again.optional == OPTIONAL_COLUMNS
    assert report.format == name


def test_a_synthetic_day_survives_the_simulators_csv_in_what_it_holds(day, tmp_path):
    notes = write_trace(day, tmp_path / "sage.csv", FORMATS["sageserve"])
    again, report = read_trace(tmp_path / "sage.csv")
    for name in COLUMNS:
        if name in ("model", "region", "tier"):
            assert again.table[name].to_pylist() == day.table[name].to_pylist(), name
        else:
            assert np.array_equal(again.numbers(name), day.numbers(name), equal_nan=True), name
    assert report.skipped == ()
    assert len(notes) == 1


def test_the_simulators_csv_is_exactly_its_15_columns_with_regions_as_text(tmp_path):
    notes = write_trace(_full(), tmp_path / "sage.csv", FORMATS["sageserve"])
    assert (tmp_path / "sage.csv").read_text().splitlines() == [
        "request_id,batch_id,client_tenant,request_type,scenario,sla,utility,regions,model_type,workload_type,"
        "application_id,arrival_timestamp,batch_size,prompt_size,token_size",
        "5,-1,3,2,testbed,10,3,012,a,prod,-1,0.5,1,40,1",
        "7,-1,-1,2,testbed,89,1,210,b,dev,-1,1.25,1,33,2",
        "9,-1,0,2,testbed,3600,2,102,a,prod,-1,3,1,16,3",
    ]
    assert any("1 deadlines are not whole seconds" in note for note in notes)


def test_a_region_that_the_simulator_does_not_have_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"region 'oslo'; the simulator has west, central, east: say which"):
        write_trace(_full(region=["west", "oslo", "east"]), tmp_path / "sage.csv", FORMATS["sageserve"])
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_comma_cannot_stand_in_a_csv(tmp_path):
    with pytest.raises(TraceError, match="rename what holds a comma"):
        write_trace(_full(model=["a,b", "b", "a"]), tmp_path / "t.csv", FORMATS["csv"])


def test_vidur_gets_its_three_columns(tmp_path):
    write_trace(_full(), tmp_path / "v.csv", FORMATS["vidur"])
    assert (tmp_path / "v.csv").read_text() == (
        "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,40,1\n1.25,33,2\n3,16,3\n"
    )


def _with_prefixes(hashes: list[list[int]], prompt: list[int], block: int) -> Trace:
    size = len(prompt)
    return Trace.from_columns(
        request_id=range(size),
        arrival_s=np.arange(size) / 8,
        model=["m"] * size,
        region=["r"] * size,
        tier=["IW-F"] * size,
        prompt_tokens=prompt,
        output_tokens=[1] * size,
        deadline_s=[np.nan] * size,
        optional={"prefix_hashes": hashes},
        metadata=TraceMetadata(horizon_s=10.0, prefix_block_tokens=block),
    )


def _mooncake(trace: Trace, path) -> list[dict]:
    write_trace(trace, path, FORMATS["mooncake"])
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_mooncake_gets_blocks_of_512_that_are_shared_as_the_smaller_ones_were(tmp_path):
    shared = list(range(100, 132))
    rows = _mooncake(
        _with_prefixes([[*shared, 7], [*shared, 8], [*shared[:31], 9]], [520, 520, 512], 16), tmp_path / "m.jsonl"
    )
    first, second, third = (row["hash_ids"] for row in rows)
    assert first[0] == second[0] != third[0]
    assert first[1] != second[1]
    assert [len(row["hash_ids"]) for row in rows] == [2, 2, 1]
    assert [row["timestamp"] for row in rows] == [0, 125, 250]


def test_mooncakes_own_blocks_come_back(tmp_path):
    hashes = [[4, 5], [4, 6, 9], [4, 5, 7]]
    write_trace(_with_prefixes(hashes, [1000, 1100, 1400], 512), tmp_path / "m.jsonl", FORMATS["mooncake"])
    again, _ = read_trace(tmp_path / "m.jsonl", ReadOptions(**SAID))
    one, two, three = again.prefix_hashes().to_pylist()
    assert one == three[:2]
    assert one[0] == two[0]
    assert len({*one, *two, *three}) == len({4, 5, 6, 9, 7})


def test_without_known_prefixes_every_block_is_its_own(tmp_path, day):
    rows = _mooncake(cut(day, 0.0, 3600.0), tmp_path / "m.jsonl")
    numbers = [number for row in rows for number in row["hash_ids"]]
    assert len(rows) > 20
    assert len(set(numbers)) == len(numbers)
    assert all(len(row["hash_ids"]) * 512 >= row["input_length"] for row in rows)


def _azure(path, rows=2000):
    begin = datetime(2024, 5, 10)
    stamps = [(begin + timedelta(seconds=second)).isoformat(sep=" ") for second in range(rows)]
    lines = [f"{stamp}+00:00,{second % 90 + 1},7\n" for second, stamp in enumerate(stamps)]
    lines[37] = "2024-05-10 00:00:37+00:00,0,7\n"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(lines))
    return path


@pytest.mark.parametrize("name", ["parquet", "csv"])
@pytest.mark.parametrize("window_s", [None, (100.0, 300.0), (500.5, 1999.0)])
def test_streaming_gives_what_reading_cutting_and_writing_give(name, window_s, tmp_path):
    source = _azure(tmp_path / "azure.csv")
    options = ReadOptions(**SAID, window_s=window_s)
    report, metadata, _ = stream_file(source, tmp_path / "streamed", FORMATS["azure"], FORMATS[name], options)
    trace, _ = read_trace(source, options)
    expected = trace if window_s is None else cut(trace, *window_s)
    streamed, _ = read_trace(tmp_path / "streamed")
    assert streamed.digest() == expected.digest()
    assert streamed.metadata == expected.metadata == metadata
    assert report.rows_kept == len(expected)
    assert report.skipped[0].rows == 1


def test_a_window_beyond_the_file_is_refused_and_leaves_nothing_behind(tmp_path):
    source = _azure(tmp_path / "azure.csv")
    with pytest.raises(TraceError, match=r"cut 0\.0\.\.5000\.0 s: must be a window within 0\.\.1999\.0 s"):
        options = ReadOptions(**SAID, window_s=(0.0, 5000.0))
        stream_file(source, tmp_path / "out", FORMATS["azure"], FORMATS["parquet"], options)
    assert [path.name for path in tmp_path.iterdir()] == ["azure.csv"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("csv", "arrival_s,prompt_tokens,output_tokens\n5,1,1\n4,1,1\n"),
        ("csv", "request_id,arrival_s,prompt_tokens,output_tokens\n5,1,1,1\n4,2,1,1\n"),
        ("bailian", '{"chat_id": 1}\n'),
    ],
)
def test_rows_that_must_be_seen_together_are_not_streamed(name, text, tmp_path):
    (tmp_path / "in").write_text(text)
    with pytest.raises(NotStreamable):
        stream_file(tmp_path / "in", tmp_path / "out", FORMATS[name], FORMATS["parquet"], ReadOptions(**SAID))
    assert not (tmp_path / "out").exists()


def test_a_trace_of_ours_that_passes_through_says_what_it_said_before(day, tmp_path):
    day.write(tmp_path / "a.parquet")
    stream_file(tmp_path / "a.parquet", tmp_path / "b.csv", FORMATS["parquet"], FORMATS["csv"], ReadOptions())
    stream_file(tmp_path / "b.csv", tmp_path / "c.parquet", FORMATS["csv"], FORMATS["parquet"], ReadOptions())
    again = Trace.read(tmp_path / "c.parquet")
    assert (again.digest(), again.metadata) == (day.digest(), day.metadata)

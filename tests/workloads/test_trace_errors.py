"""Files and tables that are no traces: each is refused in one line that names file, column and row."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.trace_file import METADATA_KEY
from workloads.trace_metadata import TraceMetadata

ROWS = 4


def _columns() -> dict[str, pa.Array]:
    return {
        "request_id": pa.array([10, 11, 12, 13], pa.int64()),
        "arrival_s": pa.array([0.0, 1.0, 1.0, 3.0]),
        "model": pa.array(["a", "b", "a", "a"]),
        "region": pa.array(["east"] * ROWS),
        "tier": pa.array(["IW-F", "IW-N", "NIW", "IW-F"]).dictionary_encode(),
        "prompt_tokens": pa.array([5, 6, 7, 8], pa.int32()),
        "output_tokens": pa.array([1, 2, 3, 4], pa.int32()),
        "deadline_s": pa.array([np.nan, np.nan, 50.0, np.nan], from_pandas=False),
    }


def _write(path, columns, metadata: bytes | None = TraceMetadata(horizon_s=10.0).model_dump_json().encode()):
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: metadata} if metadata else None), path)


def _floats(*values):
    return pa.array(np.array(values, dtype=np.float64), from_pandas=False)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("arrival_s", _floats(0, -1, 2, 3), "column arrival_s, row 1: -1.0; must be finite, 0 or more"),
        ("arrival_s", _floats(0, 1, np.nan, 3), "column arrival_s, row 2: nan; must be finite, 0 or more"),
        ("arrival_s", _floats(0, 1, 2, np.inf), "column arrival_s, row 3: inf; must be finite, 0 or more"),
        ("arrival_s", _floats(0, 2, 1, 3), "column arrival_s, row 2: 1.0; lies before the row above"),
        ("arrival_s", _floats(0, 1, 2, 11), "column arrival_s, row 3: 11.0; lies after the horizon of 10.0 s"),
        ("arrival_s", pa.array([0, 1, 2, 3], pa.int64()), "column arrival_s is int64; wanted double"),
        (
            "request_id",
            pa.array([10, 11, 10, 13], pa.int64()),
            "column request_id, row 2: 10; stands in an earlier row",
        ),
        ("request_id", pa.array([10, None, 12, 13], pa.int64()), "column request_id, row 1: no value"),
        ("prompt_tokens", pa.array([5, 6, 7, 0], pa.int32()), "column prompt_tokens, row 3: 0; must be at least 1"),
        ("output_tokens", pa.array([5, -6, 7, 1], pa.int32()), "column output_tokens, row 1: -6; must be at least 1"),
        ("prompt_tokens", pa.array([5, 6, 7, 8], pa.int64()), "column prompt_tokens is int64; wanted int32"),
        ("deadline_s", _floats(np.nan, 0.5, 9, 9), "column deadline_s, row 1: 0.5; lies before arrival_s"),
        ("deadline_s", _floats(np.nan, np.inf, 9, 9), "column deadline_s, row 1: inf; must be finite"),
        ("tier", pa.array(["IW-F", "IW-N", "iw", "NIW"]), "column tier, row 2: 'iw'; wanted one of IW-F, IW-N, NIW"),
        ("model", pa.array(["a", "b", None, "a"]), "column model, row 2: no value"),
        ("model", pa.array(["a", "", "b", "a"]), "column model, row 1: ''; must not be empty"),
        ("region", pa.array([0, 1, 2, 0], pa.int64()), "column region is int64; wanted string"),
        ("tenant", pa.array([0, 1, -2, 0], pa.int32()), "column tenant, row 2: -2; must be 0 or more, or -1"),
    ],
)
def test_a_bad_value_is_named_with_file_column_and_row(tmp_path, column, values, message):
    path = tmp_path / "bad.parquet"
    _write(path, {**_columns(), column: values})
    with pytest.raises(TraceError) as error:
        Trace.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_column_is_named(tmp_path):
    columns = _columns()
    del columns["tier"], columns["arrival_s"]
    _write(tmp_path / "t.parquet", columns)
    with pytest.raises(TraceError, match="missing column arrival_s, tier"):
        Trace.read(tmp_path / "t.parquet")


def test_an_extra_column_is_named(tmp_path):
    _write(tmp_path / "t.parquet", {**_columns(), "priority": pa.array([1] * ROWS)})
    with pytest.raises(TraceError, match="extra column priority"):
        Trace.read(tmp_path / "t.parquet")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"gone\.parquet: no such file"):
        Trace.read(tmp_path / "gone.parquet")


def test_a_file_that_is_not_parquet_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(TraceError, match="not a readable Parquet file"):
        Trace.read(tmp_path / "t.parquet")


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path):
    pd.DataFrame({"arrival_s": [1.0]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(TraceError, match="no 'sageserve_testbed' metadata"):
        Trace.read(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (b'{"horizon_s": -1}', "metadata horizon_s"),
        (b'{"horizon_s": 10, "schema_version": 2}', "metadata schema_version"),
        (b'{"horizon_s": 10, "colour": "blue"}', "metadata colour"),
        (b"{", "metadata"),
    ],
)
def test_metadata_that_cannot_be_understood_are_refused_in_one_line(tmp_path, metadata, message):
    _write(tmp_path / "t.parquet", _columns(), metadata)
    with pytest.raises(TraceError, match=message) as error:
        Trace.read(tmp_path / "t.parquet")
    assert "\n" not in str(error.value)


def test_a_file_without_tenants_and_with_null_deadlines_is_a_trace(tmp_path):
    columns = {**_columns(), "deadline_s": pa.array([None, None, 50.0, None], pa.float64())}
    _write(tmp_path / "t.parquet", columns)
    trace = Trace.read(tmp_path / "t.parquet")
    assert [request.deadline_s for request in trace.requests()] == [None, None, 50.0, None]
    assert trace.numbers("tenant").tolist() == [-1] * ROWS


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(TraceError, match="columns differ in length"):
        Trace.from_columns(
            request_id=[0, 1],
            arrival_s=[0.0],
            model=["m"],
            region=["r"],
            tier=["NIW"],
            prompt_tokens=[1],
            output_tokens=[1],
            deadline_s=[2.0],
            metadata=TraceMetadata(horizon_s=1.0),
        )

"""Traces that are damaged, in every format: what can be used is read and the rest counted, or one line says what is
wrong; never anything else."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from damage import (
    DAMAGED_BYTES,
    DAMAGED_TABLES,
    WRONG_VALUES,
    damage,
    damaged_table,
    in_time,
    renamed,
    rewrite,
    told_by,
    with_value,
    without,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workloads.formats.conversion import write_trace
from workloads.formats.known import FORMATS
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.trace_metadata import TraceMetadata

ROWS = 60
LENGTHS = ((0.0, 1), (1.0, 500))
SAID = ReadOptions(model="m", region="west", tier=Tier.IW_F)
DRAWN = ReadOptions(model="m", region="west", tier=Tier.IW_F, seed=1, prompt_tokens=LENGTHS, output_tokens=LENGTHS)


def _csv(header: str, row: Callable[[int], str]) -> str:
    return header + "\n" + "".join(row(i) + "\n" for i in range(ROWS))


def _lines(row: Callable[[int], dict[str, object]]) -> str:
    return "".join(json.dumps(row(i)) + "\n" for i in range(ROWS))


def _date(i: int) -> str:
    return f"2024-05-10 00:{i // 60:02}:{i % 60:02}.5+00:00"


TEXTS: Mapping[str, str] = {
    "azure": _csv("TIMESTAMP,ContextTokens,GeneratedTokens", lambda i: f"{_date(i)},{100 + i},10"),
    "azure-lmm": _csv(
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens", lambda i: f"{_date(i)},{i % 2},{100 + i},10"
    ),
    "azure-counts": _csv("Time,TIMESTAMP", lambda i: f"2024-05-12 00:{i // 6:02}:{i % 6}0,{i % 4}"),
    "burstgpt": _csv(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type,Session ID,Elapsed time",
        lambda i: f"{5 * i},m,{10 + i},5,{15 + i},API log,{i % 7 or ''},{1.5 if i % 7 else ''}",
    ),
    "sageserve": _csv(
        "request_id,batch_id,client_tenant,request_type,scenario,sla,utility,regions,model_type,workload_type,"
        "application_id,arrival_timestamp,batch_size,prompt_size,token_size",
        lambda i: f"{i},-1,{i % 5},2,ES,10,3,012,A,{'dev' if i % 3 else 'prod'},-1,{i}.25,1,{100 + i},10",
    ),
    "csv": _csv(
        "request_id,arrival_s,model,region,tier,prompt_tokens,output_tokens,deadline_s,session,turn",
        lambda i: f"{i},{i}.5,m,west,IW-F,{100 + i},10,,{i % 3},{1 + i // 3}",
    ),
    "mooncake": _lines(
        lambda i: {"timestamp": 3000 * i, "input_length": 600 + i, "output_length": 5, "hash_ids": [1, 2]}
    ),
    "bailian": _lines(
        lambda i: {
            "chat_id": i, "parent_chat_id": i - 1 if i % 3 else -1, "timestamp": i + 0.5, "input_length": 30 + i,
            "output_length": 5, "type": "text", "turn": 1 + i % 3, "hash_ids": [1, 2],
        }
    ),
}  # fmt: skip
HAVE_LABELS = {"sageserve": ("model", "region", "tier"), "csv": ("model", "region", "tier"), "burstgpt": ("model",)}


def options(format_name: str) -> ReadOptions:
    given = DRAWN if format_name in ("azure-counts", "servegen") else SAID
    kept = dict.fromkeys(HAVE_LABELS.get(format_name, ()))
    return ReadOptions(
        **{"model": "m", "region": "west", "tier": Tier.IW_F} | kept,
        seed=given.seed, prompt_tokens=given.prompt_tokens, output_tokens=given.output_tokens,
    )  # fmt: skip


def read(path: Path, format_name: str) -> None:
    """Read a trace and hold what was told against what came: every row is kept, or skipped and counted."""
    trace, report = read_trace(path, options(format_name), format_name=format_name)
    if format_name not in ("azure-counts", "servegen"):
        assert report.rows_read == report.rows_kept + sum(skip.rows for skip in report.skipped)
    assert report.rows_kept == len(trace) > 0
    for line in report.lines():
        line.encode()
        assert "\n" not in line


def rows_in(content: bytes) -> int:
    return sum(1 for line in content.split(b"\n")[1:] if line.strip(b"\r \t"))


@pytest.fixture
def trace() -> Trace:
    rng = np.random.default_rng(1)
    arrival_s = np.sort(np.round(rng.uniform(0, 600, ROWS), 6))
    return Trace.from_columns(
        request_id=np.arange(ROWS), arrival_s=arrival_s, model=["m", "n"] * (ROWS // 2), region=["west"] * ROWS,
        tier=["IW-F", "IW-N", "NIW"] * (ROWS // 3), prompt_tokens=np.arange(1, ROWS + 1),
        output_tokens=np.full(ROWS, 5), deadline_s=np.full(ROWS, np.nan),
        optional={"session": np.full(ROWS, -1), "turn": np.zeros(ROWS, dtype=np.int32)},
        metadata=TraceMetadata(horizon_s=600.0),
    )  # fmt: skip


def _written(folder: Path, format_name: str) -> Path:
    path = folder / "trace"
    path.write_text(TEXTS[format_name], encoding="utf-8")
    return path


@pytest.mark.parametrize("format_name", TEXTS)
def test_an_undamaged_file_is_read_whole(format_name: str, tmp_path: Path) -> None:
    path = _written(tmp_path, format_name)
    assert told_by(lambda: read(path, format_name), TraceError) == ""


@pytest.mark.parametrize("how", DAMAGED_BYTES)
@pytest.mark.parametrize("format_name", TEXTS)
def test_damaged_text_is_read_with_every_row_counted_or_refused_by_name(
    format_name: str, how: str, tmp_path: Path
) -> None:
    for seed in range(4):
        path = damage(_written(tmp_path, format_name), how, seed)
        told_by(lambda path=path: read(path, format_name), TraceError, str(path))


@pytest.mark.parametrize("format_name", ["azure", "csv", "sageserve", "burstgpt"])
@pytest.mark.parametrize("seed", range(4))
def test_no_row_of_a_damaged_csv_is_passed_over_in_silence(format_name: str, seed: int, tmp_path: Path) -> None:
    whole = TEXTS[format_name].encode()
    header = whole.index(b"\n") + 1
    body = tmp_path / "body"
    body.write_bytes(whole[header:])
    path = tmp_path / "trace"
    path.write_bytes(whole[:header] + damage(body, "overwritten", seed).read_bytes())
    _, report = read_trace(path, options(format_name), format_name=format_name)
    assert report.rows_read == rows_in(path.read_bytes())


def _field(value: object) -> str:
    return "" if value is None else str(value).replace("\n", " ").replace("\ud800", "?")


@pytest.mark.parametrize("value", WRONG_VALUES)
@pytest.mark.parametrize("format_name", TEXTS)
def test_a_wrong_value_in_any_field_is_read_or_skipped_and_counted(
    format_name: str, value: str, tmp_path: Path
) -> None:
    wrong = WRONG_VALUES[value]
    lines = TEXTS[format_name].splitlines()
    if lines[0].startswith("{"):
        record = json.loads(lines[7])
        changed = [json.dumps(with_value(record, (name,), wrong)) for name in record]
    else:
        fields = lines[7].split(",")
        changed = [",".join([*fields[:i], _field(wrong), *fields[i + 1 :]]) for i in range(len(fields))]
    path = tmp_path / "trace"
    for line in changed:
        path.write_text("\n".join([*lines[:7], line, *lines[8:]]) + "\n", encoding="utf-8", errors="surrogatepass")
        told_by(lambda: read(path, format_name), TraceError, str(path))


@pytest.mark.parametrize("format_name", [name for name, text in TEXTS.items() if not text.startswith("{")])
def test_a_column_missing_renamed_or_twice_is_named(format_name: str, tmp_path: Path) -> None:
    rows = [line.split(",") for line in TEXTS[format_name].splitlines()]
    path = tmp_path / "trace"
    for i, name in enumerate(rows[0]):
        for changed in (
            [row[:i] + row[i + 1 :] for row in rows],
            [[*rows[0][:i], f"{name}x", *rows[0][i + 1 :]], *rows[1:]],
            [[*row, row[i]] for row in rows],
        ):
            path.write_text("\n".join(map(",".join, changed)) + "\n", encoding="utf-8")
            told_by(lambda: read(path, format_name), TraceError, str(path))


@pytest.mark.parametrize("format_name", ["mooncake", "bailian"])
def test_records_without_a_key_are_counted_and_named(format_name: str, tmp_path: Path) -> None:
    lines = TEXTS[format_name].splitlines()
    path = tmp_path / "trace"
    record = json.loads(lines[7])
    for key in record:
        for changed in (without(record, (key,)), renamed(record, (key,))):
            path.write_text("\n".join([*lines[:7], json.dumps(changed), *lines[8:]]) + "\n", encoding="utf-8")
            told_by(lambda: read(path, format_name), TraceError, str(path))


@pytest.mark.parametrize("format_name", TEXTS)
def test_rows_in_any_order_and_told_twice_are_sorted_and_said(format_name: str, tmp_path: Path) -> None:
    lines = TEXTS[format_name].splitlines()
    head = [] if lines[0].startswith("{") else lines[:1]
    rows = lines[len(head) :]
    path = tmp_path / "trace"
    for changed in (rows[::-1], [*rows, *rows], [*rows[30:], *rows[:30]]):
        path.write_text("\n".join([*head, *changed]) + "\n", encoding="utf-8")
        told_by(lambda: read(path, format_name), TraceError, str(path))


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_a_damaged_parquet_trace_is_refused_by_name(how: str, trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for seed in range(40 if how in ("a bit flipped", "overwritten") else 4):
        trace.write(path)
        damage(path, how, seed)
        line = told_by(lambda: Trace.read(path), TraceError, str(path))
        assert line or Trace.read(path).digest() == trace.digest(), "changed, and nobody has noticed"
        told_by(lambda: read_trace(path), TraceError, str(path))


@pytest.mark.parametrize("how", DAMAGED_TABLES)
def test_a_parquet_trace_with_a_wrong_column_is_refused_by_file_and_column(
    how: str, trace: Trace, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    for column in trace.table.column_names:
        trace.write(path)
        table = damaged_table(pq.read_table(path), how, column)
        if table is not None:
            rewrite(path, table)
            told_by(lambda: Trace.read(path), TraceError, str(path))
            told_by(lambda: read_trace(path), TraceError, str(path))


METADATA = TraceMetadata(horizon_s=600.0).model_dump(mode="json")


@pytest.mark.parametrize("value", WRONG_VALUES)
@pytest.mark.parametrize("key", METADATA)
def test_what_a_csv_says_beside_it_is_read_or_refused_by_name(key: str, value: str, tmp_path: Path) -> None:
    path = _written(tmp_path, "csv")
    beside = tmp_path / "trace.json"
    beside.write_text(json.dumps(with_value(METADATA, (key,), WRONG_VALUES[value])), encoding="utf-8")
    told_by(lambda: read(path, "csv"), TraceError, str(path))


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_a_damaged_file_beside_a_csv_is_read_or_refused_by_name(how: str, trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for seed in range(3):
        write_trace(trace, path, FORMATS["csv"])
        damage(tmp_path / "t.csv.json", how, seed)
        told_by(lambda: read(path, "csv"), TraceError, "t.csv")


@pytest.fixture
def servegen(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for client in range(2):
        windows = "".join(f"{600 * i},{0.01 * (1 + client)},1.5,Gamma,0.8,2.0\n" for i in range(4))
        (folder / f"chunk-{client}-trace.csv").write_text(windows)
        shares = {"input_tokens": "{10: 0.5, 20: 0.5}", "output_tokens": "{3: 1.0}"}
        (folder / f"chunk-{client}-dataset.json").write_text(json.dumps({"0": shares, "21600": shares}))
    return folder


@pytest.mark.parametrize("name", ["chunk-1-trace.csv", "chunk-1-dataset.json"])
@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_damaged_client_windows_are_read_or_refused_by_name(how: str, name: str, servegen: Path) -> None:
    whole = (servegen / name).read_bytes()
    for seed in range(6):
        (servegen / name).write_bytes(whole)
        damage(servegen / name, how, seed)
        told_by(lambda: read(servegen, "servegen"), TraceError, str(servegen))


@pytest.mark.parametrize("value", WRONG_VALUES)
def test_wrong_lengths_of_a_client_are_read_or_refused_by_name(value: str, servegen: Path) -> None:
    path = servegen / "chunk-1-dataset.json"
    whole = json.loads(path.read_text())
    for place in [("0",), ("0", "input_tokens"), ("21600", "output_tokens")]:
        path.write_text(json.dumps(with_value(whole, place, WRONG_VALUES[value])))
        told_by(lambda: read(servegen, "servegen"), TraceError, str(servegen))
    for text in ("{10}", "{10: }", "{9" * 30, f"{{{10**30}: 1}}", "{5: 1e999}", "{5: nan}", "{-5: 1}"):
        path.write_text(json.dumps(with_value(whole, ("0", "input_tokens"), text)))
        told_by(lambda: read(servegen, "servegen"), TraceError, str(path))


def test_a_folder_a_missing_file_and_a_link_to_itself_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("folder", "loop", "none", "folder/none/x"):
        for format_name in (None, *TEXTS, "parquet", "servegen"):
            line = told_by(
                lambda name=name, format_name=format_name: read_trace(tmp_path / name, DRAWN, format_name=format_name),
                TraceError,
                str(tmp_path / name),
            )
            assert line
        assert told_by(lambda name=name: Trace.read(tmp_path / name), TraceError, str(tmp_path / name))


def test_a_count_a_date_and_a_rate_that_no_day_has_are_refused(tmp_path: Path, servegen: Path) -> None:
    path = tmp_path / "t"
    far = TEXTS["azure"].splitlines()
    path.write_text("\n".join([*far, "2124-05-10 00:00:00.5+00:00,5,5"]))
    assert f"line {len(far) + 1}" in told_by(lambda: read(path, "azure"), TraceError, str(path))
    bins = "".join(f"2024-05-12 {i // 360:02}:{i // 6 % 60:02}:{i % 6}0,1000000\n" for i in range(2000))
    path.write_text("Time,TIMESTAMP\n" + bins)
    assert "at most 1,000,000,000" in told_by(lambda: read(path, "azure-counts"), TraceError, str(path))
    (servegen / "chunk-1-trace.csv").unlink()
    (servegen / "chunk-0-trace.csv").write_text("0,90000,1,Gamma,1,1\n30000000,90000,1,Gamma,1,1\n")
    assert "at most 1,000,000,000" in told_by(lambda: read(servegen, "servegen"), TraceError, str(servegen))


CELLS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(["", " ", "1970-01-01", "2024-05-10 00:00:01", "m", "IW-F", "1e5", "0x10", '"', '"a', "1_000"]),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace").decode()),
)


@pytest.mark.parametrize("format_name", [name for name, text in TEXTS.items() if not text.startswith("{")])
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.lists(CELLS, max_size=16), max_size=6), keep=st.integers(0, 30))
def test_rows_of_anything_are_read_or_counted_or_refused(
    rows: list[list[str]], keep: int, format_name: str, tmp_path: Path
) -> None:
    path = tmp_path / "trace"
    lines = [*TEXTS[format_name].splitlines()[: keep + 1], *map(",".join, rows)]
    path.write_bytes("\n".join(lines).encode())
    told_by(lambda: read(path, format_name), TraceError, str(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("format_name", ["mooncake", "bailian"])
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(JSON, min_size=8, max_size=8), other=JSON)
def test_records_of_anything_are_read_or_counted_or_refused(
    values: list[object], other: object, format_name: str, tmp_path: Path
) -> None:
    lines = TEXTS[format_name].splitlines()
    record = dict(zip(json.loads(lines[0]), values, strict=False))
    path = tmp_path / "trace"
    path.write_text("\n".join([*lines[:20], json.dumps(record), json.dumps(other)]), encoding="utf-8")
    told_by(lambda: read(path, format_name), TraceError, str(path))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a bit flipped", "overwritten", "a piece missing", "cut off"])
def test_no_damage_to_a_parquet_trace_passes_unnoticed_wherever_it_is(how: str, trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for seed in range(300):
        trace.write(path)
        damage(path, how, seed)
        line = told_by(lambda: Trace.read(path), TraceError, str(path))
        assert line or Trace.read(path).digest() == trace.digest(), f"seed {seed}"
    with in_time():
        trace.write(path)

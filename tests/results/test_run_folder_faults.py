"""Run folders elsewhere: damaged ones, later ones, other readers, and the page that describes them."""

import json
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.csv_tables import write_csv
from results.manifest import ManifestError
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import PolicyFolder, RunFolder
from results.run_folder_error import RunFolderError
from results.schema import SCHEMA_VERSION, TABLES

DOCUMENT = Path(__file__).parents[2] / "docs" / "run-folder.md"


@pytest.fixture
def run(tmp_path, completion, manifest, server_row) -> RunFolder:
    """Three completions in three parts, as a kill leaves them."""
    folder = tmp_path / "run"
    folder.mkdir()
    manifest(offered_requests=3).write(folder)
    recorder = RunRecorder(folder / "reactive", part_rows=1)
    for number in range(3):
        recorder.completion(completion(number, arrival_s=float(number)))
    server_row(recorder, 0.0, "s1", "READY")
    recorder.flush()
    return RunFolder.open(folder)


def parts(run: RunFolder) -> list[Path]:
    return sorted((run.path / "reactive" / "completions.parts").iterdir())


@pytest.mark.parametrize("kept", [0, 3, 100])
def test_a_part_that_is_cut_off_is_named_in_one_line(run, kept):
    part = parts(run)[1]
    part.write_bytes(part.read_bytes()[:kept])
    with pytest.raises(RunFolderError) as told:
        write_report(run)
    assert str(part) in str(told.value)
    assert "\n" not in str(told.value)


def test_without_its_damaged_part_the_rest_is_reported(run):
    parts(run)[1].unlink()
    assert write_report(run).policies["reactive"].requests.completed == 2


def test_a_table_without_a_column_is_named(run, tmp_path):
    part = parts(run)[0]
    pq.write_table(pq.read_table(part).drop_columns("outcome"), part)
    with pytest.raises(RunFolderError, match="no column outcome"):
        run.policy("reactive").completions()


def test_a_column_that_a_later_testbed_added_is_left(run):
    part = parts(run)[0]
    pq.write_table(pq.read_table(part).append_column("later", pa.array([1])), part)
    assert len(run.policy("reactive").completions()) == 3


def test_a_folder_of_a_later_schema_is_refused_in_one_line(run):
    manifest = run.path / "manifest.json"
    told = {**json.loads(manifest.read_text()), "schema_version": SCHEMA_VERSION + 1, "surprise": True}
    manifest.write_text(json.dumps(told))
    with pytest.raises(ManifestError, match=f"schema version {SCHEMA_VERSION + 1}.*later testbed"):
        RunFolder.open(run.path)


def test_a_policy_that_would_lie_outside_the_folder_is_refused_in_one_line(run):
    manifest = run.path / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "policies": {"../z": told["policies"]["reactive"]}}))
    with pytest.raises(RunFolderError, match="cannot name a folder"):
        RunFolder.open(run.path).policies()


def test_csv_holds_what_parquet_holds(run, tmp_path):
    files = write_csv(run, tmp_path / "csv")
    assert [path.stem for path in files] == [table.name for table in TABLES]
    given = run.policy("reactive").completions()
    names = [name for name in given.columns if given[name].dtype == "category"]
    read = pd.read_csv(tmp_path / "csv" / "reactive" / "completions.csv", dtype=dict.fromkeys(names, str))
    assert list(read.columns) == list(given.columns)
    pd.testing.assert_frame_equal(
        read.drop(columns=names), given.drop(columns=names), check_dtype=False, rtol=0, atol=0
    )
    for name in names:
        assert read[name].fillna("").tolist() == given[name].astype(str).tolist()


def documented() -> dict[str, dict[str, str]]:
    """Of docs/run-folder.md: type by column by table."""
    tables: dict[str, dict[str, str]] = {}
    name = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"`(\w+)`(?::.*)?", line):
            name = found[1]
        elif line.startswith("## "):
            name = ""
        elif name and (row := re.fullmatch(r"\| ([\w, ]+) \| ([\w, ]+) \| (.*) \|", line)) and row[1] != "column":
            assert row[3].strip(), f"{row[1]} is not explained"
            for column in row[1].split(", "):
                tables.setdefault(name, {})[column] = row[2]
    return tables


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_document_names_every_column_with_its_type(table):
    types = {}
    for field in table.schema:
        kind = "string" if pa.types.is_dictionary(field.type) else str(field.type).replace("double", "float64")
        types[field.name] = f"{kind}, null" if field.nullable else kind
    assert documented()[table.name] == types


def test_a_deadline_beyond_any_run_is_read_and_a_time_of_a_run_is_not(tmp_path, completion):
    folder = tmp_path / "reactive"
    with RunRecorder(folder) as recorder:
        recorder.completion(completion(0, deadline_s=3.6e9))
        recorder.fault(at_s=1.0, kind="hang", server_id="s", for_s=3.6e9)
    read = PolicyFolder(name="reactive", path=folder)
    assert read.completions()["deadline_s"].tolist() == [3.6e9]
    assert read.faults()["for_s"].tolist() == [3.6e9]
    with RunRecorder(tmp_path / "late") as recorder:
        recorder.completion(completion(0, arrival_s=3.6e9))
    with pytest.raises(RunFolderError, match=r"column arrival_s, row 0: 3600000000\.0; is no time of a run"):
        PolicyFolder(name="late", path=tmp_path / "late").completions()

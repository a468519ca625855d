"""Run folders that are damaged: they are reported, or one line says which file, column and row is wrong."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from damage import (
    DAMAGED_BYTES,
    DAMAGED_TABLES,
    WRONG_VALUES,
    damage,
    damaged_table,
    places,
    renamed,
    rewrite,
    told_by,
    with_first_key_twice,
    with_value,
    without,
)

from results.csv_tables import write_csv
from results.decisions import read_decisions
from results.digest import content_digest
from results.explanation import UnreadableDecisions, decisions_of, explain
from results.manifest import ManifestError, PolicyRecord, RunManifest
from results.report import write_report
from results.run_folder import RunFolder
from results.run_folder_error import RunFolderError
from results.schema import TABLES
from results.summarise import summarise

POLICY = "lt-i"


def _summarise(run: Path) -> None:
    summarise(RunFolder.open(run))


def _read_tables(run: Path) -> None:
    for table in TABLES:
        for _ in RunFolder.open(run).policy(POLICY).batches(table):
            pass


def _frames(run: Path) -> None:
    folder = RunFolder.open(run).policy(POLICY)
    for read in (folder.completions, folder.servers, folder.gauges, folder.pools, folder.gpus):
        read()


@pytest.mark.parametrize("how", DAMAGED_BYTES)
@pytest.mark.parametrize("name", ["completions", "servers", "pools"])
def test_a_damaged_table_is_refused_by_name_and_never_read_for_another(name: str, how: str, recorded_run: Path) -> None:
    path = recorded_run / POLICY / f"{name}.parquet"
    whole, digest = path.read_bytes(), content_digest(RunFolder.open(recorded_run).policy(POLICY))
    for seed in range(8):
        path.write_bytes(whole)
        damage(path, how, seed)
        line = told_by(lambda: _read_tables(recorded_run), RunFolderError, str(path))
        assert line or content_digest(RunFolder.open(recorded_run).policy(POLICY)) == digest, "nobody noticed"


@pytest.mark.parametrize("how", DAMAGED_TABLES)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_wrong_column_is_summarised_or_refused_by_file(table: Any, how: str, recorded_run: Path) -> None:
    path = recorded_run / POLICY / f"{table.name}.parquet"
    whole = pq.read_table(path)
    for column in table.columns:
        changed = damaged_table(whole, how, column)
        if changed is not None:
            rewrite(path, changed)
            told_by(lambda: _frames(recorded_run), RunFolderError, str(path.parent))


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGED_TABLES)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_is_read_of_a_wrong_column_can_be_summarised(table: Any, how: str, recorded_run: Path) -> None:
    path = recorded_run / POLICY / f"{table.name}.parquet"
    whole = pq.read_table(path)
    # Every column in one of the ways.
    for column in table.columns[list(DAMAGED_TABLES).index(how) :: len(DAMAGED_TABLES)]:
        changed = damaged_table(whole, how, column)
        if changed is not None:
            rewrite(path, changed)
            told_by(lambda: _summarise(recorded_run), RunFolderError, str(path.parent))


def _refused(recorded_run: Path, *named: str) -> str:
    line = told_by(lambda: _summarise(recorded_run), RunFolderError, *named)
    assert line
    return line


def test_a_wrong_value_is_told_with_file_column_and_row(recorded_run: Path) -> None:
    path = recorded_run / POLICY / "completions.parquet"
    whole = pq.read_table(path)
    row = str(len(whole) // 2)
    for how, column in (
        ("NaN", "arrival_s"), ("infinite", "last_token_s"), ("huger", "sent_s"), ("negative", "output_tokens"),
        ("unknown text", "outcome"), ("unknown text", "tier"),
    ):  # fmt: skip
        rewrite(path, DAMAGED_TABLES[how](whole, column))
        _refused(recorded_run, f"{path}", f"column {column}, row {row}")


def test_a_request_that_ended_twice_is_told(recorded_run: Path) -> None:
    path = recorded_run / POLICY / "completions.parquet"
    rewrite(path, DAMAGED_TABLES["rows twice"](pq.read_table(path), "tier"))
    assert "ended twice" in _refused(recorded_run, str(path.parent))


@pytest.mark.parametrize("name", ["completions.parquet", "servers.parquet", "decisions.jsonl"])
def test_what_a_finished_run_has_lost_is_told_and_not_read_as_nothing(name: str, recorded_run: Path) -> None:
    (recorded_run / POLICY / name).unlink()
    assert "is not there, and the run has finished" in _refused(recorded_run, str(recorded_run / POLICY / name))


def test_a_policy_that_a_finished_run_has_lost_is_told(recorded_run: Path) -> None:
    shutil.rmtree(recorded_run / POLICY)
    _refused(recorded_run, str(recorded_run / POLICY))


def test_parts_that_are_none_are_told(recorded_run: Path) -> None:
    table = recorded_run / POLICY / "completions.parquet"
    parts = table.with_suffix(".parts")
    parts.mkdir()
    for name in ("part-x.parquet", "part-²5.parquet", "part--1.parquet"):
        shutil.copy(table, parts / "part-00000.parquet")
        shutil.copy(table, parts / name)
        whole = table.read_bytes()
        table.unlink()
        _refused(recorded_run, name)
        (parts / name).unlink()
        table.write_bytes(whole)


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_damaged_decisions_are_read_as_far_as_they_go_and_what_is_not_is_counted(how: str, recorded_run: Path) -> None:
    path = recorded_run / POLICY / "decisions.jsonl"
    whole = path.read_bytes()
    for seed in range(3):
        path.write_bytes(whole)
        damage(path, how, seed)
        told_by(lambda: _decisions(recorded_run), RunFolderError, str(path))


def _decisions(run: Path) -> None:
    folder = RunFolder.open(run).policy(POLICY)
    lines = list(folder.decision_lines())
    log = read_decisions(lines)
    assert log.torn + log.unread + len(log.decisions) == len(lines)
    if not log.decisions:
        return
    with suppress(UnreadableDecisions):
        explain(POLICY, decisions_of(list(folder.decisions())), 0)


FIRST_PLACES = 40


@pytest.mark.slow
@pytest.mark.parametrize("value", WRONG_VALUES)
@pytest.mark.parametrize("line", [0, 7])
def test_a_wrong_value_anywhere_in_a_decision_is_reported_or_refused(line: int, value: str, recorded_run: Path) -> None:
    path = recorded_run / POLICY / "decisions.jsonl"
    records = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(records[line])
    # Every place with one of the values: with all of them it takes minutes.
    for place in list(places(record))[list(WRONG_VALUES).index(value) :: len(WRONG_VALUES)]:
        changed = json.dumps(with_value(record, place, WRONG_VALUES[value]))
        path.write_text("\n".join([*records[:line], changed, *records[line + 1 : line + 3]]) + "\n", encoding="utf-8")
        told_by(lambda: _summarise(recorded_run), RunFolderError, str(path))


@pytest.mark.parametrize("value", WRONG_VALUES)
def test_a_wrong_value_in_a_decision_is_summarised_or_refused(value: str, recorded_run: Path) -> None:
    path = recorded_run / POLICY / "decisions.jsonl"
    records = path.read_text(encoding="utf-8").splitlines()
    record = json.loads(records[0])
    for place in [("seen",), ("plan",), *places(record["seen"], ("seen",))][:FIRST_PLACES]:
        changed = json.dumps(with_value(record, place, WRONG_VALUES[value]))
        path.write_text("\n".join([changed, *records[1:3]]) + "\n", encoding="utf-8")
        told_by(lambda: _decisions(recorded_run), RunFolderError, str(path))


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_a_damaged_manifest_is_read_or_refused_by_name(how: str, recorded_run: Path) -> None:
    path = recorded_run / "manifest.json"
    whole = path.read_bytes()
    for seed in range(10):
        path.write_bytes(whole)
        damage(path, how, seed)
        told_by(lambda: RunFolder.open(recorded_run).policies(), RunFolderError, str(recorded_run))


@pytest.mark.parametrize("value", WRONG_VALUES)
def test_a_wrong_value_anywhere_in_a_manifest_is_read_or_refused_by_file_and_key(
    value: str, recorded_run: Path
) -> None:
    path = recorded_run / "manifest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    for place in places(whole):
        path.write_text(json.dumps(with_value(whole, place, WRONG_VALUES[value])), encoding="utf-8")
        told_by(lambda: RunManifest.read(recorded_run), ManifestError, str(path))


def test_a_manifest_with_a_key_missing_renamed_or_twice_is_read_or_refused_by_name(recorded_run: Path) -> None:
    path = recorded_run / "manifest.json"
    text = path.read_text(encoding="utf-8")
    whole = json.loads(text)
    for place in places(whole):
        for changed in (without(whole, place), renamed(whole, place)):
            path.write_text(json.dumps(changed), encoding="utf-8")
            told_by(lambda: RunFolder.open(recorded_run).policies(), RunFolderError, str(recorded_run))
    path.write_text(with_first_key_twice(text), encoding="utf-8")
    assert "stands twice" in _refused(recorded_run, str(path))


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".x", "", "a\0b", "x" * 300, "a\\b"])
def test_a_policy_whose_name_leads_elsewhere_is_refused(name: str, recorded_run: Path) -> None:
    path = recorded_run / "manifest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**whole, "policies": {name: whole["policies"][POLICY]}}), encoding="utf-8")
    assert "cannot name a folder" in _refused(recorded_run)


LINKS = [POLICY, f"{POLICY}/completions.parquet", f"{POLICY}/decisions.jsonl", "manifest.json"]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_of_the_folder_or_to_itself_is_refused(
    name: str, recorded_run: Path, tmp_path: Path
) -> None:
    inside, outside = recorded_run / name, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    assert "leads out of" in _refused(recorded_run, str(inside))
    inside.unlink()
    inside.symlink_to(inside)
    assert "leads out of" in _refused(recorded_run, str(inside))


@pytest.mark.parametrize("name", ["report.html", "summary.json"])
def test_what_is_written_into_a_run_folder_does_not_follow_links_out_of_it(
    name: str, recorded_run: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    for link in (recorded_run / name, recorded_run / f".{name}.tmp"):
        link.unlink(missing_ok=True)
        link.symlink_to(outside)
        write_report(RunFolder.open(recorded_run))
        assert outside.read_text() == "kept"
        assert (recorded_run / name).is_file() and not (recorded_run / name).is_symlink()


def _as_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("name", ["manifest.json", f"{POLICY}/completions.parquet", f"{POLICY}/decisions.jsonl"])
@pytest.mark.parametrize("read", [_summarise, lambda run: write_csv(RunFolder.open(run), run / "csv")])
def test_a_folder_where_a_file_should_be_is_refused_by_name(
    read: Callable[[Path], None], name: str, recorded_run: Path
) -> None:
    _as_folder(recorded_run / name)
    told_by(lambda: read(recorded_run), RunFolderError, str(recorded_run / name))


def test_a_file_where_a_policy_should_be_is_a_policy_that_has_not_begun_or_is_lost(recorded_run: Path) -> None:
    shutil.rmtree(recorded_run / POLICY)
    (recorded_run / POLICY).write_text("x")
    _refused(recorded_run, str(recorded_run / POLICY))
    manifest = RunManifest.read(recorded_run)
    manifest.with_policy(POLICY, PolicyRecord()).write(recorded_run)
    assert [folder.name for folder in RunFolder.open(recorded_run).policies()] == ["reactive"]

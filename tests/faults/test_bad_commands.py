"""Damaged files given to every command that takes one: exit code 1 or 2 and one line, or it was read after all."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from damage import DAMAGED_BYTES, damage, in_time

from profiler.profile import profile_path
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

Command = Callable[..., tuple[int, str, str]]
WITHIN_S = 60
LONGEST_LINE = 2100


def _told(testbed: Command, *arguments: str | Path) -> str:
    """Run a command and return what it complained of, "" where it did not."""
    with in_time(WITHIN_S):
        code, _, err = testbed(*arguments)
    assert code in (0, 1, 2), (code, err)
    assert "Traceback" not in err
    if code:
        complaint = [line for line in err.splitlines() if line.startswith("testbed: ")]
        assert len(complaint) == 1 and len(complaint[0]) <= LONGEST_LINE, err[:3000]
        return complaint[0]
    return ""


def _refused(testbed: Command, *arguments: str | Path, named: str = "") -> str:
    line = _told(testbed, *arguments)
    assert line and named in line, f"{named} is not named: {line}"
    return line


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = 120
    path = tmp_path / "t.parquet"
    Trace.from_columns(
        request_id=np.arange(rows), arrival_s=np.arange(rows) * 1.5, model=["a"] * rows, region=["west"] * rows,
        tier=["IW-F"] * rows, prompt_tokens=np.full(rows, 50), output_tokens=np.full(rows, 5),
        deadline_s=np.full(rows, np.nan), metadata=TraceMetadata(horizon_s=200.0),
    ).write(path)  # fmt: skip
    return path


OF_A_TRACE = [
    ["trace", "describe", "FILE"],
    ["trace", "describe", "FILE", "--html", "page.html"],
    ["trace", "convert", "FILE", "-o", "out.csv"],
    ["trace", "convert", "FILE", "-o", "out.parquet", "--from", "parquet", "--stretch", "2"],
    ["trace", "fit", "FILE", "-o", "fit.yaml"],
    ["trace", "replay", "FILE", "--base-url", "http://127.0.0.1:9", "--model", "m"],
    ["forecast", "evaluate", "FILE", "--step", "10", "--horizon", "10", "--peak-step", "10", "--warmup-days", "0"],
    ["bound", "FILE", "--theta", "1000", "--start-s", "5"],
]
OF_A_PROFILE = [
    ["profile", "show", "FILE"],
    ["profile", "compare", "FILE", "llama-3.1-8b-h100"],
    ["profile", "validate", "FILE", "--base-url", "http://127.0.0.1:9"],
    ["export", "FILE", "--to", "csv", "--out", "out"],
]
OF_A_TABLE = [
    ["import", "FILE", "--from", "splitwise", "--out", "out.json"],
    ["import", "FILE", "--from", "dynamo", "--model", "m", "--gpu", "g", "--out", "out.json"],
]
OF_YAML = [
    ["run", "FILE", "--out", "out"],
    ["sweep", "FILE", "--out", "out"],
    ["figures", "FILE", "--out", "out"],
    ["bound", "FILE"],
    ["calibrate", "FILE", "--mode", "virtual"],
    ["trace", "make", "--scenario", "FILE", "--seed", "1", "-o", "t2.parquet"],
    ["trace", "make", "--params", "FILE", "--seed", "1", "-o", "t2.parquet"],
]
OF_A_RUN = [
    ["report", "RUN"],
    ["report", "RUN", "--csv", "out"],
    ["compare", "RUN", "--out", "out"],
    ["explain", "RUN"],
    ["explain", "RUN", "--last", "3"],
    ["figures", "RUN", "--out", "out", "--format", "svg"],
    ["calibrate", "RUN", "--out", "out"],
    ["bound", "RUN"],
]
NAMES = pytest.mark.parametrize("command", [*OF_A_TRACE, *OF_A_PROFILE, *OF_A_TABLE, *OF_YAML], ids=" ".join)


def _with(command: list[str], given: Path) -> list[str]:
    return [str(given) if part in ("FILE", "RUN") else part for part in command]


@NAMES
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"PAR1" + b"\0" * 40,
        b"{}",
        b'{"a": ',
        b"PK\x03\x04" + b"\0" * 60,
        b"\x1f\x8b\x08" + b"\0" * 20,
    ],
    ids=["empty", "no text", "no Parquet", "no keys", "half JSON", "no zip", "no gzip"],
)
@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_file_of_something_else_is_refused_in_one_line(
    command: list[str], content: bytes, suffix: str, testbed: Command, tmp_path: Path
) -> None:
    path = tmp_path / f"bad[file]{suffix}"
    path.write_bytes(content)
    _told(testbed, *_with(command, path))


@NAMES
def test_a_folder_a_missing_file_and_a_place_below_a_file_are_refused_in_one_line(
    command: list[str], testbed: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("empty", "none", "plain/none", "loop", "x" * 300):
        _refused(testbed, *_with(command, tmp_path / name))


@pytest.mark.parametrize("how", DAMAGED_BYTES)
@pytest.mark.parametrize("command", OF_A_TRACE, ids=" ".join)
def test_a_damaged_trace_is_one_line(command: list[str], how: str, trace: Path, testbed: Command) -> None:
    damage(trace, how)
    line = _told(testbed, *_with(command, trace))
    assert not line or str(trace) in line or "no OpenAI-compatible server" in line


@pytest.mark.parametrize("how", DAMAGED_BYTES)
@pytest.mark.parametrize("command", OF_A_PROFILE, ids=" ".join)
def test_a_damaged_profile_is_one_line(command: list[str], how: str, testbed: Command, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(profile_path("llama-3.1-8b-h100").read_bytes())
    damage(path, how)
    _told(testbed, *_with(command, path))


RUN_FILES = ["manifest.json", "lt-i/completions.parquet", "lt-i/servers.parquet", "lt-i/decisions.jsonl"]


@pytest.mark.parametrize("how", ["empty", "cut off", "not UTF-8", "another kind of file"])
@pytest.mark.parametrize("name", [*RUN_FILES, "scenario.yaml", "trace.parquet", "summary.json"])
@pytest.mark.slow
def test_a_run_folder_with_any_file_damaged_is_one_line_in_every_command(
    name: str, how: str, recorded_run: Path, testbed: Command, tmp_path: Path
) -> None:
    damage(recorded_run / name, how)
    for number, command in enumerate(OF_A_RUN):
        parts = [f"out{number}" if part == "out" else part for part in _with(command, recorded_run)]
        _told(testbed, *parts)


@pytest.mark.parametrize("name", RUN_FILES[:2])
@pytest.mark.parametrize("command", OF_A_RUN[:5], ids=" ".join)
def test_a_run_folder_with_a_file_cut_off_is_one_line(
    command: list[str], name: str, recorded_run: Path, testbed: Command
) -> None:
    damage(recorded_run / name, "cut off")
    (recorded_run / "summary.json").unlink()
    line = _told(testbed, *_with(command, recorded_run))
    assert not line or str(recorded_run) in line
    assert line or command[0] == "explain", "it needs no table"


def test_watch_of_a_damaged_run_is_one_line(recorded_run: Path, testbed: Command) -> None:
    damage(recorded_run / "lt-i/completions.parquet", "cut off")
    _refused(testbed, "watch", recorded_run, "--dashboard-port", "0", "--policy", "lt-i", named="completions.parquet")


@pytest.mark.parametrize(
    "command",
    [
        ["report", "RUN", "--csv", "plain/csv"],
        ["report", "RUN", "--csv", "plain/a/b/c"],
        ["compare", "RUN", "--out", "plain/x"],
        ["figures", "RUN", "--out", "plain/x", "--format", "svg"],
        ["trace", "describe", "TRACE", "--html", "plain/x.html"],
        ["trace", "convert", "TRACE", "-o", "plain/x.csv"],
        ["trace", "fit", "TRACE", "-o", "plain/x.yaml"],
        ["trace", "make", "--seed", "1", "--set", "horizon_h=1", "-o", "plain/x.parquet"],
        ["profile", "show", "llama-3.1-8b-h100", "--html", "plain/x.html"],
        ["export", "llama-3.1-8b-h100", "--to", "csv", "--out", "plain/x"],
        ["bound", "RUN", "--json", "plain/x.json"],
        ["run", "SCENARIO", "--out", "plain/x"],
        ["calibrate", "RUN", "--out", "plain/x"],
    ],
    ids=" ".join,
)
def test_a_place_to_write_that_lies_below_a_file_is_one_line(
    command: list[str], recorded_run: Path, trace: Path, testbed: Command
) -> None:
    Path("plain").write_text("x")
    given = {"RUN": recorded_run, "TRACE": trace, "SCENARIO": recorded_run / "scenario.yaml"}
    _refused(testbed, *(given.get(part, part) for part in command), named="plain")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_line(trace: Path, testbed: Command) -> None:
    trace.chmod(0)
    for command in OF_A_TRACE:
        _refused(testbed, *_with(command, trace), named=str(trace))


def test_rows_that_a_conversion_left_out_are_counted_and_said(testbed: Command, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n1,5,5\n2,x,5\n3,5,-5\n4,5,5\n")
    labels = ["--model", "m", "--region", "r", "--tier", "IW-F"]
    code, out, err = testbed("trace", "convert", path, "-o", "o.parquet", *labels)
    assert code == 0, err
    assert "4 rows" in out and "2 requests" in out
    assert "skipped 1: prompt_tokens" in out and "skipped 1: output_tokens" in out


def test_markup_in_a_name_is_text_in_the_terminal(testbed: Command, tmp_path: Path, recorded_run: Path) -> None:
    values = yaml.safe_load((recorded_run / "scenario.yaml").read_text(encoding="utf-8"))
    values["name"] = "x [bold] [red]"
    values["description"] = "[/]"
    path = tmp_path / "strange.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    code, out, err = testbed("run", path, "--out", "o[b]", "--policy", "reactive")
    assert code == 0, err
    assert "x [bold] [red]" in out and "o[b]" in out
    code, out, err = testbed("report", "o[b]")
    assert code == 0, err
    assert "report: o[b]/report.html" in out


def test_markup_and_scripts_in_a_manifest_are_text_in_the_terminal_and_on_every_page(
    testbed: Command, recorded_run: Path, tmp_path: Path
) -> None:
    path = recorded_run / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    evil = "[/red]</title></script><script>alert(1)</script>'\""
    manifest |= {"scenario": evil, "error": evil, "versions": {evil: evil}, "start_state": {evil: 1}}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert _told(testbed, "report", recorded_run) == ""
    assert _told(testbed, "compare", recorded_run, "--out", "out") == ""
    for page in (recorded_run / "report.html", tmp_path / "out" / "compare.html"):
        assert "<script>alert" not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_of_models_and_regions_are_text_on_every_page_and_in_every_figure(
    testbed: Command, recorded_run: Path, tmp_path: Path
) -> None:
    evil = "a</script><script>alert(1)</script>[/b]'\"&"
    text = (recorded_run / "scenario.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    for section in (values, values["workload"]["synthetic"]):
        section["models"] = {evil: section["models"]["a"]}
        section["regions"] = {f"{evil}w": section["regions"]["west"]}
    values["description"] = evil
    path = tmp_path / "evil.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    run = tmp_path / "evil"
    for command in (
        ["run", path, "--out", run],
        ["report", run],
        ["compare", run, "--out", "compared"],
        ["explain", run],
        ["figures", run, "--out", "drawn", "--format", "svg"],
        ["calibrate", run, "--out", "calibrated"],
        ["trace", "describe", run / "trace.parquet", "--html", "trace.html"],
    ):
        assert _told(testbed, *command) == ""
    pages = [page for kind in ("*.html", "*.svg") for page in tmp_path.rglob(kind) if "run" not in page.parts]
    assert len(pages) >= 5
    for page in pages:
        written = page.read_text(encoding="utf-8")
        assert "<script>alert" not in written and "</script><script" not in written, page

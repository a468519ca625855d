"""`testbed explain` as a user meets it: on finished and on killed runs, and on faults."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.cli_explain import stdout

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run is kept that all tests look at copies of."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def run_folder(testbed: Command, small_scenario: Any, finished: Path) -> Path:
    if not finished.exists():
        scenario = str(small_scenario.write())
        code, _, err = testbed("run", scenario, "--policy", "reactive", "--policy", "lt-ua", "--out", str(finished))
        assert (code, err) == (0, "")
    return Path(shutil.copytree(finished, "run"))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "_width", 200)


def test_the_last_decision_that_changed_something_is_explained_for_each_policy(
    testbed: Command, run_folder: Path
) -> None:
    code, out, err = testbed("explain", "run")
    assert (code, err) == (0, "")
    assert "reactive: decision " in out and "lt-ua: decision " in out
    for part in ("demand, tokens/s", "the NIW queue", "servers", "What was done, and why"):
        assert out.count(part) >= 2
    assert out.count("What was forecast") == 1


def test_a_decision_is_found_by_its_time_in_seconds_or_on_the_clock(testbed: Command, run_folder: Path) -> None:
    shown = [testbed("explain", "run", "--policy", "reactive", "--at", at)[1] for at in ("61", "61.0", "0:01:01")]
    assert "reactive: decision " in shown[0] and len(set(shown)) == 1


def test_one_pool_and_the_last_changes_can_be_asked_for(testbed: Command, run_folder: Path) -> None:
    code, out, _ = testbed("explain", "run", "--policy", "reactive", "--pool", "a@west")
    assert code == 0 and "a@west" in out and "a@east" not in out
    code, out, _ = testbed("explain", "run", "--policy", "reactive", "--last", "2")
    assert code == 0 and "reactive: what it changed last" in out


def test_a_run_that_was_killed_is_explained_up_to_where_it_came(testbed: Command, run_folder: Path) -> None:
    lines = (run_folder / "reactive" / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
    torn = "\n".join([*lines[:3], lines[3][: len(lines[3]) // 2]])
    (run_folder / "reactive" / "decisions.jsonl").write_text(torn, encoding="utf-8")
    manifest = json.loads((run_folder / "manifest.json").read_text(encoding="utf-8"))
    manifest.update(status="running", ended_at=None, policies={"reactive": {"status": "running"}, "lt-ua": {}})
    (run_folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    shutil.rmtree(run_folder / "lt-ua")
    code, out, err = testbed("explain", "run", "--at", "99:00")
    assert (code, err) == (0, "")
    assert "decision 3 of 3" in out and "lt-ua" not in out


FAULTS = [
    (["nowhere"], "nowhere holds no manifest.json"),
    (["run", "--policy", "reactiv"], "--policy reactiv: run has none of that name; did you mean 'reactive'?"),
    (["run", "--pool", "a@wst"], "--pool a@wst: not in this run; did you mean 'a@west'?"),
    (["run", "--at", "noon"], "--at noon: give seconds of the run, as 43200, or H:MM or H:MM:SS, as 12:00"),
    (["run", "--at", "1:75"], "--at 1:75: give seconds of the run"),
]


@pytest.mark.parametrize(("arguments", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_fault_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, testbed: Command, run_folder: Path
) -> None:
    code, out, err = testbed("explain", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("testbed: ") and message in err and err.count("\n") == 1


def test_decisions_of_another_version_and_empty_ones_are_one_line(testbed: Command, run_folder: Path) -> None:
    path = run_folder / "reactive" / "decisions.jsonl"
    path.write_text('{"at_s": 0.0, "plan": {}}\n', encoding="utf-8")
    code, out, err = testbed("explain", "run", "--policy", "reactive")
    assert (code, out) == (2, "")
    assert "written by another version of the testbed" in err and "run the scenario again" in err
    assert err.count("\n") == 1
    path.write_text("", encoding="utf-8")
    code, _, err = testbed("explain", "run", "--policy", "reactive")
    assert code == 2 and "holds no decision" in err

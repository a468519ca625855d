"""A study carried out: what has finished is not run again, what fails stops nobody, and the folder tells it all."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from results.run_folder import RunFolder
from results.study_record import StudyRun
from testbed.compared_runs import cases_of
from testbed.study_pool import Done, done_jobs

Command = Callable[..., tuple[int, str, str]]

POLICIES = {"static": {"knob": "servers_per_pool", "values": [1, 3]}, "reactive": {"parameters": {"interval_s": 5}}}


@pytest.fixture
def study(small_scenario: Any) -> Callable[..., Path]:
    """Writes a study of one short workload; keys given replace its own."""

    def write(**changes: Any) -> Path:
        values = small_scenario.values()
        values["workload"] = {"synthetic": {**values["workload"]["synthetic"], "horizon_h": 2}}
        path = Path(small_scenario.folder) / "study.yaml"
        whole = {
            "name": "tiny",
            "scenario": values,
            "workloads": {"plain": None},
            "policies": POLICIES,
            "headline": {"policy": "static", "against": "reactive"},
        }
        path.write_text(yaml.safe_dump({**whole, **changes}, sort_keys=False), encoding="utf-8")
        return path

    return write


def run_folders(out: str = "out") -> dict[str, int]:
    """The finished runs and when each was written."""
    return {str(path.parent): path.stat().st_mtime_ns for path in sorted(Path(out).rglob("study_run.json"))}


def test_a_study_leaves_runs_tables_and_a_page_that_agree(testbed: Command, study: Callable[..., Path]) -> None:
    code, out, err = testbed("sweep", str(study()), "--out", "out", "--jobs", "1")
    assert (code, err) == (0, "")
    assert "at 99 % of interactive requests within their SLO" in out
    document = json.loads(Path("out/study.json").read_text(encoding="utf-8"))
    assert len(document["runs"]) == len(run_folders()) == 3
    for run in document["runs"]:
        folder = Path("out") / run["folder"]
        recorded = StudyRun.read(folder)
        assert recorded.gpu_hours == run["gpu_hours"]
        assert 0 <= recorded.missed <= 1
        assert RunFolder.open(folder).manifest.status == "finished"
    rows = list(csv.DictReader(Path("out/runs.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["policy"] for row in rows} == {"static", "reactive"}
    assert "<svg" in Path("out/study.html").read_text(encoding="utf-8")
    assert len(list(csv.DictReader(Path("out/matched.csv").read_text(encoding="utf-8").splitlines()))) == 2


def test_the_same_command_runs_nothing_twice_and_what_is_missing_again(
    testbed: Command, study: Callable[..., Path]
) -> None:
    command = ("sweep", str(study()), "--out", "out", "--jobs", "1")
    testbed(*command)
    before = run_folders()
    code, out, _ = testbed(*command)
    assert code == 0
    assert "3 of 3 runs are done already" in out
    assert run_folders() == before
    lost, *kept = before
    Path(lost, "study_run.json").unlink()  # as a run that was killed before its end
    Path(lost).rename(f"{lost}.partial")
    testbed(*command)
    after = run_folders()
    assert list(after) == list(before)
    assert all(after[folder] == before[folder] for folder in kept)
    assert not list(Path("out").rglob("*.partial"))


def test_a_changed_study_says_so_and_keeps_what_is_still_of_it(testbed: Command, study: Callable[..., Path]) -> None:
    testbed("sweep", str(study()), "--out", "out", "--jobs", "1")
    more = {**POLICIES, "static": {"knob": "servers_per_pool", "values": [1, 2, 3]}}
    code, out, _ = testbed("sweep", str(study(policies=more)), "--out", "out", "--jobs", "1")
    assert code == 0
    assert "this folder was begun with another study: 3 finished runs are still of this one" in out
    assert len(run_folders()) == 4


def test_of_a_changed_study_the_runs_of_earlier_versions_are_not_compared(
    testbed: Command, study: Callable[..., Path]
) -> None:
    for servers in (1, 2):
        least = {"plain": {"set": {"min_servers": servers}}, f"of-{servers}": None}
        policies = {f"fixed-{servers}": {"policy": "static"}, "reactive": None}
        path = study(workloads=least, policies=policies, headline={"policy": "reactive", "against": "reactive"})
        assert testbed("sweep", str(path), "--out", "out", "--jobs", "1")[0] == 0
    assert len(run_folders()) == 8
    cases, (told,) = cases_of([Path("out")], anyway=False)
    assert told == "out: 4 runs of earlier versions of its study are left out"
    compared = {(case.name, run.policy): run.folder.path for case in cases for run in case.runs}
    assert set(compared) == {(workload, policy) for workload in ("plain", "of-2") for policy in ("fixed-2", "reactive")}
    listed = {Path("out") / run["folder"] for run in json.loads(Path("out/study.json").read_text())["runs"]}
    assert set(compared.values()) == listed


def test_a_study_with_a_knob_that_is_none_leaves_the_folder_as_it_was(
    testbed: Command, study: Callable[..., Path]
) -> None:
    testbed("sweep", str(study()), "--out", "out", "--jobs", "1", "--policy", "reactive")
    before = Path("out/study.yaml").read_text(encoding="utf-8")
    wrong = {**POLICIES, "static": {"knob": "servers_per_pol", "values": [1, 3]}}
    code, _, err = testbed("sweep", str(study(policies=wrong)), "--out", "out", "--jobs", "1")
    assert code == 2 and "servers_per_pol" in err
    assert Path("out/study.yaml").read_text(encoding="utf-8") == before


def test_a_run_can_be_run_again_from_its_folder_with_the_same_bytes(
    testbed: Command, study: Callable[..., Path]
) -> None:
    testbed("sweep", str(study()), "--out", "out", "--jobs", "1", "--policy", "reactive")
    (folder,) = run_folders()
    assert testbed("run", f"{folder}/scenario.yaml", "--out", "again")[0] == 0
    first, again = (RunFolder.open(Path(at)).manifest.policies["reactive"].digests for at in (folder, "again"))
    assert first == again


def test_a_run_that_fails_is_one_line_and_stops_nobody(testbed: Command, study: Callable[..., Path]) -> None:
    broken = {**POLICIES, "static": {"parameters": {"counts": {"a@moon/h100": 2}}}}
    code, out, _ = testbed("sweep", str(study(policies=broken)), "--out", "out", "--jobs", "1")
    assert code == 1
    failures = [line for line in out.splitlines() if "failed:" in line]
    assert failures and all("plain static seed 1" in line or "no placement" in line for line in failures)
    assert [StudyRun.read(Path(folder)).policy for folder in run_folders()] == ["reactive"]
    assert "no placement" in Path("out/study.html").read_text(encoding="utf-8")


def test_a_scenario_is_swept_over_a_knob(testbed: Command, small_scenario: Any) -> None:
    values = small_scenario.values(policies={"static": {}})
    values["workload"]["synthetic"]["horizon_h"] = 2
    scenario = str(small_scenario.write(values))
    knob = "static.servers_per_pool=1,2"
    code, _, _ = testbed("sweep", scenario, "--knob", knob, "--out", "out", "--jobs", "1", "--seeds", "1,2")
    assert code == 0
    assert [StudyRun.read(Path(folder)).seed for folder in run_folders()] == [1, 2, 1, 2]


FAULTS = [
    (["sweep", "STUDY", "--seeds", "1,1"], "--seeds 1,1: wanted whole numbers"),
    (["sweep", "STUDY", "--policy", "hpaa"], "--policy hpaa: not in this study"),
    (["sweep", "STUDY", "--traces", "nowhere"], "traces nowhere: no such folder"),
    (["sweep", "STUDY", "--knob", "static.x=1"], "--knob is for a scenario"),
    (["sweep", "papercontrol"], "no study or scenario 'papercontrol'"),
    (["run", "STUDY", "--mode", "vllm"], "--mode"),
]


@pytest.mark.parametrize(("arguments", "said"), FAULTS)
def test_a_fault_is_one_line(testbed: Command, study: Callable[..., Path], arguments: list[str], said: str) -> None:
    path = str(study())
    code, _, err = testbed(*(path if argument == "STUDY" else argument for argument in arguments))
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_run_hands_a_study_over(testbed: Command, study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    code, out, _ = testbed("run", str(study()), "--policy", "reactive", "--out", "out")
    assert code == 0
    assert "page: out/study.html" in out
    assert len(run_folders()) == 1


# Jobs for other processes have to be functions of a module.


def doubled(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number < 0:
        raise ValueError(f"{number} is\nnegative")
    return 2 * number


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_ends_and_an_error_is_its_own(processes: int) -> None:
    begun: list[int] = []
    ended = list(done_jobs(doubled, [1, -2, 3], processes, begun.append))
    assert begun == [1, -2, 3]
    by_job: dict[int, Done[int, int]] = {done.job: done for done in ended}
    assert {job: done.result for job, done in by_job.items()} == {1: 2, -2: None, 3: 6}
    assert by_job[-2].error == "ValueError: -2 is negative"


def test_a_process_that_dies_takes_only_its_job_with_it() -> None:
    ended = {done.job: done for done in done_jobs(doubled, [13, 1, 2, 3], 2)}
    assert ended[13].result is None
    assert "its process died (exit code -9)" in ended[13].error
    assert [ended[job].result for job in (1, 2, 3)] == [2, 4, 6]


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(study: Callable[..., Path], tmp_path: Path) -> None:
    path = study(policies={"static": {"knob": "servers_per_pool", "values": [1, 2, 3]}}, seeds=[1, 2, 3, 4, 5])
    command = [sys.executable, "-m", "testbed", "sweep", str(path), "--out", "out", "--jobs", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    while len(list(tmp_path.rglob("study_run.json"))) < 3 and process.poll() is None:
        threading.Event().wait(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "interrupted" in out
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("study_run.json")}
    assert 3 <= len(finished) < 15
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{len(finished)} of 15 runs are done already" in again.stdout
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("study_run.json")}
    assert len(after) == 15
    assert finished.items() <= after.items()

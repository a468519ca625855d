"""Fluid studies: the same policies, tables and files, without requests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from results.study_record import StudyRun

Command = Callable[..., tuple[int, str, str]]

POLICIES = {
    "static": {"knob": "servers_per_pool", "values": [1, 3]},
    "reactive": None,
    "hpa": {"knob": "target", "values": [0.5, 0.9]},
}


@pytest.fixture
def study(small_scenario: Any) -> Path:
    values = small_scenario.values()
    path = Path(small_scenario.folder) / "study.yaml"
    whole = {
        "name": "tiny",
        "fidelity": "fluid",
        "scenario": values,
        "workloads": {"plain": None},
        "policies": POLICIES,
        "headline": {"policy": "hpa", "against": "reactive"},
    }
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return path


def runs() -> list[StudyRun]:
    return [StudyRun.read(path.parent) for path in sorted(Path("out").rglob("study_run.json"))]


def test_a_fluid_study_compares_minutes_and_knows_its_bound(testbed: Command, study: Path) -> None:
    code, out, err = testbed("sweep", str(study), "--out", "out", "--jobs", "1")
    assert (code, err) == (0, "")
    assert "at 99 % of minutes of a model within their SLO" in out
    found = runs()
    assert len(found) == 5
    assert len({run.bound for run in found}) == 1
    for run in found:
        assert run.bound is not None
        assert 0 <= run.missed <= 1
        if run.missed <= run.bound.missed:
            assert run.gpu_hours >= run.bound.lower_gpu_hours * (1 - 1e-9)
    document = json.loads(Path("out/study.json").read_text(encoding="utf-8"))
    assert document["fidelity"] == "fluid"


def test_more_static_servers_miss_no_more_minutes(testbed: Command, study: Path) -> None:
    testbed("sweep", str(study), "--out", "out", "--jobs", "1", "--policy", "static")
    few, many = sorted(runs(), key=lambda run: run.value or 0.0)
    assert many.missed <= few.missed
    assert many.gpu_hours > few.gpu_hours


def test_the_same_study_in_both_fidelities_has_runs_of_its_own(testbed: Command, study: Path) -> None:
    options = ("--out", "out", "--jobs", "1", "--policy", "static", "--set", "workload.synthetic.horizon_h=2")
    testbed("sweep", str(study), *options)
    study.write_text(study.read_text(encoding="utf-8").replace("fidelity: fluid", "fidelity: requests"), "utf-8")
    code, _, _ = testbed("sweep", str(study), *options)
    assert code == 0
    assert sorted(run.fidelity for run in runs()) == ["fluid", "fluid", "requests", "requests"]


def test_a_public_trace_runs_at_its_own_rate(testbed: Command, study: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for at_s in np.sort(rng.uniform(0, 3600, 2000)):
        minute, second = divmod(int(at_s), 60)
        lines.append(f"2023-11-16 18:{minute:02d}:{second:02d}.0000000,{rng.integers(20, 400)},{rng.integers(2, 100)}")
    (tmp_path / "azure.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    values = yaml.safe_load(study.read_text(encoding="utf-8"))
    trace = {"file": "azure.csv", "models": {"a": 1}, "regions": {"west": 1, "east": 1}, "mean_requests_per_s": 0.01}
    values["workloads"] = {"real": {"trace": trace, "history_h": 0.5}}
    values["policies"] = {"static": {"parameters": {"servers_per_pool": 1}}}
    study.write_text(yaml.safe_dump(values), encoding="utf-8")
    code, out, err = testbed("sweep", str(study), "--out", "out", "--jobs", "1", "--traces", str(tmp_path))
    assert (code, err) == (0, ""), out
    (run,) = runs()
    # Two servers of one GPU for the half hour that is run.
    assert run.gpu_hours == pytest.approx(1.0, abs=0.02)
    assert run.bound is not None
    assert run.bound.lower_gpu_hours > 0

"""A small run, made once, to be damaged in copies."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.cli import main

SMALL_RUN: dict[str, Any] = {
    "name": "small",
    "mode": "virtual",
    "seed": 1,
    "models": {"a": {"profiles": {"h100": "llama-3.1-8b-h100"}, "start_s": 5.0}},
    "regions": {"west": {"gpus": {"h100": 4}}},
    "gpu_types": {"h100": {"usd_per_gpu_h": 10}},
    "workload": {
        "history_h": 24,
        "synthetic": {
            "day_s": 200, "horizon_h": 24, "mean_requests_per_s": 1.0, "shares_of": "requests", "tenants": 1,
            "models": {"a": {"max_model_len": 2048, "prompt_tokens": [[0.0, 20], [1.0, 150]],
                             "output_tokens": [[0.0, 2], [1.0, 20]]}},
            "regions": {"west": {}},
        },
    },
    "demand_bin_s": 5,
    "gauge_every_s": 10,
    "drain_s": 20,
    "grace_s": 60,
    "policies": {
        "reactive": {"interval_s": 5},
        "lt-i": {"period_s": 50, "interval_s": 5,
                 "forecast": {"method": "seasonal-naive", "step_s": 10, "season_s": 200}},
    },
}  # fmt: skip
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in a folder of the test's own; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["testbed", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture(scope="session")
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL_RUN, sort_keys=False), encoding="utf-8")
    before = sys.argv
    sys.argv = ["testbed", "run", str(folder / "small.yaml"), "--out", str(folder / "run")]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
    finally:
        sys.argv = before
    return folder / "run"


@pytest.fixture
def recorded_run(_recorded: Path, tmp_path: Path) -> Path:
    """A run folder of two policies, its own to damage."""
    return Path(shutil.copytree(_recorded, tmp_path / "run"))

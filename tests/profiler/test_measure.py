import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from profiler.fit import fit_step_time
from profiler.sampling import MeasurementError, decode_sample_from, measure
from profiler.server_facts import ServerFactsError, cache_config, kv_cache_from, read_server_facts
from profiler.step_time import StepTimeModel, prefill_pairs
from profiler.sweep import DecodePoint, ServerLimits, Sweep

TRUTH = StepTimeModel(
    overhead_s=2e-3,
    weights_s=5e-3,
    per_token_s=5e-5,
    per_sequence_s=2e-5,
    per_kv_token_s=1e-7,
    per_prefill_pair_s=1e-8,
)
REQUEST_OVERHEAD_S = 3e-3
LIMITS = ServerLimits(max_num_seqs=16, max_num_batched_tokens=1024, max_model_len=4096, kv_tokens=60_000)
SWEEP = Sweep(
    decode_seqs=(1, 4, 16),
    context_tokens=(64, 512, 2048),
    closed_loop_concurrency=(4,),
    closed_loop_prompt_tokens=100,
    closed_loop_output_tokens=20,
)


@dataclass(frozen=True, slots=True)
class Stream:
    sent_s: float
    token_times_s: tuple[float, ...]
    error: str | None = None

    @property
    def first_token_s(self) -> float | None:
        return self.token_times_s[0] if self.token_times_s else None

    @property
    def output_tokens(self) -> int:
        return len(self.token_times_s)


@dataclass(slots=True)
class FakeServer:
    """Serves whatever was sent in one turn of the event loop as one batch: prompts one after the other, then decode."""

    error_for_prompts_over: int = 10**9
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    _batch: dict[str, tuple[int, int]] = field(default_factory=dict)
    _served: dict[str, tuple[float, ...]] = field(default_factory=dict)

    async def complete(
        self, prompt_token_ids: Sequence[int], max_tokens: int, *, request_id: str, priority: int | None = None
    ) -> Stream:
        self.prompts.append(tuple(prompt_token_ids))
        if len(prompt_token_ids) > self.error_for_prompts_over:
            return Stream(0.0, (), "out of memory")
        self._batch[request_id] = (len(prompt_token_ids), max_tokens)
        await asyncio.sleep(0)
        if request_id not in self._served:
            self._serve()
        return Stream(0.0, self._served.pop(request_id))

    def _serve(self) -> None:
        now, times = 0.0, {request_id: [] for request_id in self._batch}
        for request_id, (prompt, _) in self._batch.items():
            done = 0
            while done < prompt:
                chunk = min(LIMITS.max_num_batched_tokens, prompt - done)
                now += TRUTH.step_s(chunk, prefill_pairs(chunk, done), 0, 0)
                done += chunk
            times[request_id].append(now)
        while active := [r for r, (_, tokens) in self._batch.items() if len(times[r]) < tokens]:
            now += TRUTH.step_s(0, 0, len(active), sum(self._batch[r][0] + len(times[r]) for r in active))
            for request_id in active:
                times[request_id].append(now)
        for request_id, row in times.items():
            self._served[request_id] = tuple(t + REQUEST_OVERHEAD_S for t in row)
        self._batch.clear()


async def test_a_sweep_of_a_server_with_known_step_times_finds_them() -> None:
    measured = await measure(FakeServer(), LIMITS, SWEEP, lambda line: None)
    fit = fit_step_time(measured.samples)
    for batch in ((0, 0, 1, 100), (0, 0, 16, 20_000), (512, 512 * 256, 0, 0), (1024, 1024 * 2000, 0, 0)):
        assert fit.step_time.step_s(*batch) == pytest.approx(TRUTH.step_s(*batch), rel=0.02)
    assert fit.request_overhead_s == pytest.approx(REQUEST_OVERHEAD_S, rel=0.05)
    assert measured.notes == ()


async def test_every_point_is_measured_once_in_every_recorded_pass() -> None:
    measured = await measure(FakeServer(), LIMITS, SWEEP, lambda line: None)
    seen = sorted((sample.point, sample.repeat) for sample in measured.samples)
    names = {str(point) for point in SWEEP.points(LIMITS).steps}
    assert seen == sorted((name, repeat) for name in names for repeat in range(3))


async def test_no_two_prompts_are_alike() -> None:
    server = FakeServer()
    await measure(server, LIMITS, SWEEP, lambda line: None)
    assert len(set(server.prompts)) == len(server.prompts) > 100


async def test_a_load_point_counts_every_request() -> None:
    measured = await measure(FakeServer(), LIMITS, SWEEP, lambda line: None)
    (point,) = measured.points
    assert (point.concurrency, point.completed, point.failed) == (4, 16, 0)
    assert point.ttft_p50_s is not None and point.e2e_p50_s is not None
    assert 0 < point.ttft_p50_s < point.e2e_p50_s


async def test_a_point_that_fails_is_named_and_the_rest_is_measured() -> None:
    measured = await measure(FakeServer(error_for_prompts_over=3000), LIMITS, SWEEP, lambda line: None)
    assert "prefill 4095" not in {sample.point for sample in measured.samples}
    assert any("prefill 4095" in note and "out of memory" in note for note in measured.notes)


async def test_a_server_that_answers_nothing_is_an_error_and_no_profile() -> None:
    with pytest.raises(MeasurementError, match="out of memory"):
        await measure(FakeServer(error_for_prompts_over=0), LIMITS, SWEEP, lambda line: None)


POINT = DecodePoint(decode_seqs=2, context_tokens=100, output_tokens=42)


def test_the_steady_window_leaves_out_what_ran_before_the_last_sequence_began() -> None:
    early = np.concatenate([np.arange(10) * 0.5, 5.0 + np.arange(32) * 0.01])
    late = 4.995 + np.arange(42) * 0.01
    sample = decode_sample_from(np.array([early, late]), POINT, 0)
    assert sample.observed_s / sample.steps == pytest.approx(0.01)


def test_tokens_that_arrive_in_chunks_give_the_pace_of_single_ones() -> None:
    single = 1.0 + np.arange(42) * 0.01
    chunked = np.ceil(np.arange(42) / 4) * 0.04 + 1.0
    sample = decode_sample_from(np.array([single, chunked]), POINT, 0)
    assert sample.observed_s / sample.steps == pytest.approx(0.01, rel=0.02)


def test_the_kv_tokens_of_a_window_are_prompt_and_progress_of_all_sequences() -> None:
    row = 1.0 + np.arange(42) * 0.01
    sample = decode_sample_from(np.array([row, row]), POINT, 0)
    assert 2 * (100 + 20) < sample.kv_tokens < 2 * (100 + 24)


def test_sequences_that_never_ran_together_are_refused() -> None:
    row = np.arange(42) * 0.01
    with pytest.raises(MeasurementError, match="ran together for 0 tokens"):
        decode_sample_from(np.array([row, row + 10]), POINT, 0)


METRICS = """# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",enable_prefix_caching="True",num_gpu_blocks="512",num_cpu_blocks="None"} 1.0
"""


def test_the_kv_cache_is_read_from_the_metrics() -> None:
    cache = kv_cache_from(cache_config(METRICS))
    assert cache is not None
    assert (cache.num_gpu_blocks, cache.block_size, cache.max_tokens) == (512, 128, 65536)


def test_metrics_without_a_kv_cache_give_none() -> None:
    assert kv_cache_from(cache_config("# nothing here\n")) is None
    assert kv_cache_from({"block_size": "16", "num_gpu_blocks": "None"}) is None


async def test_an_address_without_a_server_is_one_line_for_the_user(unused_tcp_port: int) -> None:
    with pytest.raises(ServerFactsError, match=f"no OpenAI-compatible server at http://127.0.0.1:{unused_tcp_port}"):
        await read_server_facts(f"http://127.0.0.1:{unused_tcp_port}")

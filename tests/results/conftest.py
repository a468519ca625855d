"""Small runs to record, read and report."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from profiler.profile import ServerProfile
from profiler.profile_parts import (
    Domain,
    EngineArgs,
    Errors,
    FitQuality,
    KvCache,
    LatencySlo,
    Lifecycle,
    LoadPoint,
    MeasuredTheta,
    Percentiles,
    ProfiledGpu,
    ProfiledModel,
    Provenance,
    SleepLevel,
    StepSample,
)
from profiler.step_time import StepTimeModel
from results.manifest import PolicyRecord, RunManifest, SloRecord
from results.recorder import RunRecorder
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import SAGESERVE_SLOS

CompletionMaker = Callable[..., Completion]
ManifestMaker = Callable[..., RunManifest]


@pytest.fixture
def completion() -> CompletionMaker:
    """Make a completion; what is not given is an IW-F request of model m in west that took 1 s."""

    def make(
        request_id: int = 0,
        *,
        model: str = "m",
        tier: Tier = Tier.IW_F,
        arrival_s: float = 0.0,
        first: float | None = 0.5,
        last: float = 1.0,
        prompt_tokens: int = 10,
        output_tokens: int = 5,
        deadline_s: float | None = None,
        outcome: Outcome = Outcome.COMPLETED,
        reason: str = "",
        late: float = 0.0,
        cached_tokens: int | None = None,
        region: str = "west",
    ) -> Completion:
        """`first`, `last` and `late` count from the arrival."""
        request = Request(
            request_id=request_id,
            arrival_s=arrival_s,
            model=model,
            region=region,
            tier=tier,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            deadline_s=deadline_s,
        )
        return Completion(
            request=request,
            server_id="s0",
            region="east",
            sent_s=arrival_s + late,
            first_token_s=None if first is None else arrival_s + first,
            last_token_s=arrival_s + last,
            output_tokens=0 if first is None else output_tokens,
            outcome=outcome,
            reason=reason,
            cached_tokens=cached_tokens,
        )

    return make


@pytest.fixture
def manifest() -> ManifestMaker:
    """Make the manifest of a run of an hour; `records` and other fields replace what a new manifest says."""

    def make(
        policies: tuple[str, ...] = ("reactive",), records: Mapping[str, PolicyRecord] | None = None, **fields: Any
    ) -> RunManifest:
        made = RunManifest(
            scenario="small",
            scenario_sha256="0" * 64,
            mode="virtual",
            seed=1,
            started_at=datetime(2020, 1, 2, 3, 4, tzinfo=UTC),
            horizon_s=3600.0,
            offered_requests=0,
            slos={tier: SloRecord.of(slo) for tier, slo in SAGESERVE_SLOS.items()},
            start_state={"m@west/h100": 1},
            usd_per_gpu_h={"h100": 10.0},
            policies=dict(records or {name: PolicyRecord() for name in policies}),
        )
        return made.model_copy(update=fields)

    return make


@pytest.fixture
def server_row() -> Callable[..., None]:
    """Record a change of state of server `server_id`; by default of model m in west on 1 h100."""

    def record(recorder: RunRecorder, at_s: float, server_id: str, state: str, **given: Any) -> None:
        fields: Mapping[str, Any] = {"model": "m", "region": "west", "gpu_type": "h100", "gpus": 1.0, **given}
        recorder.server_state(at_s=at_s, server_id=server_id, state=state, **fields)

    return record


@pytest.fixture
def policy_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "reactive"


@pytest.fixture
def measured_profile() -> ServerProfile:
    """A profile with a load of each loop, a theta and one sleep level; no power, no drain, nothing about level 2."""
    slo = LatencySlo(ttft_s=0.5, tpot_s=0.05)
    latency = Percentiles(p50=0.02, p90=0.03, p95=0.04, p99=0.05, mean=0.021, n=37)
    load = {
        "prompt_tokens": 512,
        "output_tokens": 128,
        "completed": 37,
        "failed": 0,
        "ttft_s": latency,
        "tpot_s": latency,
        "e2e_s": latency,
        "window_s": 30.0,
        "slo": slo,
    }
    return ServerProfile(
        name="m-g",
        kind="measured",
        model=ProfiledModel(name="m"),
        gpu=ProfiledGpu(type="g", count=1),
        engine=EngineArgs(max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=4096),
        kv_cache=KvCache(num_gpu_blocks=6250, block_size=16, max_tokens=100_000),
        step_time=StepTimeModel(
            overhead_s=7e-3,
            slopes=((200.0, 3e-5),),
            per_sequence_s=1e-5,
            per_kv_token_s=5e-8,
            per_prefill_pair_s=1e-9,
        ),
        request_overhead_s=4e-3,
        domain=Domain(
            prefill_tokens=(0, 2048), prefill_pairs=(0, 2_097_152), decode_seqs=(0, 32), kv_tokens=(0, 60_000)
        ),
        fit=FitQuality(residuals=Errors(mape=0.01, median_ape=0.009, max_ape=0.03, n=12), n_samples=36),
        lifecycle=Lifecycle(
            cold_start_s=71.0, warm_start_s=34.0, stop_s=0.0, sleep=(SleepLevel(level=1, sleep_s=2.0, wake_s=0.5),)
        ),
        points=(
            LoadPoint(
                concurrency=8, completed_per_s=2.0, prompt_tokens_per_s=1024.0, output_tokens_per_s=256.0, **load
            ),
            LoadPoint(
                requests_per_s=2.5, completed_per_s=2.4, prompt_tokens_per_s=1200.0, output_tokens_per_s=300.0, **load
            ),
        ),
        theta=(
            MeasuredTheta(
                prompt_tokens_mean=512,
                output_tokens_mean=128,
                prompt_cv=1.0,
                output_cv=1.0,
                slo=slo,
                requests_per_s=10.0,
                tokens_per_s=6400.0,
                missed_at_requests_per_s=12.0,
                n=250,
            ),
        ),
        provenance=Provenance(
            source="here", date="2026-01-02", engine="vllm", engine_version="1.2", weights="real", n=36
        ),
    )


@pytest.fixture
def step_samples() -> tuple[StepSample, ...]:
    """Two points of each kind, one of them held out; no two have the same time."""
    shapes = (
        ("prefill", 512.0, 131_072.0, 0.0, 0.0),
        ("decode", 0.0, 0.0, 8.0, 4096.0),
        ("mixed", 256.0, 32_768.0, 4.0, 256.0),
    )
    return tuple(
        StepSample(
            kind=kind,
            point=f"{kind} {held_out}",
            repeat=repeat,
            prefill_tokens=tokens,
            prefill_pairs=pairs,
            decode_seqs=seqs,
            kv_tokens=kv_tokens,
            steps=1,
            observed_s=0.01 * (index + 1) + 0.002 * held_out + 0.0001 * repeat,
            held_out=held_out,
        )
        for index, (kind, tokens, pairs, seqs, kv_tokens) in enumerate(shapes)
        for held_out in (False, True)
        for repeat in range(2)
    )

"""An emulated server in virtual time as something to measure: its truth is known to the last digit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from profiler.analytical import analytical_profile
from profiler.fit import StepTimeFit
from profiler.gpu_types import H100
from profiler.iterations import Iterations
from profiler.journal import Journal
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.plan import MeasurementPlan
from profiler.points import ServerLimits
from profiler.profile import ServerProfile
from profiler.profile_parts import KvCache, StepSample
from profiler.progress import unheard
from profiler.session import Session
from profiler.step_time import StepTimeModel
from testbed.emulated_server import EmulatedServer
from testbed.server import ServerSpec
from testbed.virtual_time import VirtualTimeLoop
from workloads.clock import RunClock
from workloads.request import Request, Tier

TRUTH = StepTimeModel(
    overhead_s=7e-3,
    slopes=((180, 2.4e-5), (900, 1e-5)),
    per_sequence_s=2e-5,
    per_kv_token_s=6e-8,
    per_prefill_pair_s=2e-9,
    prefill_overhead_s=1.5e-3,
)
REQUEST_OVERHEAD_S = 3e-3
LIMITS = ServerLimits(max_num_seqs=64, max_num_batched_tokens=2048, max_model_len=8192, kv_tokens=128_000)


@dataclass(frozen=True, slots=True)
class Answer:
    sent_s: float
    token_times_s: tuple[float, ...]
    error: str | None = None


class EmulatedTarget:
    """What `CompletionClient` is to a real server. Every answer is `REQUEST_OVERHEAD_S` longer on its way."""

    def __init__(self, step_time: Any = TRUTH, limits: ServerLimits = LIMITS) -> None:
        self.prompts: list[tuple[int, ...]] = []
        self.broken_over_tokens = 10**9
        self.clock = RunClock()
        profile = profile_of(limits).model_copy(update={"step_time": step_time})
        spec = ServerSpec(
            model="m",
            region="r",
            gpu_type="h100",
            gpus=1,
            max_model_len=limits.max_model_len,
            max_num_seqs=limits.max_num_seqs,
            max_num_batched_tokens=limits.max_num_batched_tokens,
        )
        self._server = EmulatedServer(
            spec,
            "s",
            profile=profile,
            clock=self.clock,
            on_change=lambda *_: None,
            start_s=0,
            stop_s=0,
            step_by_step=True,
        )

    async def start(self) -> "EmulatedTarget":
        await self._server.start()
        return self

    async def complete(
        self, prompt_token_ids: Sequence[int], max_tokens: int, *, request_id: str, priority: int | None = None
    ) -> Answer:
        sent_s = self.clock.now_s()
        self.prompts.append(tuple(prompt_token_ids))
        if len(prompt_token_ids) > self.broken_over_tokens:
            return Answer(sent_s, (), "out of memory")
        request = Request(
            request_id=len(self.prompts),
            arrival_s=max(0.0, sent_s),
            model="m",
            region="r",
            tier=Tier.IW_N,
            prompt_tokens=len(prompt_token_ids),
            output_tokens=max_tokens,
        )
        times: list[float] = []
        async for new in self._server.stream(request):
            times += [self.clock.now_s() + REQUEST_OVERHEAD_S] * new
        await asyncio.sleep(REQUEST_OVERHEAD_S)
        return Answer(sent_s, tuple(times))


def profile_of(limits: ServerLimits = LIMITS) -> ServerProfile:
    profile = analytical_profile(LLAMA_3_1_8B, H100, 1)
    blocks = limits.kv_tokens // 16
    return profile.model_copy(
        update={"kv_cache": KvCache(num_gpu_blocks=blocks, block_size=16, max_tokens=blocks * 16)}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    fit: StepTimeFit
    samples: tuple[StepSample, ...]
    notes: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    took_s: float


@pytest.fixture
def truth() -> StepTimeModel:
    """The step times of the emulated server."""
    return TRUTH


@pytest.fixture
def limits() -> ServerLimits:
    """What the emulated server holds."""
    return LIMITS


@pytest.fixture
def request_overhead_s() -> float:
    """What a request to the emulated server takes beside its iterations."""
    return REQUEST_OVERHEAD_S


@pytest.fixture
def on_emulated(tmp_path: Path) -> Callable[..., Any]:
    """Run `work(target, session)` against an emulated server in virtual time, with a journal in `tmp_path`."""

    def run(
        work: Callable[[EmulatedTarget, Session], Awaitable[Any]],
        *,
        plan: MeasurementPlan | None = None,
        step_time: Any = TRUTH,
        journal: str = "journal",
        broken_over_tokens: int = 10**9,
    ) -> Any:
        async def main() -> Any:
            target = EmulatedTarget(step_time)
            target.broken_over_tokens = broken_over_tokens
            await target.start()
            kept = Journal(tmp_path / journal, {"server": "emulated"})
            with kept.writing():
                session = Session(
                    target,
                    LIMITS,
                    plan or MeasurementPlan(budget_s=3600),
                    kept,
                    now_s=target.clock.now_s,
                    started_s=0.0,
                    tell=unheard,
                )
                return await work(target, session)

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(main())

    return run


@pytest.fixture
def measured(on_emulated: Callable[..., Any]) -> Callable[..., Outcome]:
    """Measure the iterations of an emulated server from first to last."""

    async def work(target: EmulatedTarget, session: Session) -> Outcome:
        iterations = Iterations(session)
        fit = await iterations.measure()
        return Outcome(
            fit=fit,
            samples=tuple(iterations.samples),
            notes=session.notes,
            prompts=tuple(target.prompts),
            took_s=target.clock.now_s(),
        )

    def measure(**options: Any) -> Outcome:
        outcome: Outcome = on_emulated(work, **options)
        return outcome

    return measure

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
from profiler.profile_parts import StepSample
from profiler.progress import unheard
from profiler.session import Session
from profiler.step_time import StepTimeModel
from testbed.emulated_target import EmulatedAnswer, EmulatedTarget
from testbed.virtual_time import VirtualTimeLoop

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


class WatchedTarget(EmulatedTarget):
    """Keeps every prompt; one of more than `broken_over_tokens` is not answered."""

    def __init__(self, step_time: Any, broken_over_tokens: int, **given: Any) -> None:
        profile = analytical_profile(LLAMA_3_1_8B, H100, 1).model_copy(update={"step_time": step_time})
        super().__init__(profile, LIMITS, REQUEST_OVERHEAD_S, **given)
        self.prompts: list[tuple[int, ...]] = []
        self._broken_over_tokens = broken_over_tokens

    async def complete(self, prompt_token_ids: Sequence[int], max_tokens: int, **options: Any) -> EmulatedAnswer:
        self.prompts.append(tuple(prompt_token_ids))
        if len(prompt_token_ids) > self._broken_over_tokens:
            return EmulatedAnswer(self.clock.now_s(), (), "out of memory")
        return await super().complete(prompt_token_ids, max_tokens, **options)


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
    """Run `work(target, session)` against an emulated server in virtual time, with a journal in `tmp_path`.

    What is given beside goes to the target.
    """

    def run(
        work: Callable[[WatchedTarget, Session], Awaitable[Any]],
        *,
        plan: MeasurementPlan | None = None,
        step_time: Any = TRUTH,
        journal: str = "journal",
        broken_over_tokens: int = 10**9,
        **given: Any,
    ) -> Any:
        async def main() -> Any:
            target = WatchedTarget(step_time, broken_over_tokens, **given)
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

    async def work(target: WatchedTarget, session: Session) -> Outcome:
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

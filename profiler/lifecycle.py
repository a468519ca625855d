"""How long a server takes to start, stop, sleep, wake and drain, and what memory it holds meanwhile.

Every step is a function of its own that returns plain values, so that a measurement that was broken off can go on
behind the steps it has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from profiler.launch import Launched, Level, State
from profiler.profile_parts import Lifecycle, MemoryHeld, SleepLevel
from profiler.random_prompts import RandomPrompts
from profiler.target import MeasurementError, Target

LEVELS: tuple[Level, ...] = (1, 2)

# Memory counts as settled when two readings this far apart differ by less than this share, or after so many.
_SETTLE_EVERY_S = 0.5
_SETTLED = 0.01
_SETTLE_READINGS = 20
# A request that shows that a server answers.
_PROBE_PROMPT_TOKENS = 16

AnswersOnce = Callable[[], Awaitable[str | None]]
"""Sends one short request; None when it was answered, else why not, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """A cold start, a stop, and a start with what the first one compiled; memory when READY and when stopped."""

    cold_start_s: float
    stop_s: float
    warm_start_s: float
    ready: MemoryHeld
    stopped: MemoryHeld


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """One sleep and what followed: how long both took, and what was held in between."""

    times: SleepLevel
    memory: MemoryHeld


class KeptLoad(Protocol):
    """Keeps load on a server until `over` is set, then sends no more and returns when all is answered.

    Sets `full` once the load is what it is to be, or cannot be. Returns the faults of requests, one line each.
    """

    async def __call__(self, full: asyncio.Event, over: asyncio.Event) -> Sequence[str]: ...


async def measure_starts(launched: Launched) -> Starts:
    """Cold start, stop, warm start; the server runs afterwards. It must not run before."""
    cold_start_s = await launched.start(empty_cache=True)
    stop_s, stopped = await measure_stop(launched)
    warm_start_s = await launched.start(empty_cache=False)
    return Starts(
        cold_start_s=cold_start_s,
        stop_s=stop_s,
        warm_start_s=warm_start_s,
        ready=await settled_memory(launched, "ready"),
        stopped=stopped,
    )


async def measure_stop(launched: Launched) -> tuple[float, MemoryHeld]:
    """Stop a server that has nothing in flight: seconds, and what is still held then."""
    stop_s = await launched.stop()
    return stop_s, launched.memory("stopped")


async def measure_sleep(launched: Launched, answers: AnswersOnce) -> tuple[Slept, ...]:
    """Levels 1 and 2, one after the other; empty for a server that cannot sleep. Raises as `sleep_once`."""
    return tuple([await sleep_once(launched, level, answers) for level in LEVELS if launched.can_sleep])


async def sleep_once(launched: Launched, level: Level, answers: AnswersOnce) -> Slept:
    """Sleep, memory once it has settled, wake, one request. Raises MeasurementError when that is not answered."""
    sleep_s = await launched.sleep(level)
    memory = await settled_memory(launched, "sleeping level 1" if level == 1 else "sleeping level 2")
    wake_s = await launched.wake()
    fault = await answers()
    if fault is not None:
        raise MeasurementError(
            f"the server does not answer after sleep level {level}: {fault}; see {launched.log_folder}"
        )
    return Slept(times=SleepLevel(level=level, sleep_s=sleep_s, wake_s=wake_s), memory=memory)


async def settled_memory(launched: Launched, state: State) -> MemoryHeld:
    """What the server holds once that has stopped changing, after 10 s at the latest."""
    held = launched.memory(state)
    for _ in range(_SETTLE_READINGS):
        await asyncio.sleep(_SETTLE_EVERY_S)
        before, held = held, launched.memory(state)
        if _alike(before.gpu_bytes, held.gpu_bytes) and _alike(before.host_bytes, held.host_bytes):
            break
    return held


async def measure_drain(keep_load: KeptLoad, clock: Callable[[], float]) -> float:
    """Seconds from the order to take no more requests until those under way have ended, under a load that is full.

    The server runs on. Raises MeasurementError when a request failed: then fewer were under way than should have been.
    """
    full, over = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        load = tasks.create_task(keep_load(full, over), name="load to drain")
        await full.wait()
        ordered_s = clock()
        over.set()
    drain_s = clock() - ordered_s
    if faults := load.result():
        raise MeasurementError(f"drain: {len(faults)} requests failed, the first: {faults[0]}")
    return drain_s


def in_flight(
    target: Target, prompts: RandomPrompts, *, concurrency: int, prompt_tokens: int, output_tokens: int
) -> KeptLoad:
    """Load that keeps `concurrency` requests in flight. Their answers are spread evenly over their length: the first
    of the n-th of them has n / `concurrency` of `output_tokens`. Full when each has had its first."""

    async def keep(full: asyncio.Event, over: asyncio.Event) -> Sequence[str]:
        faults: list[str] = []
        filling = set(range(concurrency))

        async def one(slot: int) -> None:
            tokens = -(-output_tokens * (slot + 1) // concurrency)
            while not over.is_set():
                prompt = prompts.fresh(prompt_tokens)
                answer = await target.complete(prompt, tokens, request_id=prompts.request_id())
                if answer.error is not None:
                    faults.append(answer.error)
                    full.set()
                    return
                tokens = output_tokens
                filling.discard(slot)
                if not filling:
                    full.set()

        async with asyncio.TaskGroup() as slots:
            for slot in range(concurrency):
                slots.create_task(one(slot))
        return faults

    return keep


def one_answer(target: Target, prompts: RandomPrompts) -> AnswersOnce:
    """A short request to `target` whose prompt no cache has."""

    async def ask() -> str | None:
        prompt = prompts.fresh(_PROBE_PROMPT_TOKENS)
        return (await target.complete(prompt, 1, request_id=prompts.request_id())).error

    return ask


def compose(starts: Starts | None, slept: Sequence[Slept] = (), drain_s: float | None = None) -> Lifecycle:
    """What a profile says of a server's life; what was not measured stays None."""
    return Lifecycle(
        cold_start_s=starts.cold_start_s if starts else None,
        warm_start_s=starts.warm_start_s if starts else None,
        drain_s=drain_s,
        stop_s=starts.stop_s if starts else None,
        sleep=tuple(each.times for each in slept),
        memory=(
            *((starts.ready,) if starts else ()),
            *(each.memory for each in slept),
            *((starts.stopped,) if starts else ()),
        ),
    )


def _alike(before: int | None, after: int | None) -> bool:
    if before is None or after is None:
        return before is after
    return abs(after - before) <= _SETTLED * max(before, after)

"""How a server's life is measured, on one that does as it is told, in virtual time."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from profiler.launch import Launched, Level, State
from profiler.lifecycle import compose, in_flight, measure_drain, measure_sleep, measure_starts, one_answer
from profiler.profile_parts import Lifecycle, MemoryHeld, SleepLevel
from profiler.random_prompts import RandomPrompts
from profiler.target import MeasurementError
from testbed.virtual_time import VirtualTimeLoop

GIB = 2**30


def virtually(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


class TimedServer:
    """Takes 40 s to start cold and 15 s warm; what it frees when it goes to sleep comes back over 2 s."""

    base_url = "http://127.0.0.1:1"
    log_folder = Path("logs")

    def __init__(self, can_sleep: bool = True) -> None:
        self.can_sleep = can_sleep
        self.compiled = False
        self.running = False
        self.done: list[str] = []
        self.freed_s: float | None = None

    async def _take(self, what: str, seconds: float) -> float:
        self.done.append(what)
        await asyncio.sleep(seconds)
        return seconds

    async def start(self, *, empty_cache: bool) -> float:
        assert not self.running
        self.running = True
        cold = empty_cache or not self.compiled
        self.compiled = True
        return await self._take("cold start" if cold else "warm start", 40.0 if cold else 15.0)

    async def stop(self) -> float:
        self.running = False
        return await self._take("stop", 3.0)

    async def sleep(self, level: Level) -> float:
        took_s = await self._take(f"sleep {level}", 2.0 * level)
        self.freed_s = asyncio.get_running_loop().time()
        return took_s

    async def wake(self) -> float:
        self.freed_s = None
        return await self._take("wake", 0.5)

    def memory(self, state: State) -> MemoryHeld:
        if not self.running:
            return MemoryHeld(state=state, gpu_bytes=0, host_bytes=0)
        gpu_bytes = 80 * GIB
        if self.freed_s is not None:
            since_s = asyncio.get_running_loop().time() - self.freed_s
            gpu_bytes = int(max(4.0, 80 - 38 * since_s) * GIB)
        return MemoryHeld(state=state, gpu_bytes=gpu_bytes, host_bytes=6 * GIB)


@dataclass(frozen=True)
class Answer:
    sent_s: float
    token_times_s: Sequence[float]
    error: str | None = None


class TokenPerTenth:
    """Answers with ten tokens per second, however many it is asked for at a time; `fails_after` requests it fails."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.in_flight = 0
        self.served = 0
        self.asked: list[int] = []
        self._fails_after = fails_after

    async def complete(
        self, prompt_token_ids: Sequence[int], max_tokens: int, *, request_id: str, priority: int | None = None
    ) -> Answer:
        self.asked.append(max_tokens)
        if self._fails_after is not None and len(self.asked) > self._fails_after:
            return Answer(sent_s=0.0, token_times_s=(), error="HTTP 500: engine dead")
        self.in_flight += 1
        await asyncio.sleep(max_tokens / 10)
        self.in_flight -= 1
        self.served += 1
        return Answer(sent_s=0.0, token_times_s=(1.0,))


async def _answered() -> str | None:
    return None


def test_a_start_is_measured_cold_and_then_with_what_it_compiled() -> None:
    server = TimedServer()
    launched: Launched = server
    starts = virtually(measure_starts(launched))
    assert server.done == ["cold start", "stop", "warm start"]
    assert (starts.cold_start_s, starts.stop_s, starts.warm_start_s) == (40.0, 3.0, 15.0)
    assert starts.ready == MemoryHeld(state="ready", gpu_bytes=80 * GIB, host_bytes=6 * GIB)
    assert starts.stopped == MemoryHeld(state="stopped", gpu_bytes=0, host_bytes=0)
    assert server.running


async def _started(server: TimedServer) -> TimedServer:
    await server.start(empty_cache=True)
    return server


def test_memory_of_a_sleeping_server_is_read_once_it_has_stopped_falling() -> None:
    async def sleeps() -> Any:
        return await measure_sleep(await _started(server), _answered)

    server = TimedServer()
    slept = virtually(sleeps())
    assert server.done == ["cold start", "sleep 1", "wake", "sleep 2", "wake"]
    assert [each.times for each in slept] == [
        SleepLevel(level=1, sleep_s=2.0, wake_s=0.5),
        SleepLevel(level=2, sleep_s=4.0, wake_s=0.5),
    ]
    assert [each.memory.state for each in slept] == ["sleeping level 1", "sleeping level 2"]
    assert [each.memory.gpu_bytes for each in slept] == [4 * GIB, 4 * GIB]


def test_a_server_that_cannot_sleep_is_left_alone() -> None:
    server = TimedServer(can_sleep=False)
    assert virtually(measure_sleep(server, _answered)) == ()
    assert server.done == []


def test_a_server_that_does_not_answer_after_it_woke_is_no_measurement() -> None:
    async def sleeps() -> Any:
        target = TokenPerTenth(fails_after=0)
        return await measure_sleep(await _started(TimedServer()), one_answer(target, RandomPrompts(1, 1)))

    with pytest.raises(MeasurementError, match="does not answer after sleep level 1: HTTP 500: engine dead; see logs"):
        virtually(sleeps())


def _drain(target: TokenPerTenth, concurrency: int, output_tokens: int) -> float:
    async def drain() -> float:
        load = in_flight(
            target, RandomPrompts(1, 1), concurrency=concurrency, prompt_tokens=8, output_tokens=output_tokens
        )
        return await measure_drain(load, asyncio.get_running_loop().time)

    seconds: float = virtually(drain())
    return seconds


def test_a_drain_lasts_until_the_last_of_the_requests_under_way_has_its_answer() -> None:
    target = TokenPerTenth()
    drain_s = _drain(target, concurrency=4, output_tokens=100)
    # The youngest of four evenly spread answers of 10 s has them still before it, or most of a quarter less.
    assert 7.5 <= drain_s <= 10.0
    assert target.in_flight == 0
    assert target.served == len(target.asked)


def test_answers_under_way_are_spread_over_their_length_when_the_order_comes() -> None:
    target = TokenPerTenth()
    _drain(target, concurrency=4, output_tokens=100)
    assert target.asked[:4] == [25, 50, 75, 100]
    assert set(target.asked[4:]) == {100}


def test_more_requests_at_once_than_answers_have_tokens_can_be_drained() -> None:
    target = TokenPerTenth()
    assert 0 <= _drain(target, concurrency=16, output_tokens=4) <= 0.4
    assert min(target.asked) == 1


def test_a_drain_of_a_server_that_fails_requests_is_no_measurement() -> None:
    with pytest.raises(MeasurementError, match="drain: 4 requests failed, the first: HTTP 500: engine dead"):
        _drain(TokenPerTenth(fails_after=0), concurrency=4, output_tokens=10)
    with pytest.raises(MeasurementError, match=r"drain: \d requests failed"):
        _drain(TokenPerTenth(fails_after=6), concurrency=4, output_tokens=10)


def test_what_was_not_measured_is_absent_from_a_servers_life() -> None:
    assert compose(None) == Lifecycle()

    async def whole() -> Lifecycle:
        server = TimedServer()
        return compose(await measure_starts(server), await measure_sleep(server, _answered), 7.0)

    life = virtually(whole())
    assert (life.cold_start_s, life.warm_start_s, life.drain_s, life.stop_s) == (40.0, 15.0, 7.0, 3.0)
    assert [held.state for held in life.memory] == ["ready", "sleeping level 1", "sleeping level 2", "stopped"]
    assert [each.level for each in life.sleep] == [1, 2]

"""Replay: every request at its time, turns after their answers, none lost, none twice."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.virtual_time import VirtualTimeLoop
from workloads.clock import RunClock
from workloads.replay import Replay
from workloads.request import Request
from workloads.sessions import replay_plan, requests_of
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

NAN = float("nan")


def trace(arrival_s: list[float], block_tokens: int | None = None, **columns: Any) -> Trace:
    """Requests 0, 1, ... of one model, 100 tokens each, with these optional columns."""
    n = len(arrival_s)
    return Trace.from_columns(
        request_id=np.arange(n),
        arrival_s=np.array(arrival_s),
        model=["m"] * n,
        region=["west"] * n,
        tier=["NIW"] * n,
        prompt_tokens=np.full(n, 100, dtype=np.int32),
        output_tokens=np.full(n, 10, dtype=np.int32),
        deadline_s=np.array(arrival_s) + 50.0,
        metadata=TraceMetadata(horizon_s=max(arrival_s), prefix_block_tokens=block_tokens),
        optional=columns,
    )


def replayed(
    given: Trace,
    answer_s: Callable[[Request], float] = lambda _: 1.0,
    submit: Callable[[RunClock, Request], None] = lambda *_: None,
) -> tuple[list[tuple[float, Request]], Replay]:
    """When each request was handed over, in virtual time, if each is answered `answer_s` later."""
    handed_over: list[tuple[float, Request]] = []

    async def run() -> Replay:
        clock = RunClock()
        plan = replay_plan(given)
        loop = asyncio.get_running_loop()

        def take(request: Request) -> None:
            handed_over.append((clock.now_s(), request))
            submit(clock, request)
            loop.call_later(answer_s(request), replay.ended, request.request_id)

        replay = Replay(plan.scheduled, take, clock, plan.following)
        await replay.run()
        return replay

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        replay = runner.run(run())
    return handed_over, replay


def times(handed_over: list[tuple[float, Request]]) -> Mapping[int, float]:
    return {request.request_id: at_s for at_s, request in handed_over}


def test_requests_go_out_at_their_time_whatever_becomes_of_the_others() -> None:
    handed_over, replay = replayed(trace([0.0, 1.0, 1.0, 7.5]), answer_s=lambda _: 1000.0)
    assert times(handed_over) == {0: 0.0, 1: 1.0, 2: 1.0, 3: 7.5}
    assert replay.report().lateness_s.max == 0.0


def test_a_turn_is_due_after_the_answer_and_the_time_its_client_thinks() -> None:
    session = trace([0.0, 2.0, 3.0], session=[4, 4, -1], turn=[1, 2, 0], think_s=[NAN, 5.0, NAN])
    handed_over, _ = replayed(session, answer_s=lambda request: 10.0)
    assert times(handed_over) == {0: 0.0, 2: 3.0, 1: 15.0}
    assert handed_over[-1][1].arrival_s == 15.0
    assert handed_over[-1][1].deadline_s == 65.0, "52 s in the trace, 13 s later than there"


def test_a_fast_answer_brings_the_next_turn_forward() -> None:
    session = trace([0.0, 20.0], session=[4, 4], turn=[1, 2], think_s=[NAN, 5.0])
    assert times(replayed(session)[0]) == {0: 0.0, 1: 6.0}


@pytest.mark.parametrize(("answer_s", "due_s"), [(1.0, 20.0), (30.0, 30.0)])
def test_a_turn_of_unknown_thinking_keeps_its_time_but_waits_for_the_answer(answer_s: float, due_s: float) -> None:
    session = trace([0.0, 20.0], session=[4, 4], turn=[1, 2])
    assert times(replayed(session, answer_s=lambda _: answer_s)[0])[1] == due_s


def test_turns_that_were_not_handed_over_are_known() -> None:
    session = trace([0.0, 1.0, 2.0], session=[4, 4, 4], turn=[1, 2, 3], think_s=[NAN, 5.0, 5.0])

    async def run() -> list[Request]:
        plan = replay_plan(session)
        replay = Replay(plan.scheduled, lambda _: None, RunClock(), plan.following)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1000.0):
                await replay.run()
        return replay.unsent_turns()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        unsent = runner.run(run())
    assert [request.request_id for request in unsent] == [1, 2]


def test_lateness_counts_from_the_schedule() -> None:
    async def run() -> Replay:
        loop = asyncio.get_running_loop()

        def hold_up(request: Request) -> None:
            until_s = loop.time() + (0.05 if request.request_id == 0 else 0.0)
            while loop.time() < until_s:
                pass

        replay = Replay(trace([0.0, 0.01, 0.02, 0.09]).requests(), hold_up, RunClock())
        await replay.run()
        return replay

    with asyncio.Runner() as runner:
        report = runner.run(run()).report()
    assert report.handed_over == 4
    assert 0.035 < report.lateness_s.max < 0.06, "the second was due 40 ms before the first let go"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 20), st.sampled_from([NAN, 0.0, 3.0])), max_size=25))
def test_every_request_is_handed_over_once_and_no_turn_before_its_answer(rows: list[tuple[int, int, float]]) -> None:
    if not rows:
        return
    rows.sort(key=lambda row: row[1])
    session = [row[0] for row in rows]
    turn = [0 if s < 0 else 1 + session[:i].count(s) for i, s in enumerate(session)]
    given_trace = trace([float(row[1]) for row in rows], session=session, turn=turn, think_s=[row[2] for row in rows])
    handed_over, _ = replayed(given_trace, answer_s=lambda request: 1.0 + request.request_id % 7)
    assert sorted(request.request_id for _, request in handed_over) == list(range(len(rows)))
    at_s = times(handed_over)
    for row, (number, arrival_s, think_s) in enumerate(rows):
        before = [i for i in range(row) if number >= 0 and session[i] == number]
        if not before:
            assert at_s[row] == arrival_s
        else:
            answered_s = at_s[before[-1]] + 1.0 + before[-1] % 7
            assert at_s[row] >= answered_s + (0.0 if np.isnan(think_s) else think_s)


def test_requests_carry_what_the_trace_says_of_prefixes_and_giving_up() -> None:
    hashes = pa.array([[1, 2], []], pa.list_(pa.int64()))
    given_trace = trace([0.0, 1.0], block_tokens=64, prefix_hashes=hashes, cancel_after_s=[NAN, 2.5])
    first, second = requests_of(given_trace)
    assert (first.prefix_hashes, first.prefix_block_tokens, first.cancel_after_s) == ((1, 2), 64, None)
    assert (second.prefix_hashes, second.cancel_after_s) == ((), 2.5)

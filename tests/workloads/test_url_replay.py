"""A trace replayed over HTTP: exact counts, truthful times, one end for every request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web

from benchmarks.load.mock_server import serving
from workloads.client import StreamResult
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.real_time_loop import real_time_loop
from workloads.sessions import replay_plan
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata
from workloads.url_replay import INTERRUPTED, ReplayTarget, UrlReplay

Ended = list[tuple[Completion, StreamResult | None]]


def trace(arrival_s: list[float], tokens: list[int], **columns: Any) -> Trace:
    n = len(arrival_s)
    return Trace.from_columns(
        request_id=np.arange(n),
        arrival_s=np.array(arrival_s),
        model=["m"] * n,
        region=["west"] * n,
        tier=["IW-F"] * n,
        prompt_tokens=np.full(n, 20, dtype=np.int32),
        output_tokens=np.array(tokens, dtype=np.int32),
        deadline_s=np.full(n, np.nan),
        metadata=TraceMetadata(horizon_s=max(arrival_s)),
        optional=columns,
    )


async def replayed(given: Trace, url: str, **changes: Any) -> tuple[Ended, UrlReplay]:
    ended: Ended = []
    target = ReplayTarget(base_url=url, model="mock", vocab_size=1000, **changes)
    replay = UrlReplay(
        replay_plan(given), target, RunClock(), lambda completion, result: ended.append((completion, result))
    )
    await replay.run()
    return ended, replay


def run(coroutine: Any) -> Any:
    with asyncio.Runner(loop_factory=real_time_loop) as runner:
        return runner.run(coroutine)


def test_every_request_ends_once_with_its_tokens_at_the_times_at_which_they_were_written() -> None:
    arrival_s = np.cumsum(np.random.default_rng(1).exponential(0.005, 100)).tolist()
    tokens = (1 + np.arange(100) % 9).tolist()

    async def both() -> tuple[Ended, UrlReplay, bytes]:
        async with serving(ttft_s=0.02, itl_s=0.005) as (url, server):
            ended, replay = await replayed(trace(arrival_s, tokens), url, token_times=True)
            return ended, replay, server.take_times()

    ended, replay, truth = run(both())
    assert sorted(completion.request.request_id for completion, _ in ended) == list(range(100))
    assert {completion.outcome for completion, _ in ended} == {Outcome.COMPLETED}
    assert replay.replay.report().handed_over == 100
    written = _rows(truth)
    late_s, seen_later_s = [], []
    for completion, result in ended:
        assert result is not None
        asked = tokens[completion.request.request_id]
        assert completion.output_tokens == len(result.token_times_s) == asked
        assert list(result.token_times_s) == sorted(result.token_times_s)
        assert (result.first_token_s, result.last_token_s) == (result.token_times_s[0], result.token_times_s[-1])
        late_s.append(completion.sent_s - completion.request.arrival_s)
        # The two clocks differ in their origin alone: a constant, up to what it takes to see a token.
        seen_later_s += (np.array(result.token_times_s) - written[completion.request.request_id]).tolist()
    assert min(late_s) >= 0.0
    assert np.median(late_s) < 0.003
    assert np.quantile(seen_later_s, 0.9) - np.quantile(seen_later_s, 0.1) < 0.005


def _rows(times: bytes) -> dict[int, Any]:
    flat, rows, at = np.frombuffer(times), {}, 0
    while at < len(flat):
        tokens = int(flat[at + 1])
        rows[int(flat[at])] = flat[at + 2 : at + 2 + tokens]
        at += 2 + tokens
    return rows


def test_a_turn_is_sent_after_the_answer_before_it_and_a_client_that_gives_up_fails() -> None:
    session = trace(
        [0.0, 0.01, 0.02],
        [10, 1, 50],
        session=[1, 1, -1],
        turn=[1, 2, 0],
        think_s=[np.nan, 0.05, np.nan],
        cancel_after_s=[np.nan, np.nan, 0.1],
    )

    async def both() -> Ended:
        async with serving(ttft_s=0.02, itl_s=0.01) as (url, _):
            return (await replayed(session, url))[0]

    by_id = {completion.request.request_id: completion for completion, _ in run(both())}
    assert 0.05 <= by_id[1].sent_s - by_id[0].last_token_s < 0.1
    assert by_id[1].request.arrival_s - by_id[0].last_token_s >= 0.05
    assert (by_id[2].outcome, by_id[2].reason) == (Outcome.FAILED, "cancelled by its client after 0.1 s")
    assert 0 < by_id[2].output_tokens < 50


@asynccontextmanager
async def refusing(times: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Says 503 so many times, then answers with one token."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["X-Request-Id"])
        if len(asked) <= times:
            return web.json_response({"error": {"message": "full"}}, status=503)
        event = b'data: {"choices":[{"finish_reason":"length"}],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n'
        return web.Response(body=event)

    app = web.Application()
    app.router.add_post("/v1/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def test_a_refused_request_is_sent_again_only_where_asked(monkeypatch: Any) -> None:
    monkeypatch.setattr("workloads.url_replay.RETRY_AFTER_S", 0.02)

    async def outcome(refusals: int, retries: int) -> tuple[str, int, int]:
        async with refusing(refusals) as (url, asked):
            ended, replay = await replayed(trace([0.0], [1]), url, retries=retries)
        ((completion, _),) = ended
        return completion.outcome.value, len(asked), replay.retried

    assert run(outcome(refusals=1, retries=0)) == ("rejected", 1, 0)
    assert run(outcome(refusals=1, retries=3)) == ("completed", 2, 1)
    assert run(outcome(refusals=9, retries=2)) == ("rejected", 3, 2)


def test_an_interrupted_replay_ends_what_was_under_way() -> None:
    async def interrupted() -> Ended:
        ended: Ended = []
        async with serving(ttft_s=5.0, itl_s=0.01) as (url, _):
            target = ReplayTarget(base_url=url, model="mock", vocab_size=1000)
            plan = replay_plan(trace([0.0, 0.01, 60.0], [2, 2, 2]))
            replay = UrlReplay(plan, target, RunClock(), lambda *end: ended.append(end))
            try:
                async with asyncio.timeout(0.2):
                    await replay.run()
            except TimeoutError:
                pass
        return ended

    ended = run(interrupted())
    assert sorted(completion.request.request_id for completion, _ in ended) == [0, 1]
    assert {(completion.outcome, completion.reason) for completion, _ in ended} == {(Outcome.FAILED, INTERRUPTED)}


def test_an_address_where_nobody_listens_fails_every_request() -> None:
    ended, _ = run(replayed(trace([0.0, 0.0], [1, 1]), "http://127.0.0.1:1"))
    assert [completion.outcome for completion, _ in ended] == [Outcome.FAILED] * 2
    assert all(completion.reason.startswith("cannot connect to http://127.0.0.1:1/v1/") for completion, _ in ended)

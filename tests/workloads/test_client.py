import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from workloads.client import CompletionClient, StreamResult, as_completion
from workloads.completion import Outcome
from workloads.prompts import prompt_ids
from workloads.request import Request, Tier

Answer = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def chunk(total: int, text: str = " x", finish: str | None = None) -> bytes:
    event = {
        "id": "cmpl-1",
        "choices": [{"index": 0, "text": text, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3 + total, "completion_tokens": total},
    }
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def usage_chunk(total: int, cached: int | None = None) -> bytes:
    usage: dict[str, object] = {"prompt_tokens": 3, "completion_tokens": total}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    return b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/completions", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def streaming(*pieces: bytes | float) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that writes each piece and sleeps for each number."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            if isinstance(piece, bytes):
                await response.write(piece)
            else:
                await asyncio.sleep(piece)
        return response

    return handler


async def ask(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], max_tokens: int, timeout_s: float = 5.0
) -> StreamResult:
    clock = asyncio.get_running_loop().time
    async with served(handler) as url, CompletionClient(url, "m", clock, timeout_s, token_times=True) as client:
        return await client.complete([5, 6, 7], max_tokens, request_id="r1")


async def test_each_token_has_the_time_at_which_it_arrived() -> None:
    result = await ask(
        streaming(0.05, chunk(1), 0.1, chunk(2), 0.1, chunk(3, finish="length"), usage_chunk(3), DONE), 3
    )
    assert result.error is None
    assert result.output_tokens == len(result.token_times_s) == 3
    first, second, third = result.token_times_s
    assert 0.04 < first - result.sent_s < 0.15
    assert 0.08 < second - first < 0.2 and 0.08 < third - second < 0.2
    assert (result.first_token_s, result.last_token_s) == (first, third)
    assert result.ended_s >= third


async def test_several_tokens_in_one_event_count_by_usage_and_share_their_time() -> None:
    result = await ask(streaming(chunk(2), 0.05, chunk(9, finish="length"), usage_chunk(9), DONE), 9)
    assert result.error is None
    assert len(result.token_times_s) == 9
    assert len(set(result.token_times_s[:2])) == 1
    assert len(set(result.token_times_s[2:])) == 1
    assert result.token_times_s[2] > result.token_times_s[1]


async def test_an_event_cut_in_two_by_the_network_counts_once() -> None:
    whole = chunk(1) + chunk(2, finish="length") + DONE
    result = await ask(streaming(whole[:70], 0.02, whole[70:200], 0.02, whole[200:]), 2)
    assert result.error is None
    assert result.output_tokens == 2


async def test_a_text_that_looks_like_usage_counts_for_nothing() -> None:
    text = '"completion_tokens": 999, "finish_reason": "abort", "error": {"message": "no"}'
    result = await ask(streaming(chunk(1, text=text), chunk(2, text=text, finish="length"), DONE), 2)
    assert result.error is None
    assert (result.output_tokens, result.finish_reason) == (2, "length")


async def test_tokens_from_the_prefix_cache_are_reported_when_the_server_tells() -> None:
    result = await ask(streaming(chunk(1, finish="length"), usage_chunk(1, cached=2), DONE), 1)
    assert result.cached_tokens == 2
    assert (await ask(streaming(chunk(1, finish="length"), usage_chunk(1), DONE), 1)).cached_tokens is None


async def test_what_is_asked_fixes_prompt_ids_and_token_count() -> None:
    seen: list[tuple[dict[str, object], str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json(), request.headers["X-Request-Id"]))
        return await streaming(chunk(1, finish="length"), DONE)(request)

    clock = asyncio.get_running_loop().time
    async with served(handler) as url, CompletionClient(url + "/", "m", clock, None) as client:
        await client.complete((5, 6), 1, request_id="a")
        await client.complete([7], 1, request_id="b", priority=3)
    (first, first_id), (second, second_id) = seen
    assert (first_id, second_id) == ("a", "b")
    assert first["prompt"] == [5, 6] and first["model"] == "m"
    assert first["max_tokens"] == first["min_tokens"] == 1 and first["ignore_eos"] is True
    assert first["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert "priority" not in first and second["priority"] == 3


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((chunk(2, finish="length"), DONE), "short: 2 of 4 tokens, finish_reason=length"),
        ((chunk(5, finish="length"), DONE), "long: 5 of 4 tokens, finish_reason=length"),
        ((chunk(1, finish="abort"), DONE), "aborted by server after 1 of 4 tokens"),
        ((chunk(3),), "disconnected after 3 tokens: the stream ended without a finish_reason"),
        (
            (chunk(1), b'data: {"error":{"message":"engine\\ndead"}}\n\n', DONE),
            "server error after 1 tokens: engine dead",
        ),
        (
            (b'data: {"choices":[{"text":"a","finish_reason":"length"}]}\n\n', DONE),
            "no token counts in the stream; the server must support stream_options.continuous_usage_stats",
        ),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_says_how(pieces: tuple[bytes, ...], error: str) -> None:
    assert (await ask(streaming(*pieces), 4)).error == error


async def test_a_timeout_keeps_the_tokens_that_came_before_it() -> None:
    result = await ask(streaming(chunk(1), chunk(2), 5.0), 4, timeout_s=0.3)
    assert result.error == "timeout after 0.3 s"
    assert result.output_tokens == len(result.token_times_s) == 2
    assert 0.25 < result.ended_s - result.sent_s < 1.0


async def test_a_server_that_dies_mid_stream_leaves_the_tokens_before_it() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await streaming(chunk(1), chunk(3), 0.05)(request)
        assert request.transport is not None
        request.transport.abort()
        return response

    result = await ask(handler, 8)
    assert result.error is not None and result.error.startswith("disconnected after 3 tokens: ")
    assert result.output_tokens == 3


async def test_an_http_error_carries_its_status_and_message() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "too long\nby 3", "code": 400}}, status=400)

    result = await ask(handler, 1)
    assert result.error == "HTTP 400: too long by 3"
    assert result.http_status == 400 and not result.rejected


async def test_a_port_without_a_server_is_an_error_in_the_result() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response()

    async with served(handler) as url:
        pass
    async with CompletionClient(url, "m", asyncio.get_running_loop().time, 5.0) as client:
        result = await client.complete([5], 1, request_id="r")
    assert result.error is not None and result.error.startswith(f"cannot connect to {url}/v1/completions: ")


async def test_a_kept_connection_that_the_server_closed_costs_no_request() -> None:
    """The raw server answers one request per connection, promises to keep it, and closes it at the next one."""
    connections = 0

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        body = chunk(1, finish="length") + DONE
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(raw, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        CompletionClient(f"http://127.0.0.1:{port}", "m", asyncio.get_running_loop().time, 5.0) as client,
    ):
        results = [await client.complete([5], 1, request_id=str(i)) for i in range(3)]
    assert [result.error for result in results] == [None, None, None]
    assert connections == 3


async def test_a_server_that_closes_a_fresh_connection_is_not_asked_again() -> None:
    connections = 0

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(raw, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        CompletionClient(f"http://127.0.0.1:{port}", "m", asyncio.get_running_loop().time, 5.0) as client,
    ):
        result = await client.complete([5], 1, request_id="r")
    assert result.error is not None and result.error.startswith("disconnected after 0 tokens: ")
    assert connections == 1


async def test_a_cancelled_request_is_cancelled_and_its_connection_closed() -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(chunk(1))
                await asyncio.sleep(0.01)
        except ConnectionError:
            gone.set()
        return response

    clock = asyncio.get_running_loop().time
    async with served(handler) as url, CompletionClient(url, "m", clock, 5.0) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.complete([5], 4, request_id="r")
        async with asyncio.timeout(2):
            await gone.wait()


REQUEST = Request(
    request_id=7, arrival_s=1.0, model="m", region="west", tier=Tier.IW_F, prompt_tokens=3, output_tokens=4
)


def result_with(**changes: object) -> StreamResult:
    values: dict[str, object] = {
        "sent_s": 1.5,
        "first_token_s": 2.0,
        "last_token_s": 3.0,
        "ended_s": 3.5,
        "token_times_s": (2.0, 2.0, 2.5, 3.0),
        "output_tokens": 4,
        "http_status": 200,
    }
    return StreamResult(**{**values, **changes})  # type: ignore[arg-type]


def test_a_completed_request_ends_with_its_last_token() -> None:
    completion = as_completion(REQUEST, result_with(cached_tokens=2), server_id="s1", region="east")
    assert completion.outcome is Outcome.COMPLETED
    assert (completion.sent_s, completion.first_token_s, completion.last_token_s) == (1.5, 2.0, 3.0)
    assert (completion.server_id, completion.region, completion.cached_tokens) == ("s1", "east", 2)


@pytest.mark.parametrize(
    ("status", "tokens", "outcome"),
    [
        (503, 0, Outcome.REJECTED),
        (429, 0, Outcome.REJECTED),
        (400, 0, Outcome.FAILED),
        (500, 0, Outcome.FAILED),
        (None, 0, Outcome.FAILED),
        (200, 2, Outcome.FAILED),
    ],
)
def test_only_a_server_without_room_rejects(status: int | None, tokens: int, outcome: Outcome) -> None:
    result = result_with(http_status=status, output_tokens=tokens, error="because")
    completion = as_completion(REQUEST, result, server_id="s1", region="east")
    assert completion.outcome is outcome
    assert completion.reason == "because"
    assert completion.last_token_s == 3.5
    assert completion.output_tokens == tokens


def test_prompts_differ_between_requests_and_repeat_for_the_same() -> None:
    prompts = [tuple(prompt_ids(i, 16, 2048)) for i in range(200)]
    assert len({prompt[:4] for prompt in prompts}) == 200
    assert prompts[5] == tuple(prompt_ids(5, 16, 2048))


@pytest.mark.parametrize("vocab_size", [8, 100, 2048, 128256])
def test_prompt_ids_keep_clear_of_both_ends_of_the_vocabulary(vocab_size: int) -> None:
    drawn = prompt_ids(1, 5000, vocab_size)
    assert len(drawn) == 5000
    assert min(drawn) >= 2 and max(drawn) < vocab_size - 1
    if vocab_size == 128256:
        # Llama 3 keeps its special tokens from 128,000 on.
        assert max(drawn) < 128_000


@pytest.mark.parametrize(("request_id", "n", "vocab_size"), [(1, 0, 2048), (-1, 4, 2048), (1, 4, 7)])
def test_a_prompt_that_cannot_be_drawn_is_refused(request_id: int, n: int, vocab_size: int) -> None:
    with pytest.raises(ValueError, match="n must be at least 1"):
        prompt_ids(request_id, n, vocab_size)

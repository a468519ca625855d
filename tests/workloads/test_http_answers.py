"""Answers in every shape that HTTP/1.1 allows, and in some that it does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from workloads.client import CompletionClient, StreamResult
from workloads.completion_request import ids_text

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]

EVENTS = (
    b'data: {"choices":[{"text":"a","finish_reason":null}],"usage":{"completion_tokens":1}}\n\n'
    b'data: {"choices":[{"text":"b","finish_reason":"length"}],"usage":{"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%X;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


WITH_LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENTS
CHUNKED = chunked(EVENTS[:50], EVENTS[50:])


class RawServer:
    """Answers the n-th request with the n-th answer, the last for ever; counts connections and keeps requests."""

    def __init__(self, *answers: bytes, close: bool = False, bytes_at_a_time: int | None = None) -> None:
        self.answers = answers
        self.close = close
        self.bytes_at_a_time = bytes_at_a_time
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    @asynccontextmanager
    async def client(self, timeout_s: float | None = 5.0) -> AsyncIterator[CompletionClient]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        clock = asyncio.get_running_loop().time
        async with server, CompletionClient(self.url, "m", clock, timeout_s, token_times=True) as client:
            yield client

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
            except asyncio.IncompleteReadError:
                break
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
            step = self.bytes_at_a_time or len(answer)
            for start in range(0, len(answer), step):
                writer.write(answer[start : start + step])
                await writer.drain()
                if self.bytes_at_a_time:
                    await asyncio.sleep(0)
            if self.close:
                break
        writer.close()


async def ask(server: RawServer, times: int = 1) -> list[StreamResult]:
    async with server.client() as client:
        return [await client.complete([5], 2, request_id=str(number)) for number in range(times)]


@pytest.mark.parametrize("answer", [CHUNKED, WITH_LENGTH, chunked(EVENTS, trailer=b"x-checksum: 1\r\n")])
async def test_an_answer_with_an_end_leaves_the_connection_for_the_next(answer: bytes) -> None:
    server = RawServer(answer)
    results = await ask(server, times=3)
    assert [(result.error, result.output_tokens) for result in results] == [(None, 2)] * 3
    assert server.connections == 1


@pytest.mark.parametrize("answer", [CHUNKED, WITH_LENGTH])
async def test_an_answer_that_arrives_byte_by_byte_is_the_same_answer(answer: bytes) -> None:
    (result,) = await ask(RawServer(answer, bytes_at_a_time=1))
    assert (result.error, result.output_tokens, result.finish_reason) == (None, 2, "length")
    assert len(result.token_times_s) == 2


async def test_an_answer_may_end_with_its_connection() -> None:
    server = RawServer(UNTIL_CLOSE, close=True)
    results = await ask(server, times=2)
    assert [(result.error, result.output_tokens) for result in results] == [(None, 2)] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        WITH_LENGTH.replace(b"content-length", b"Connection: close\r\ncontent-length"),
        WITH_LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_a_connection_that_the_server_will_not_keep_is_not_used_again(answer: bytes) -> None:
    server = RawServer(answer)
    results = await ask(server, times=2)
    assert [result.error for result in results] == [None, None]
    assert server.connections == 2


async def test_an_interim_answer_is_not_the_answer() -> None:
    (result,) = await ask(RawServer(b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED))
    assert (result.error, result.http_status) == (None, 200)


async def test_an_error_body_in_pieces_is_read_whole() -> None:
    body = json.dumps({"error": {"message": "too long"}}).encode()
    answer = chunked(body[:9], body[9:]).replace(b"200 OK", b"400 Bad Request")
    (result,) = await ask(RawServer(answer))
    assert (result.error, result.http_status) == ("HTTP 400: too long", 400)


async def test_an_answer_without_a_body_is_an_error_of_its_status() -> None:
    (result,) = await ask(RawServer(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert result.error is not None and result.error.startswith("HTTP 204")


@pytest.mark.parametrize(
    "answer", [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
)
async def test_what_is_no_http_is_said_to_be_none(answer: bytes) -> None:
    (result,) = await ask(RawServer(answer))
    assert result.error is not None
    assert result.error.startswith("disconnected after 0 tokens: not an HTTP answer: ")


async def test_an_answer_cut_off_in_its_head_or_body_is_a_disconnection() -> None:
    for cut in (20, len(CHUNKED) - 30):
        (result,) = await ask(RawServer(CHUNKED[:cut], close=True))
        assert result.error is not None and result.error.startswith("disconnected after ")


async def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.connection_pool.KEEPALIVE_S", 0.05)
    server = RawServer(CHUNKED)
    async with server.client() as client:
        for number, pause_s in enumerate((0.0, 0.0, 0.1)):
            await asyncio.sleep(pause_s)
            assert (await client.complete([5], 2, request_id=str(number))).error is None
    assert server.connections == 2


async def test_a_connection_on_which_the_server_speaks_unasked_is_not_used_again() -> None:
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"]")
        writer.write(CHUNKED)
        await asyncio.sleep(0.02)
        writer.write(WITH_LENGTH.replace(b"200 OK", b"408 Too Late"))
        await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, CompletionClient(url, "m", asyncio.get_running_loop().time, 5.0) as client:
        for number in range(2):
            assert (await client.complete([5], 2, request_id=str(number))).error is None
            await asyncio.sleep(0.05)
    assert connections == 2


async def test_requests_at_the_same_time_have_a_connection_each_and_leave_them_all_open() -> None:
    server = RawServer(CHUNKED)
    async with server.client() as client:
        for _ in range(2):
            async with asyncio.TaskGroup() as tasks:
                for number in range(5):
                    tasks.create_task(client.complete([5], 2, request_id=str(number)))
    assert server.connections == 5
    assert len(server.requests) == 10


async def test_a_client_that_gives_up_keeps_what_it_had_and_says_so() -> None:
    server = RawServer(CHUNKED[: CHUNKED.index(b"\n\n") + 3])
    async with server.client() as client:
        result = await client.complete([5], 2, request_id="r", cancel_after_s=0.1)
    assert result.error == "cancelled by its client after 0.1 s"
    assert result.output_tokens == 1
    assert 0.09 <= result.ended_s - result.sent_s < 1.0


async def test_closing_the_client_ends_what_is_under_way() -> None:
    server = RawServer(CHUNKED[:40])
    async with server.client() as client, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(client.complete([5], 2, request_id="r"))
        await asyncio.sleep(0.05)
        await client.close()
    assert asking.result().error is not None
    assert asking.result().error.startswith("disconnected after ")


async def test_a_prepared_request_is_what_complete_sends() -> None:
    server = RawServer(CHUNKED)
    async with server.client() as client:
        await client.complete([5, 6], 2, request_id="r", priority=1)
        await client.send(client.prepare([5, 6], 2, request_id="r", priority=1))
    assert server.requests[0] == server.requests[1]
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert json.loads(body)["prompt"] == [5, 6]


async def test_a_server_under_a_path_is_asked_under_that_path() -> None:
    server = RawServer(CHUNKED)
    async with (
        server.client(),
        CompletionClient(f"{server.url}/models/a/", "m", asyncio.get_running_loop().time, 5.0) as client,
    ):
        assert (await client.complete([5], 2, request_id="r")).error is None
    assert server.requests[0].startswith(b"POST /models/a/v1/completions HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be like http://"):
        CompletionClient(url, "m", lambda: 0.0, None)


@pytest.mark.parametrize("ids", [[0], [9, 10, 99, 100], [262_143, 0, 262_144, 1_000_000], [], (3, 4)])
def test_token_ids_are_written_as_json_reads_them(ids: list[int]) -> None:
    assert json.loads(b"[" + ids_text(ids) + b"]") == list(ids)


def test_a_negative_token_id_is_refused() -> None:
    with pytest.raises(ValueError, match="token id -1"):
        ids_text([4, -1])

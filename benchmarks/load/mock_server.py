"""A server that streams completions with a constant TTFT and ITL, cheaply, and remembers when it wrote each token.

It speaks as much of vLLM's `/v1/completions` as the client asks for. `GET /times` hands over, and forgets, what was
written since the last one: float64, for each request its id, the number of its tokens and the CLOCK_MONOTONIC time
just before each was written. `python -m benchmarks.load.mock_server` prints its address and serves until its standard
input ends.
"""

import argparse
import asyncio
import os
import re
import sys
from array import array
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from time import monotonic
from typing import cast

from workloads.real_time_loop import RealTimeLoop

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ID = re.compile(rb"x-request-id: *(\d+)", re.IGNORECASE)
_MAX_TOKENS = re.compile(rb'"max_tokens": *(\d+)')
_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _chunk(event: str) -> bytes:
    body = f"data: {event}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


def _event(choices: str, tokens: int) -> str:
    """Of the length that vLLM's have."""
    return (
        '{"id":"cmpl-8a1f0c6e2d7b4935","object":"text_completion","created":1753000000,"model":"mock",'
        f'"choices":[{choices}],"usage":{{"prompt_tokens":128,"total_tokens":{128 + tokens},'
        f'"completion_tokens":{tokens}}}}}'
    )


@cache
def _token(tokens: int, asked: int) -> bytes:
    """What is written for token number `tokens` of `asked`; the last brings the end with it."""
    finish = '"length"' if tokens == asked else "null"
    choice = (
        f'{{"index":0,"text":" hello","logprobs":null,"finish_reason":{finish},"stop_reason":null,'
        '"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null}'
    )
    chunk = _chunk(_event(choice, tokens))
    return chunk + _chunk(_event("", tokens)) + _chunk("[DONE]") + b"0\r\n\r\n" if tokens == asked else chunk


class _Answer:
    """One request being answered; `times` are its id, its number of tokens and when each was written."""

    __slots__ = ("asked", "descriptor", "due_s", "sent", "times", "transport")

    def __init__(self, transport: asyncio.Transport, request_id: float, asked: int, due_s: float) -> None:
        self.transport = transport
        self.descriptor = transport.get_extra_info("socket").fileno()
        self.asked = asked
        self.sent = 0
        self.due_s = due_s
        self.times = array("d", (request_id, asked))


class MockServer:
    """Every answer's first token comes `ttft_s` after the request, each other `itl_s` after the one before was due.

    Both waits are the same for all, so two queues in order of arrival are two queues in order of time.
    """

    def __init__(self, ttft_s: float, itl_s: float) -> None:
        self._ttft_s = ttft_s
        self._itl_s = itl_s
        self._first: deque[_Answer] = deque()
        self._later: deque[_Answer] = deque()
        self._times = bytearray()
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport, request_id: float, asked: int) -> None:
        self._first.append(_Answer(transport, request_id, asked, monotonic() + self._ttft_s))
        if self._alarm is None:
            self._write_due()

    def take_times(self) -> bytes:
        taken, self._times = bytes(self._times), bytearray()
        return taken

    def _write_due(self) -> None:
        first, later = self._first, self._later
        now_s = monotonic()
        while later and later[0].due_s <= now_s:
            now_s = self._write(later.popleft())
        while first and first[0].due_s <= now_s:
            now_s = self._write(first.popleft())
        heads_s = [queue[0].due_s for queue in (first, later) if queue]
        self._alarm = self._loop.call_at(min(heads_s), self._write_due) if heads_s else None

    def _write(self, answer: _Answer) -> float:
        if answer.transport.is_closing():
            return monotonic()
        answer.sent += 1
        now_s = monotonic()
        answer.times.append(now_s)
        token = _token(answer.sent, answer.asked)
        try:
            # Past uvloop's queue, which costs as much as the system call itself. A short write shows as a torn answer.
            os.write(answer.descriptor, token if answer.sent > 1 else _HEAD + token)
        except (BlockingIOError, ConnectionError):
            answer.transport.abort()
        if answer.sent == answer.asked:
            self._times += answer.times.tobytes()
        else:
            answer.due_s += self._itl_s
            self._later.append(answer)
        return now_s


class _Connection(asyncio.Protocol):
    def __init__(self, server: MockServer) -> None:
        self._server = server
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no asyncio class

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        length = _LENGTH.search(received, 0, max(end, 0))
        if end < 0 or (length is not None and len(received) < end + 4 + int(length[1])):
            self._received = received
            return
        self._received = b""
        if received.startswith(b"GET /times"):
            body = self._server.take_times()
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            return
        if received.startswith(b"GET /v1/models"):
            body = b'{"object":"list","data":[{"id":"mock","max_model_len":131072}]}'
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            return
        request_id, asked = _ID.search(received, 0, end), _MAX_TOKENS.search(received, end)
        if request_id is None or asked is None:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            return
        self._server.begin(self._transport, float(request_id[1]), int(asked[1]))


@asynccontextmanager
async def serving(ttft_s: float, itl_s: float) -> AsyncIterator[tuple[str, MockServer]]:
    """A server in this event loop, and its address."""
    server = MockServer(ttft_s, itl_s)
    listening = await asyncio.get_running_loop().create_server(
        lambda: _Connection(server), "127.0.0.1", 0, backlog=4096
    )
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", server
    finally:
        listening.close()


async def _serve(ttft_s: float, itl_s: float) -> None:
    async with serving(ttft_s, itl_s) as (url, _):
        print(url, flush=True)
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), gone.set)
        await gone.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ttft", type=float, default=0.05, metavar="S")
    parser.add_argument("--itl", type=float, default=0.01, metavar="S")
    parser.add_argument("--core", type=int, default=None, help="pin the server to this core")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    with asyncio.Runner(loop_factory=RealTimeLoop) as runner:
        runner.run(_serve(given.ttft, given.itl))


if __name__ == "__main__":
    main()

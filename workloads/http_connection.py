"""One kept HTTP/1.1 connection that carries one POST at a time and hands its answer over piece by piece.

Written for this one exchange because a general client costs more than all the rest of a load generator: measured by
benchmarks/load. The parsing is httptools' (llhttp); what is here is whose turn it is and how an answer may end.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

_NO_BODY = frozenset({204, 304})


class ConnectionLost(ConnectionError):
    """The connection ended before its answer did."""


class AnswerSink(Protocol):
    """What becomes of an answer."""

    def begin(self, status: int) -> None:
        """Its head has arrived."""

    def take(self, piece: bytes, at_s: float) -> None:
        """Some bytes of its body, and when they arrived."""


class HttpConnection(asyncio.Protocol):
    """Free when it has no exchange under way; `lost` once it can carry no other."""

    __slots__ = (
        "_clock", "_ended", "_now_s", "_on_lost", "_parser", "_sink", "_status", "_transport", "_until_close",
        "idle_since_s", "lost", "used",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float], on_lost: Callable[["HttpConnection"], None]) -> None:
        self._clock = clock
        self._on_lost = on_lost
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._sink: AnswerSink | None = None
        self._ended: asyncio.Future[None] | None = None
        self._status = 0
        self._until_close = True
        self._now_s = 0.0
        self.idle_since_s = 0.0
        self.used = False
        self.lost = False

    def post(self, request: bytes, sink: AnswerSink) -> asyncio.Future[None]:
        """Write `request` now. The future is done when its answer is over, or fails with ConnectionLost; whoever waits
        for it no longer is to `abort`."""
        self._sink = sink
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._ended

    def abort(self) -> None:
        """Close at once; an exchange under way ends as lost. Twice is harmless."""
        self.lost = True
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        if self._ended is None:
            self._fail("the server spoke unasked")  # whatever it is, it must not be taken for the next answer
            return
        self._now_s = self._clock()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"not an HTTP answer: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._on_lost(self)
        if error is None and self._status and self._until_close:
            self._finish()  # such a body ends with its connection
        else:
            self._fail(str(error or "") or "the server closed the connection")

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._status = 0
        self._until_close = True

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002 - the parser's signature
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._until_close = False

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._status = status
        if status in _NO_BODY:
            self._until_close = False
        if self._sink is not None and status >= 200:
            self._sink.begin(status)

    def on_body(self, body: bytes) -> None:
        if self._sink is not None:
            self._sink.take(body, self._now_s)

    def on_message_complete(self) -> None:
        if self._status >= 200:  # an interim answer announces another
            if not self._parser.should_keep_alive():
                self.lost = True
                self._transport.close()
            self._finish()

    def _finish(self) -> None:
        ended, self._ended, self._sink = self._ended, None, None
        self.used = True
        if ended is not None and not ended.done():
            ended.set_result(None)

    def _fail(self, why: str) -> None:
        self.lost = True
        ended, self._ended, self._sink = self._ended, None, None
        if ended is not None and not ended.done():
            ended.set_exception(ConnectionLost(why))
        self._transport.abort()

"""Sends completions to a vLLM server over HTTP and times every token, in the event loop's clock."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from workloads.answer import Answer
from workloads.api_key import ApiKey, authorization
from workloads.completion import Completion, Outcome
from workloads.completion_request import PreparedRequest, RequestText
from workloads.connection_pool import ConnectionPool
from workloads.http_connection import ConnectionLost, HttpConnection
from workloads.request import Request
from workloads.shown_url import shown_url

# A server that has no capacity says so with these; the request was never accepted.
_REFUSALS = frozenset({429, 503})

_Exchange = tuple[HttpConnection, asyncio.Future[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """What came back for one request. Times are the clock's seconds.

    `sent_s` is when the request was written to an open connection (for one that never was: when it was given up on).
    `token_times_s` has one entry per output token, in order, where the client was told to keep them, else none; tokens
    that arrived together share theirs.
    `last_token_s` is when the last token arrived (None without one), `ended_s` when the answer was over.
    `cached_tokens`: prompt tokens from the prefix cache, where the server tells (`--enable-prompt-tokens-details`).
    `error` is None when every token asked for arrived, else one line; `http_status` is None when no answer began.
    """

    sent_s: float
    first_token_s: float | None
    last_token_s: float | None
    ended_s: float
    token_times_s: Sequence[float]
    output_tokens: int
    cached_tokens: int | None = None
    finish_reason: str | None = None
    http_status: int | None = None
    error: str | None = None

    @property
    def rejected(self) -> bool:
        """Whether the server refused the request for want of capacity (HTTP 429 or 503) before any token."""
        return self.http_status in _REFUSALS and self.output_tokens == 0


class CompletionClient:
    """Streams `/v1/completions` of one server; connections stay open and are as many as there are requests.

    An async context manager. `clock` gives seconds (`RunClock.now_s`, or the loop's `time`); `timeout_s` bounds a
    whole request, None leaves it free. `token_times` keeps the time of every token, not of the first and last alone.
    `api_key` is shown to the server, and is in nothing that comes back.

    Raises ValueError for a `base_url` that is not http://HOST:PORT or https://HOST, with or without a path.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        clock: Callable[[], float],
        timeout_s: float | None,
        *,
        token_times: bool = False,
        api_key: ApiKey | None = None,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/v1/completions"
        url = urlsplit(self._url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"base_url {shown_url(base_url)!r}; must be like http://127.0.0.1:8000")
        tls = url.scheme == "https"
        self._pool = ConnectionPool(url.hostname, url.port or (443 if tls else 80), tls, clock)
        self._text = RequestText(url, model, authorization(api_key))
        self._api_key = api_key
        self._clock = clock
        self._timeout_s = timeout_s
        self._token_times = token_times
        self._entered = False

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; requests under way end as disconnected. Twice is harmless."""
        self._pool.close()

    async def complete(
        self,
        prompt_token_ids: Sequence[int] | npt.NDArray[np.integer],
        max_tokens: int,
        *,
        request_id: str,
        priority: int | None = None,
        cancel_after_s: float | None = None,
        answer: Answer | None = None,
    ) -> StreamResult:
        """Ask for exactly `max_tokens` tokens and wait for the last. Whatever the server does is in the result.

        `priority` (lower is sooner) needs a server with `--scheduling-policy priority`. The client gives up after
        `cancel_after_s`; a cancelled call, too, closes its connection, by which vLLM frees the request.
        `answer` is where it gathers, for who wants to see it before its end, or has to cancel.
        Raises RuntimeError outside of `async with`.
        """
        prepared = self.prepare(
            prompt_token_ids, max_tokens, request_id=request_id, priority=priority, cancel_after_s=cancel_after_s
        )
        return await self.send(prepared, answer)

    def prepare(
        self,
        prompt_token_ids: Sequence[int] | npt.NDArray[np.integer],
        max_tokens: int,
        *,
        request_id: str,
        priority: int | None = None,
        cancel_after_s: float | None = None,
    ) -> PreparedRequest:
        """The request that `complete` sends, made ahead: then nothing stands between its time and the socket."""
        return self._text.prepare(prompt_token_ids, max_tokens, request_id, priority, cancel_after_s)

    def send(self, request: PreparedRequest, answer: Answer | None = None) -> Coroutine[Any, Any, StreamResult]:
        """Send what was prepared, as `complete` does.

        Where a kept connection is free the request is on its way before this returns: a task that waits for its first
        turn is no cause of delay. What is returned must be awaited.
        """
        if not self._entered:
            raise RuntimeError("CompletionClient: use it as `async with CompletionClient(...) as client`")
        if answer is None:
            answer = Answer(self._clock(), request.max_tokens, self._token_times)
        return self._carry(request, answer, self._post_on_kept(request, answer))

    async def _carry(self, request: PreparedRequest, answer: Answer, exchange: _Exchange | None) -> StreamResult:
        limit_s, why = self._limit(request)
        try:
            async with asyncio.timeout(limit_s) as limit:
                await self._to_its_end(request, answer, exchange)
        except TimeoutError as error:
            # The operating system's own connection timeout is a TimeoutError too.
            answer.error = why if limit.expired() else self._unreachable(error)
        except ConnectionLost as error:
            answer.error = f"disconnected after {answer.stream.output_tokens} tokens: {_reason(error)}"
        except OSError as error:
            answer.error = self._unreachable(error)
        return _result(answer, self._clock(), self._api_key)

    async def _to_its_end(self, request: PreparedRequest, answer: Answer, exchange: _Exchange | None) -> None:
        while True:
            if exchange is None:
                exchange = self._post(await self._pool.connect(), request, answer)
            connection, ended = exchange
            kept = connection.used
            try:
                await ended
            except asyncio.CancelledError:
                connection.abort()
                raise
            except ConnectionLost:
                # A kept connection that the server closed as we sent: nothing was served. Each turn uses up one dead
                # connection; a fresh one that fails is a real failure.
                if answer.status is not None or not kept:
                    raise
                exchange = self._post_on_kept(request, answer)
            else:
                self._pool.give_back(connection)
                return

    def _post_on_kept(self, request: PreparedRequest, answer: Answer) -> _Exchange | None:
        connection = self._pool.take()
        return None if connection is None else self._post(connection, request, answer)

    def _post(self, connection: HttpConnection, request: PreparedRequest, answer: Answer) -> _Exchange:
        answer.sent_s = self._clock()
        return connection, connection.post(request.content, answer)

    def _limit(self, request: PreparedRequest) -> tuple[float | None, str]:
        """How long a request may take, if there is a limit, and what to say when it took longer."""
        gives_up_s = request.cancel_after_s
        if gives_up_s is not None and (self._timeout_s is None or gives_up_s < self._timeout_s):
            return gives_up_s, f"cancelled by its client after {gives_up_s:g} s"
        return self._timeout_s, "" if self._timeout_s is None else f"timeout after {self._timeout_s:g} s"

    def _unreachable(self, error: OSError) -> str:
        return f"cannot connect to {shown_url(self._url)}: {_reason(error)}"


def _result(answer: Answer, ended_s: float, api_key: ApiKey | None) -> StreamResult:
    stream, error = answer.stream, answer.fault()
    return StreamResult(
        sent_s=answer.sent_s,
        first_token_s=answer.first_token_s,
        last_token_s=answer.last_token_s,
        ended_s=ended_s,
        token_times_s=() if answer.times is None else answer.times,
        output_tokens=stream.output_tokens,
        cached_tokens=stream.cached_tokens,
        finish_reason=stream.finish_reason,
        http_status=answer.status,
        error=error if error is None or api_key is None else api_key.hidden_in(error),
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def as_completion(request: Request, result: StreamResult, *, server_id: str, region: str) -> Completion:
    """The Completion of a request that was sent to a server.

    Completed when every token asked for arrived; rejected for HTTP 429 or 503 before any token (the server had no
    room); failed for everything else, a refused connection and other HTTP errors included.
    """
    if result.error is None and result.last_token_s is not None:
        outcome, last_token_s = Outcome.COMPLETED, result.last_token_s
    else:
        outcome = Outcome.REJECTED if result.rejected else Outcome.FAILED
        last_token_s = result.ended_s
    return Completion(
        request=request,
        server_id=server_id,
        region=region,
        sent_s=result.sent_s,
        first_token_s=result.first_token_s,
        last_token_s=last_token_s,
        output_tokens=result.output_tokens,
        outcome=outcome,
        reason=result.error or "",
        cached_tokens=result.cached_tokens,
    )

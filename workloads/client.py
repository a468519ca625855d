"""Sends completions to a vLLM server over HTTP and times every token, in the event loop's clock."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp

from workloads.completion import Completion, Outcome
from workloads.request import Request
from workloads.sse import CompletionStream, error_message

# uvicorn closes an idle connection after 5 s. Dropping it first avoids most sends into a connection that is closing.
_KEEPALIVE_S = 4.0
# A server that has no capacity says so with these; the request was never accepted.
_REFUSALS = frozenset({429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """What came back for one request. Times are the clock's seconds.

    `token_times_s` has one entry per output token, in order; tokens that arrived together share theirs.
    `last_token_s` is when the last token arrived (None without one), `ended_s` when the answer was over.
    `cached_tokens`: prompt tokens from the prefix cache, where the server tells (`--enable-prompt-tokens-details`).
    `error` is None when every token asked for arrived, else one line; `http_status` is None when no answer began.
    """

    sent_s: float
    first_token_s: float | None
    last_token_s: float | None
    ended_s: float
    token_times_s: tuple[float, ...]
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
    whole request, None leaves it free.
    """

    def __init__(self, base_url: str, model: str, clock: Callable[[], float], timeout_s: float | None) -> None:
        self._url = f"{base_url.rstrip('/')}/v1/completions"
        self._model = model
        self._clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
            trace_configs=[trace],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; requests under way end as disconnected. Twice is harmless."""
        if self._session is not None:
            await self._session.close()

    async def complete(
        self,
        prompt_token_ids: Sequence[int],
        max_tokens: int,
        *,
        request_id: str,
        priority: int | None = None,
    ) -> StreamResult:
        """Ask for exactly `max_tokens` tokens and wait for the last. Whatever the server does is in the result.

        `priority` (lower is sooner) needs a server with `--scheduling-policy priority`. A cancelled call closes its
        connection, by which vLLM frees the request. Raises RuntimeError outside of `async with`.
        """
        if self._session is None:
            raise RuntimeError("CompletionClient: use it as `async with CompletionClient(...) as client`")
        answer = _Answer(self._clock(), max_tokens)
        body = _body(self._model, prompt_token_ids, max_tokens, priority)
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                await self._exchange(self._session, body, request_id, answer)
        except TimeoutError as error:
            # The operating system's own connection timeout is a TimeoutError too.
            timed_out = self._timeout_s is not None and limit.expired()
            answer.error = f"timeout after {self._timeout_s:g} s" if timed_out else f"disconnected: {_reason(error)}"
        except aiohttp.ClientConnectorError as error:
            answer.error = f"cannot connect to {self._url}: {_reason(error)}"
        except (aiohttp.ClientError, OSError) as error:
            answer.error = f"disconnected after {answer.stream.output_tokens} tokens: {_reason(error)}"
        return answer.result(self._clock())

    async def _exchange(self, session: aiohttp.ClientSession, body: bytes, request_id: str, answer: "_Answer") -> None:
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        while True:
            connection = SimpleNamespace(reused=False)
            try:
                async with session.post(
                    self._url, data=body, headers=headers, trace_request_ctx=connection
                ) as response:
                    answer.status = response.status
                    await self._read(response, answer)
                return
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A kept connection that the server closed as we sent: nothing was served, and aiohttp does not retry
                # a POST. Each turn uses up one dead connection; a fresh one that fails is a real failure.
                if answer.status is not None or not connection.reused:
                    raise

    async def _read(self, response: aiohttp.ClientResponse, answer: "_Answer") -> None:
        if response.status != 200:
            answer.error = f"HTTP {response.status}: {error_message(await response.content.read())}"
            return
        stream, times = answer.stream, answer.token_times_s
        async for piece in response.content.iter_any():
            new = stream.feed(piece)
            if new:
                times.extend((self._clock(),) * new)


class _Answer:
    """What is known of an answer while it arrives."""

    __slots__ = ("error", "max_tokens", "sent_s", "status", "stream", "token_times_s")

    def __init__(self, sent_s: float, max_tokens: int) -> None:
        self.sent_s = sent_s
        self.max_tokens = max_tokens
        self.stream = CompletionStream()
        self.token_times_s: list[float] = []
        self.status: int | None = None
        self.error: str | None = None

    def result(self, ended_s: float) -> StreamResult:
        times = self.token_times_s
        return StreamResult(
            sent_s=self.sent_s,
            first_token_s=times[0] if times else None,
            last_token_s=times[-1] if times else None,
            ended_s=ended_s,
            token_times_s=tuple(times),
            output_tokens=self.stream.output_tokens,
            cached_tokens=self.stream.cached_tokens,
            finish_reason=self.stream.finish_reason,
            http_status=self.status,
            error=self.error or self._fault(),
        )

    def _fault(self) -> str | None:
        """What is wrong with an answer that came to its end; None when nothing is."""
        stream, wanted = self.stream, self.max_tokens
        if stream.error is not None:
            return f"server error after {stream.output_tokens} tokens: {stream.error}"
        if stream.finish_reason == "abort":
            return f"aborted by server after {stream.output_tokens} of {wanted} tokens"
        if stream.finish_reason is None:
            return f"disconnected after {stream.output_tokens} tokens: the stream ended without a finish_reason"
        if not stream.saw_usage:
            return "no token counts in the stream; the server must support stream_options.continuous_usage_stats"
        if stream.output_tokens != wanted:
            # vLLM 0.32 silently cuts max_tokens at the context's end.
            word = "short" if stream.output_tokens < wanted else "long"
            return f"{word}: {stream.output_tokens} of {wanted} tokens, finish_reason={stream.finish_reason}"
        return None


async def _note_reuse(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True


def _body(model: str, prompt_token_ids: Sequence[int], max_tokens: int, priority: int | None) -> bytes:
    content: dict[str, object] = {
        "model": model,
        "prompt": prompt_token_ids if isinstance(prompt_token_ids, list) else list(prompt_token_ids),
        "max_tokens": max_tokens,
        "min_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if priority is not None:
        content["priority"] = priority
    return json.dumps(content, separators=(",", ":")).encode()


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

"""Puts a server behind vLLM's HTTP API, so that any client of vLLM can talk to an emulated one."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from testbed.metrics_page import metrics_page
from testbed.server import Server, ServerState
from workloads.api_key import ApiKey, is_shown
from workloads.clock import RunClock
from workloads.request import Request, Tier

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TokenStream(Server, Protocol):
    """A server that also tells when each token comes out."""

    def stream(self, request: Request, priority: int = 0) -> AsyncIterator[int]:
        """Yield the number of new tokens whenever some come out. Raises ValueError for a request it refuses."""
        ...


class _Fault(Exception):
    """An answer other than 200, in the words of vLLM's error body."""

    def __init__(self, status: int, kind: str, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": parameter, "code": status}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A body of /v1/completions, as far as an emulated server minds it."""

    prompt_tokens: int
    max_tokens: int
    priority: int
    stream: bool
    include_usage: bool
    continuous_usage_stats: bool


class EmulatedApi:
    """The routes of one server: /health, /v1/models, /v1/completions, /metrics.

    The text of every token is " x". `block_size` is what /metrics tells of the KV cache. With `api_key` who does not
    show it is answered 401 under /v1, as vLLM does it.
    """

    def __init__(
        self,
        server: TokenStream,
        *,
        clock: RunClock,
        max_model_len: int,
        block_size: int = 16,
        api_key: ApiKey | None = None,
    ) -> None:
        self._server = server
        self._api_key = api_key
        self._clock = clock
        self._max_model_len = max_model_len
        self._block_size = block_size
        self._requests = 0
        self._generated_tokens = 0

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._guarded()])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._completions)
        return app

    def _guarded(self) -> Any:
        @web.middleware
        async def guarded(http: web.Request, handler: Handler) -> web.StreamResponse:
            if http.path.startswith("/v1") and not is_shown(self._api_key, http.headers):
                return web.json_response({"error": "Unauthorized"}, status=401)
            return await handler(http)

        return guarded

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._server.state is ServerState.READY else 503)

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._server.spec.model, "object": "model", "owned_by": "sageserve-testbed"}
        return web.json_response({"object": "list", "data": [{**model, "max_model_len": self._max_model_len}]})

    async def _metrics(self, _: web.Request) -> web.Response:
        page = metrics_page(
            await self._server.load(),
            model=self._server.spec.model,
            generated_tokens=self._generated_tokens,
            num_gpu_blocks=self._server.kv_capacity_tokens // self._block_size,
            block_size=self._block_size,
        )
        return web.Response(text=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        number = self._requests
        self._requests += 1
        completion_id = f"cmpl-{http.headers.get('X-Request-Id', number)}"
        try:
            asked = self._read(await http.read())
            request = self._request(number, asked)
            async with aclosing(_closable(self._server.stream(request, asked.priority))) as tokens:
                try:
                    first = await anext(tokens, 0)
                except ValueError as error:
                    raise _Fault(400, "BadRequestError", str(error)) from error
                if asked.stream:
                    return await self._stream(http, completion_id, asked, first, tokens)
                total = first
                async for new in tokens:
                    total += new
                return web.json_response(self._whole(completion_id, asked, total))
        except _Fault as fault:
            return web.json_response(fault.body, status=fault.status)

    def _read(self, body: bytes) -> _Asked:
        """Raises _Fault for what vLLM would refuse."""
        try:
            content = json.loads(body)
        except ValueError as error:
            raise _Fault(400, "BadRequestError", f"the body is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise _Fault(400, "BadRequestError", "the body is no JSON object")
        model = self._server.spec.model
        if content.get("model", model) != model:
            raise _Fault(404, "NotFoundError", f"The model `{content['model']}` does not exist.", "model")
        options = content.get("stream_options") or {}
        asked = _Asked(
            prompt_tokens=_prompt_tokens(content.get("prompt")),
            max_tokens=_whole_number(content, "max_tokens", 16),
            priority=_whole_number(content, "priority", 0),
            stream=bool(content.get("stream", False)),
            include_usage=bool(options.get("include_usage", False)),
            continuous_usage_stats=bool(options.get("continuous_usage_stats", False)),
        )
        if asked.max_tokens < 1:
            raise _Fault(
                400, "BadRequestError", f"max_tokens must be at least 1, got {asked.max_tokens}.", "max_tokens"
            )
        if asked.prompt_tokens + asked.max_tokens > self._max_model_len:
            raise _Fault(
                400,
                "BadRequestError",
                f"This model's maximum context length is {self._max_model_len} tokens. However, you requested "
                f"{asked.max_tokens} output tokens and your prompt contains {asked.prompt_tokens} input tokens.",
                "input_tokens",
            )
        if self._server.state is not ServerState.READY:
            raise _Fault(503, "ServiceUnavailableError", f"server {self._server.server_id} is {self._server.state}")
        return asked

    def _request(self, number: int, asked: _Asked) -> Request:
        return Request(
            request_id=number,
            arrival_s=max(0.0, self._clock.now_s()),
            model=self._server.spec.model,
            region=self._server.spec.region,
            tier=Tier.IW_N,
            prompt_tokens=asked.prompt_tokens,
            output_tokens=asked.max_tokens,
        )

    async def _stream(
        self, http: web.Request, completion_id: str, asked: _Asked, first: int, rest: AsyncIterator[int]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        total, new = 0, first
        while new:
            total += new
            reason = "length" if total >= asked.max_tokens else None
            await response.write(self._event(completion_id, asked, new, total, reason))
            self._generated_tokens += new
            new = await anext(rest, 0)
        if total < asked.max_tokens:  # stopped under way, as vLLM says it
            await response.write(self._event(completion_id, asked, 0, total, "abort"))
        if asked.include_usage:
            usage = self._envelope(completion_id) | {"choices": [], "usage": _usage(asked, total)}
            await response.write(_sse(usage))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    def _event(self, completion_id: str, asked: _Asked, new: int, total: int, reason: str | None) -> bytes:
        choice = {"index": 0, "text": " x" * new, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        event = self._envelope(completion_id) | {"choices": [choice]}
        if asked.continuous_usage_stats:
            event["usage"] = _usage(asked, total)
        return _sse(event)

    def _whole(self, completion_id: str, asked: _Asked, total: int) -> dict[str, Any]:
        self._generated_tokens += total
        reason = "length" if total >= asked.max_tokens else "abort"
        choice = {"index": 0, "text": " x" * total, "logprobs": None, "finish_reason": reason, "stop_reason": None}
        return self._envelope(completion_id) | {"choices": [choice], "usage": _usage(asked, total)}

    def _envelope(self, completion_id: str) -> dict[str, Any]:
        created = int(self._clock.now_s())
        return {
            "id": completion_id,
            "object": "text_completion",
            "created": created,
            "model": self._server.spec.model,
        }


@asynccontextmanager
async def serve(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Listen while the block runs; yields the base URL. Port 0 takes any free one. Raises OSError for one in use."""
    # A client that goes away cancels its handler, which frees the request, as in vLLM.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _closable(tokens: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    """`tokens` as an async generator, whose closing closes it."""
    try:
        async for new in tokens:
            yield new
    finally:
        close = getattr(tokens, "aclose", None)
        if close is not None:
            await close()


def _prompt_tokens(prompt: Any) -> int:
    """Tokens of a prompt: ids as they are, of a text its words (the emulated models have no tokenizer)."""
    if isinstance(prompt, str) and prompt.split():
        return len(prompt.split())
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    raise _Fault(400, "BadRequestError", "prompt must be a text or a list of token ids, and not be empty", "prompt")


def _whole_number(content: dict[str, Any], name: str, default: int) -> int:
    value = content.get(name)
    if value is None:
        return default
    if not isinstance(value, int):
        raise _Fault(400, "BadRequestError", f"{name} must be a whole number, got {value!r}", name)
    return value


def _usage(asked: _Asked, total: int) -> dict[str, int]:
    tokens = asked.prompt_tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens + total, "completion_tokens": total}


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"

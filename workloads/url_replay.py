"""Replays a trace against a running server that is addressed by URL."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from workloads.api_key import ApiKey
from workloads.client import CompletionClient, StreamResult, as_completion
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.completion_request import PreparedRequest
from workloads.prompts import prompt_of
from workloads.replay import Replay
from workloads.request import Request
from workloads.self_watch import SelfWatch
from workloads.sessions import ReplayPlan
from workloads.shown_url import shown_url

# Before a request that was refused is sent again; twice as long each further time.
RETRY_AFTER_S = 1.0
INTERRUPTED = "the replay was interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayTarget:
    """A running OpenAI-compatible server, and how it is asked.

    Prompts are of ids below `vocab_size`. A request that takes longer than `timeout_s` (None: may take any time) fails.
    One that is refused (HTTP 429 or 503) or never gets an answer is sent again, `retries` times at most.
    """

    base_url: str
    model: str
    vocab_size: int
    timeout_s: float | None = None
    retries: int = 0
    token_times: bool = False
    api_key: ApiKey | None = None


OnEnd = Callable[[Completion, StreamResult | None], None]


class UrlReplay:
    """Sends every request of `plan` at its time of `clock`; each ends as exactly one Completion, handed to `on_end`
    with what came back (None for a request that was cut off)."""

    def __init__(self, plan: ReplayPlan, target: ReplayTarget, clock: RunClock, on_end: OnEnd) -> None:
        self._target = target
        self._clock = clock
        self._on_end = on_end
        self._server = urlsplit(shown_url(target.base_url)).netloc  # a password there is nobody's to read
        self._client = CompletionClient(
            target.base_url,
            target.model,
            clock.now_s,
            target.timeout_s,
            token_times=target.token_times,
            api_key=target.api_key,
        )
        self._prepared: dict[int, PreparedRequest] = {}
        self._under_way: dict[int, tuple[Request, float]] = {}
        self._requests = asyncio.TaskGroup()
        self.replay = Replay(plan.scheduled, self._submit, clock, plan.following, self._prepare)
        self.watch = SelfWatch(clock)
        self.retried = 0

    async def run(self) -> None:
        """Returns when every request has ended. Cancelled, it ends those under way as failed and raises."""
        async with asyncio.TaskGroup() as background, self._client:
            heartbeat = background.create_task(self.watch.beat(), name="heartbeat")
            try:
                async with self._requests:
                    await self.replay.run()
            finally:
                heartbeat.cancel()
                for request, begun_s in self._under_way.values():
                    self._on_end(self._interrupted(request, begun_s), None)

    def _prepare(self, request: Request) -> None:
        self._prepared[request.request_id] = self._client.prepare(
            prompt_of(request, self._target.vocab_size),
            request.output_tokens,
            request_id=str(request.request_id),
            cancel_after_s=request.cancel_after_s,
        )

    def _submit(self, request: Request) -> None:
        if request.request_id not in self._prepared:
            self._prepare(request)
        prepared = self._prepared.pop(request.request_id)
        self._under_way[request.request_id] = (request, self._clock.now_s())
        self._requests.create_task(self._carry(request, prepared, self._client.send(prepared)))

    async def _carry(self, request: Request, prepared: PreparedRequest, sent: Awaitable[StreamResult]) -> None:
        """To its end, whatever that is."""
        result = await sent
        for retry in range(self._target.retries):
            if not (result.rejected or (result.error and result.http_status is None and not result.output_tokens)):
                break
            await asyncio.sleep(RETRY_AFTER_S * 2**retry)
            self.retried += 1
            result = await self._client.send(prepared)
        del self._under_way[request.request_id]
        self._on_end(as_completion(request, result, server_id=self._server, region=request.region), result)
        self.replay.ended(request.request_id)

    def _interrupted(self, request: Request, begun_s: float) -> Completion:
        return Completion(
            request=request,
            server_id=self._server,
            region=request.region,
            sent_s=begun_s,
            first_token_s=None,
            last_token_s=self._clock.now_s(),
            output_tokens=0,
            outcome=Outcome.FAILED,
            reason=INTERRUPTED,
        )

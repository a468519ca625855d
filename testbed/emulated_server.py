"""A server without a GPU: the engine of `emulated_engine` on the running event loop's clock, virtual or real."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from profiler.profile import ServerProfile
from testbed.emulated_engine import EmulatedEngine
from testbed.engine_parts import EngineLimits, Sequence
from testbed.lifecycle import Lifecycle, StateListener
from testbed.prefix_cache import PrefixCache
from testbed.server import NOTHING, BreakOff, Ended, Received, ServerLoad, ServerSpec, ServerState
from testbed.step_noise import StepNoise
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request


class Answer(Sequence):
    """A request under way in an emulated server, and who is to hear of its end."""

    __slots__ = ("ended", "request", "sent_s")

    def __init__(self, request: Request, sent_s: float, ended: Ended, priority: int) -> None:
        super().__init__(request.prompt_tokens, request.output_tokens, priority)
        self.request = request
        self.sent_s = sent_s
        self.ended = ended


class EmulatedServer:
    """Continuous batching whose iteration time comes from a `ServerProfile`.

    It takes `start_s` to start, `stop_s` to stop, `sleep_s` to fall asleep and `wake_s` to wake up. A request reaches
    the engine the profile's `request_overhead_s` after it was sent; one of `stream` at once: its client has overheads
    of its own. With `step_by_step` every iteration is an event of its own, which `stream` needs; without it runs of
    decode iterations are one event.
    """

    def __init__(
        self,
        spec: ServerSpec,
        server_id: str,
        *,
        profile: ServerProfile,
        clock: RunClock,
        on_change: StateListener,
        start_s: float,
        stop_s: float,
        sleep_s: float = 0.0,
        wake_s: float = 0.0,
        step_by_step: bool = False,
        noise: StepNoise | None = None,
    ) -> None:
        self.spec = spec
        self.server_id = server_id
        self._start_s = start_s
        self._stop_s = stop_s
        self._sleep_s = sleep_s
        self._wake_s = wake_s
        self._limits = EngineLimits(
            max_num_seqs=spec.max_num_seqs,
            max_num_batched_tokens=spec.max_num_batched_tokens,
            max_model_len=spec.max_model_len or profile.engine.max_model_len or profile.kv_cache.max_tokens,
            num_gpu_blocks=profile.kv_cache.num_gpu_blocks,
            block_size=profile.kv_cache.block_size,
        )
        self._engine: EmulatedEngine[Answer] = EmulatedEngine(
            profile.step_time, self._limits, step_by_step=step_by_step, noise=noise
        )
        self._request_overhead_s = profile.request_overhead_s or 0.0
        # vLLM's default is on, and only traces that number their prefixes notice.
        caches = spec.enable_prefix_caching is not False
        self._prefix_cache = PrefixCache(self._limits.kv_tokens, self._limits.block_size) if caches else None
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lifecycle = Lifecycle(server_id, on_change)
        self._answers: dict[Answer, None] = {}
        self._streams: dict[Answer, asyncio.Queue[int]] = {}
        self._streamed: dict[Answer, int] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def state(self) -> ServerState:
        return self._lifecycle.state

    @property
    def kv_capacity_tokens(self) -> int:
        return self._limits.kv_tokens

    async def start(self) -> None:
        await asyncio.sleep(self._start_s)
        self._lifecycle.to(ServerState.READY)

    def begin(self, request: Request, ended: Ended, priority: int | None = None) -> BreakOff:
        """See `testbed.server.Server`; what is broken off frees its blocks at once."""
        now_s = self._clock.now_s()
        answer = Answer(request, now_s, ended, priority or 0)
        refusal = self._submit(answer, now_s, self._request_overhead_s)
        if refusal:
            # Whoever asks has its hands free before it hears of the end.
            completion = self._ended_early(request, now_s, Outcome.REJECTED, refusal)
            told = self._loop.call_soon(ended, completion)
            return partial(_untold, told)
        return partial(self._drop, answer)

    async def send(self, request: Request, priority: int | None = None) -> Completion:
        """Returns when the last token has come out; a cancelled caller frees the request at once."""
        answered: asyncio.Future[Completion] = self._loop.create_future()
        break_off = self.begin(request, answered.set_result, priority)
        try:
            return await answered
        except asyncio.CancelledError:
            break_off()
            raise

    async def stream(self, request: Request, priority: int = 0) -> AsyncIterator[int]:
        """Yield the number of new tokens whenever some come out. Raises ValueError for a request that is refused."""
        now_s = self._clock.now_s()
        answer = Answer(request, now_s, _nobody, priority)
        refusal = self._submit(answer, now_s)
        if refusal:
            raise ValueError(refusal)
        tokens: asyncio.Queue[int] = asyncio.Queue()
        self._streams[answer] = tokens
        self._streamed[answer] = 0
        seen = 0
        try:
            while seen < request.output_tokens:
                new = await tokens.get()
                if new == 0:
                    return
                seen += new
                yield new
        finally:
            self._drop(answer)

    async def load(self) -> ServerLoad:
        engine, now_s = self._engine, self._clock.now_s()
        engine.catch_up(now_s)
        return ServerLoad(
            at_s=now_s,
            num_requests_running=engine.num_requests_running,
            num_requests_waiting=engine.num_requests_waiting,
            kv_cache_usage=engine.kv_cache_usage,
            num_preemptions_total=engine.preemptions,
            prompt_tokens_total=engine.prompt_tokens_computed,
        )

    async def sleep(self, drain_s: float) -> None:
        self._lifecycle.to(ServerState.DRAINING, "to sleep")
        await self._drain(drain_s)
        await asyncio.sleep(self._sleep_s)
        if self._prefix_cache is not None:
            self._prefix_cache.clear()  # the KV cache is given back
        self._lifecycle.to(ServerState.SLEEPING)

    async def wake(self) -> None:
        self._lifecycle.to(ServerState.STARTING, "waking")
        await asyncio.sleep(self._wake_s)
        self._lifecycle.to(ServerState.READY)

    async def _drain(self, drain_s: float) -> None:
        try:
            async with asyncio.timeout(drain_s):
                await self._empty.wait()
        except TimeoutError:
            self._end_all()

    async def stop(self, drain_s: float) -> None:
        if self.state in (ServerState.STOPPED, ServerState.FAILED):
            return
        if self.state is ServerState.READY:
            self._lifecycle.to(ServerState.DRAINING)
        if self.state is ServerState.DRAINING:
            await self._drain(drain_s)
        if self.state is not ServerState.STOPPING:
            self._lifecycle.to(ServerState.STOPPING)
        await asyncio.sleep(self._stop_s)
        self._lifecycle.to(ServerState.STOPPED)

    def _ended_early(
        self, request: Request, sent_s: float, outcome: Outcome, reason: str, answer: Answer | None = None
    ) -> Completion:
        return Completion(
            request=request,
            server_id=self.server_id,
            region=self.spec.region,
            sent_s=sent_s,
            first_token_s=answer.first_token_s if answer else None,
            last_token_s=self._clock.now_s(),
            output_tokens=self._engine.tokens_made(answer) if answer else 0,
            outcome=outcome,
            reason=reason,
        )

    def _submit(self, answer: Answer, now_s: float, after_s: float = 0.0) -> str:
        """Hand a request to the engine, `after_s` from now. Returns why it is refused, "" when it is not."""
        if self._lifecycle.state is not ServerState.READY:
            return f"server {self.server_id} is {self._lifecycle.state}"
        refusal = self._limits.refusal(answer.prompt_tokens, answer.output_tokens)
        if refusal:
            return refusal
        if not self._answers:
            self._empty.clear()
        self._answers[answer] = None
        if after_s:
            self._loop.call_at(self._clock.loop_time(now_s + after_s), self._arrived, answer)
        else:
            self._hand_over(answer, now_s)
        return ""

    def _arrived(self, answer: Answer) -> None:
        """A request has reached the engine, unless it was broken off on the way."""
        if answer in self._answers:
            self._hand_over(answer, self._clock.now_s())

    def _hand_over(self, answer: Answer, now_s: float) -> None:
        if self._prefix_cache is not None and answer.request.prefix_hashes:
            answer.cached_tokens = self._prefix_cache.take(answer.request)
        engine = self._engine
        engine.submit(answer, now_s)
        if engine.wake_s != self._timer_s or self._timer is None:
            self._set_timer()

    def _drop(self, answer: Answer) -> Received:
        """Forget an answer; nobody waits for it any more. Harmless when it has ended."""
        answer.ended = _nobody
        self._streams.pop(answer, None)
        self._streamed.pop(answer, None)
        if answer not in self._answers:
            return NOTHING
        del self._answers[answer]
        self._engine.abort(answer, self._clock.now_s())
        self._set_timer()
        self._note_empty()
        return Received(answer.first_token_s, self._engine.tokens_made(answer))

    def _end_all(self) -> None:
        """The drain deadline has passed: whoever is left ends now, without its last tokens."""
        now_s = self._clock.now_s()
        self._finish(self._engine.advance(now_s))
        left, self._answers = list(self._answers), {}
        for answer in left:
            self._engine.abort(answer, now_s)
            if answer in self._streams:
                self._streams[answer].put_nowait(0)
            reason = f"server {self.server_id} stopped after {self._engine.tokens_made(answer)} tokens"
            completion = self._ended_early(answer.request, answer.sent_s, Outcome.FAILED, reason, answer)
            # Heard of only when the server's state has changed: room here is no room any more.
            self._loop.call_soon(_tell, answer, completion)
        self._set_timer()
        self._note_empty()

    def _note_empty(self) -> None:
        if not self._answers:
            self._empty.set()

    def _set_timer(self) -> None:
        """One timer, no later than the engine wants to be woken. One that comes sooner is kept: it will see."""
        wake_s, timer = self._engine.wake_s, self._timer
        if wake_s is None or (timer is not None and self._timer_s <= wake_s):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._loop.call_at(self._clock.loop_time(wake_s), self._advance)
        self._timer_s = wake_s

    def _advance(self) -> None:
        self._timer = None
        # The clock may read a hair less than the time the timer was set to.
        finished = self._engine.advance(max(self._clock.now_s(), self._timer_s))
        if self._streams:
            self._feed_streams()
        self._set_timer()
        if finished:
            self._finish(finished)

    def _finish(self, finished: list[Answer]) -> None:
        for answer in finished:
            self._answers.pop(answer, None)
        self._note_empty()
        for answer in finished:
            assert answer.ended_s is not None
            request = answer.request
            answer.ended(
                Completion(
                    request=request,
                    server_id=self.server_id,
                    region=self.spec.region,
                    sent_s=answer.sent_s,
                    first_token_s=answer.first_token_s,
                    last_token_s=answer.ended_s,
                    output_tokens=request.output_tokens,
                    outcome=Outcome.COMPLETED,
                    cached_tokens=answer.cached_tokens if request.prefix_hashes else None,
                )
            )

    def _feed_streams(self) -> None:
        for answer, tokens in self._streams.items():
            made = self._engine.tokens_made(answer)
            new = made - self._streamed[answer]
            if new:
                self._streamed[answer] = made
                tokens.put_nowait(new)


def _nobody(completion: Completion) -> None:
    """Hears of the end of a stream, whose reader has it from the stream itself."""


def _untold(told: asyncio.Handle) -> Received:
    """Nobody hears of a refusal any more."""
    told.cancel()
    return NOTHING


def _tell(answer: Answer, completion: Completion) -> None:
    answer.ended(completion)

"""A server without a GPU: the engine of `emulated_engine` on the running event loop's clock, virtual or real."""

import asyncio
import math
from collections.abc import AsyncIterator
from functools import partial

from mypy_extensions import mypyc_attr

from profiler.profile import ServerProfile
from profiler.profile_parts import schedules_asynchronously
from testbed.emulated_engine import EmulatedEngine
from testbed.engine_parts import EngineLimits, Sequence
from testbed.fault import Fault, FaultKind
from testbed.lifecycle import Lifecycle, StateListener
from testbed.prefix_cache import PrefixCache
from testbed.server import NOTHING, BreakOff, Ended, Received, ServerError, ServerLoad, ServerSpec, ServerState
from testbed.server_pace import Afflictions, ServerTime
from testbed.step_noise import StepNoise
from testbed.token_stream import token_stream
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request

# No fault happens to a server any more.
_GONE = (ServerState.STOPPING, ServerState.STOPPED, ServerState.FAILED)


class Answer(Sequence):
    """A request under way in an emulated server, and who is to hear of its end."""

    __slots__ = ("ended", "request", "sent_s")

    def __init__(self, request: Request, sent_s: float, ended: Ended, priority: int) -> None:
        super().__init__(request.prompt_tokens, request.output_tokens, priority)
        self.request = request
        self.sent_s = sent_s
        self.ended = ended


@mypyc_attr(allow_interpreted_subclasses=True)
class EmulatedServer:
    """Continuous batching whose iteration time comes from a `ServerProfile`.

    It takes `start_s` to start, `stop_s` to stop, `sleep_s` to fall asleep and `wake_s` to wake up. A request reaches
    the engine after the profile's `request_overhead_among_s` of the sequences that run when it is sent; one of `stream`
    at once: its client has overheads of its own. With `step_by_step` every iteration is an event of its own, which
    `stream` needs; without it runs of decode iterations are one event. One that hangs dies of it after
    `health_timeout_s`: whoever asks for its health would have noticed by then. The engine knows the server's own time,
    which is the run's unless a fault slows it down.
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
        health_timeout_s: float = 60.0,
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
            profile.step_time,
            self._limits,
            step_by_step=step_by_step,
            noise=noise,
            async_scheduling=schedules_asynchronously(spec.async_scheduling, profile.gpu.type),
        )
        # By the sequences that run; only the idle server's where no others were measured.
        crowds = range(spec.max_num_seqs + 1 if profile.crowded_requests else 1)
        self._request_overheads_s = [profile.request_overhead_among_s(running) for running in crowds]
        # vLLM's default is on, and only traces that number their prefixes notice.
        caches = spec.enable_prefix_caching is not False
        self._prefix_cache = PrefixCache(self._limits.kv_tokens, self._limits.block_size) if caches else None
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lifecycle = Lifecycle(server_id, on_change)
        self._answers: dict[Answer, None] = {}
        self._streams: dict[Answer, asyncio.Queue[int]] = {}
        self._streamed: dict[Answer, int] = {}
        self._health_timeout_s = health_timeout_s
        self._fails_start = False
        self._afflictions = Afflictions()
        self._time: ServerTime | None = None  # None: nothing has slowed it down yet
        self._hung: asyncio.Handle | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0  # in the server's own time
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def state(self) -> ServerState:
        return self._lifecycle.state

    @property
    def kv_capacity_tokens(self) -> int:
        return self._limits.kv_tokens

    async def start(self) -> None:
        if self._fails_start:
            self._lifecycle.to(ServerState.FAILED, "died at start (killed by SIGKILL)")
            raise ServerError(f"server {self.server_id} ({self.spec.model}) died at start (killed by SIGKILL)")
        await asyncio.sleep(self._start_s)
        self._lifecycle.to(ServerState.READY)

    def begin(self, request: Request, ended: Ended, priority: int | None = None) -> BreakOff:
        """See `testbed.server.Server`; what is broken off frees its blocks at once."""
        now_s = self._clock.now_s()
        answer = Answer(request, now_s, ended, priority or 0)
        overheads_s = self._request_overheads_s
        overhead_s = overheads_s[0]
        if len(overheads_s) > 1:
            self._engine.catch_up(self._own_s(now_s))
            overhead_s = overheads_s[self._engine.num_requests_running]
        refusal = self._submit(answer, now_s, overhead_s)
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

    def stream(self, request: Request, priority: int = 0) -> AsyncIterator[int]:
        """Yield the number of new tokens whenever some come out. Raises ValueError for a request that is refused."""
        now_s = self._clock.now_s()
        answer = Answer(request, now_s, _nobody, priority)
        refusal = self._submit(answer, now_s)
        if refusal:
            raise ValueError(refusal)
        tokens: asyncio.Queue[int] = asyncio.Queue()
        self._streams[answer] = tokens
        self._streamed[answer] = 0
        return token_stream(tokens, request.output_tokens, partial(self._drop, answer))

    async def load(self) -> ServerLoad:
        engine, now_s = self._engine, self._clock.now_s()
        engine.catch_up(self._own_s(now_s))
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
            if self._lifecycle.ended:
                return  # it died meanwhile
        if self.state is not ServerState.STOPPING:
            self._lifecycle.to(ServerState.STOPPING)
        await asyncio.sleep(self._stop_s)
        self._lifecycle.to(ServerState.STOPPED)

    # Faults.

    def inject(self, fault: Fault) -> None:
        """See `testbed.server.Server`. What it still does to stop is not disturbed."""
        if self.state in _GONE:
            return
        if fault.kind is FaultKind.FAIL_START:
            self._fails_start = True
        elif fault.kind is FaultKind.KILL:
            self._die("died (killed by SIGKILL)")
        else:
            self._afflictions.begin(fault.factor)
            self._change_pace()
            if fault.for_s is not None:
                self._loop.call_later(fault.for_s, self._relieve, fault.factor)

    def _relieve(self, factor: float) -> None:
        self._afflictions.end(factor)
        if not self._lifecycle.ended:
            self._change_pace()

    def _change_pace(self) -> None:
        """What was done until now was done at the pace until now."""
        now_s = self._clock.now_s()
        finished = self._engine.advance(self._own_s(now_s))
        if self._time is None:
            self._time = ServerTime()
        self._time.change(now_s, self._afflictions.rate)
        if self._afflictions.rate > 0.0 and self._hung is not None:
            self._hung.cancel()
            self._hung = None
        elif self._afflictions.rate == 0.0 and self._hung is None:
            why = f"hung: no answer to its health check for {self._health_timeout_s:g} s"
            self._hung = self._loop.call_later(self._health_timeout_s, self._die, why)
        self._cancel_timer()
        self._set_timer()
        self._finish(finished)

    def _die(self, why: str) -> None:
        """Its state says so first: who asks again is not to come back here."""
        if self.state in _GONE:
            return
        if self._hung is not None:
            self._hung.cancel()
        self._lifecycle.to(ServerState.FAILED, f"server {self.server_id} ({self.spec.model}) {why}")
        self._end_all(f"server {self.server_id} {why}")

    def _own_s(self, run_s: float) -> float:
        return run_s if self._time is None else self._time.own_s(run_s)

    def _run_s(self, own_s: float) -> float:
        return own_s if self._time is None else self._time.run_s(own_s)

    def _first_token_s(self, answer: Answer) -> float | None:
        """In the run's time."""
        own_s = answer.first_token_s
        return own_s if own_s is None or self._time is None else self._time.run_s(own_s)

    def _ended_early(
        self, request: Request, sent_s: float, outcome: Outcome, reason: str, answer: Answer | None = None
    ) -> Completion:
        return Completion(
            request=request,
            server_id=self.server_id,
            region=self.spec.region,
            sent_s=sent_s,
            first_token_s=self._first_token_s(answer) if answer else None,
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
        engine.submit(answer, self._own_s(now_s))
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
        self._engine.abort(answer, self._own_s(self._clock.now_s()))
        self._set_timer()
        self._note_empty()
        return Received(self._first_token_s(answer), self._engine.tokens_made(answer))

    def _end_all(self, why: str = "") -> None:
        """The drain deadline has passed, or the server has died: whoever is left ends now, without its last tokens."""
        now_s = self._own_s(self._clock.now_s())
        self._finish(self._engine.advance(now_s))
        left, self._answers = list(self._answers), {}
        for answer in left:
            self._engine.abort(answer, now_s)
            if answer in self._streams:
                self._streams[answer].put_nowait(0)
            reason = why or f"server {self.server_id} stopped after {self._engine.tokens_made(answer)} tokens"
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
        self._cancel_timer()
        at_s = self._run_s(wake_s)
        if at_s < math.inf:
            self._timer = self._loop.call_at(self._clock.loop_time(at_s), self._advance)
            self._timer_s = wake_s

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _advance(self) -> None:
        self._timer = None
        # The clock may read a hair less than the time the timer was set to.
        finished = self._engine.advance(max(self._own_s(self._clock.now_s()), self._timer_s))
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
                    first_token_s=self._first_token_s(answer),
                    last_token_s=self._run_s(answer.ended_s),
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

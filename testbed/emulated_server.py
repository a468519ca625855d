"""A server without a GPU: the engine of `emulated_engine` on the running event loop's clock, virtual or real."""

import asyncio
from collections.abc import AsyncIterator

from profiler.profile import ServerProfile
from testbed.emulated_engine import EmulatedEngine, EngineLimits, Phase, Sequence
from testbed.lifecycle import Lifecycle, StateListener
from testbed.server import ServerLoad, ServerSpec, ServerState
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request


class EmulatedServer:
    """Continuous batching whose iteration time comes from a `ServerProfile`.

    It takes `start_s` to start and `stop_s` to stop. With `step_by_step` every iteration is an event
    of its own, which `stream` needs; without it runs of decode iterations are one event.
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
        step_by_step: bool = False,
    ) -> None:
        self.spec = spec
        self.server_id = server_id
        self._start_s = start_s
        self._stop_s = stop_s
        self._limits = EngineLimits(
            max_num_seqs=spec.max_num_seqs,
            max_num_batched_tokens=spec.max_num_batched_tokens,
            max_model_len=spec.max_model_len or profile.engine.max_model_len or profile.kv_cache.max_tokens,
            num_gpu_blocks=profile.kv_cache.num_gpu_blocks,
            block_size=profile.kv_cache.block_size,
        )
        self._engine = EmulatedEngine(profile.step_time, self._limits, step_by_step=step_by_step)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lifecycle = Lifecycle(server_id, on_change)
        self._waiters: dict[Sequence, asyncio.Future[float]] = {}
        self._streams: dict[Sequence, asyncio.Queue[int]] = {}
        self._streamed: dict[Sequence, int] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def state(self) -> ServerState:
        return self._lifecycle.state

    @property
    def kv_capacity_tokens(self) -> int:
        return self._limits.num_gpu_blocks * self._limits.block_size

    async def start(self) -> None:
        await asyncio.sleep(self._start_s)
        self._lifecycle.to(ServerState.READY)

    async def send(self, request: Request, priority: int = 0) -> Completion:
        """Returns when the last token has come out; a cancelled caller frees the request at once."""
        sent_s = self._clock.now_s()
        refusal = self._refusal(request)
        if refusal:
            return self._ended_early(request, sent_s, Outcome.REJECTED, refusal)
        sequence = Sequence(request.prompt_tokens, request.output_tokens, priority)
        ended: asyncio.Future[float] = self._loop.create_future()
        self._submit(sequence, ended, sent_s)
        try:
            last_token_s = await ended
        except asyncio.CancelledError:
            self._drop(sequence)
            raise
        if sequence.left:
            return self._ended_early(
                request,
                sent_s,
                Outcome.FAILED,
                f"server {self.server_id} stopped after {self._engine.tokens_made(sequence)} tokens",
                sequence,
            )
        return Completion(
            request=request,
            server_id=self.server_id,
            region=self.spec.region,
            sent_s=sent_s,
            first_token_s=sequence.first_token_s,
            last_token_s=last_token_s,
            output_tokens=request.output_tokens,
            outcome=Outcome.COMPLETED,
        )

    async def stream(self, request: Request, priority: int = 0) -> AsyncIterator[int]:
        """Yield the number of new tokens whenever some come out. Raises ValueError for a request that is refused."""
        refusal = self._refusal(request)
        if refusal:
            raise ValueError(refusal)
        sequence = Sequence(request.prompt_tokens, request.output_tokens, priority)
        tokens: asyncio.Queue[int] = asyncio.Queue()
        self._streams[sequence] = tokens
        self._streamed[sequence] = 0
        self._submit(sequence, self._loop.create_future(), self._clock.now_s())
        seen = 0
        try:
            while seen < request.output_tokens:
                new = await tokens.get()
                if new == 0:
                    return
                seen += new
                yield new
        finally:
            self._drop(sequence)

    async def load(self) -> ServerLoad:
        engine = self._engine
        return ServerLoad(
            at_s=self._clock.now_s(),
            num_requests_running=engine.num_requests_running,
            num_requests_waiting=engine.num_requests_waiting,
            kv_cache_usage=engine.kv_cache_usage,
            num_preemptions_total=engine.preemptions,
            prompt_tokens_total=engine.prompt_tokens_computed,
        )

    async def stop(self, drain_s: float) -> None:
        if self.state in (ServerState.STOPPED, ServerState.FAILED):
            return
        if self.state is ServerState.READY:
            self._lifecycle.to(ServerState.DRAINING)
        if self.state is ServerState.DRAINING:
            try:
                async with asyncio.timeout(drain_s):
                    await self._empty.wait()
            except TimeoutError:
                self._end_all()
        if self.state is not ServerState.STOPPING:
            self._lifecycle.to(ServerState.STOPPING)
        await asyncio.sleep(self._stop_s)
        self._lifecycle.to(ServerState.STOPPED)

    def _refusal(self, request: Request) -> str:
        if self.state is not ServerState.READY:
            return f"server {self.server_id} is {self.state}"
        return self._limits.refusal(request.prompt_tokens, request.output_tokens)

    def _ended_early(
        self, request: Request, sent_s: float, outcome: Outcome, reason: str, sequence: Sequence | None = None
    ) -> Completion:
        return Completion(
            request=request,
            server_id=self.server_id,
            region=self.spec.region,
            sent_s=sent_s,
            first_token_s=sequence.first_token_s if sequence else None,
            last_token_s=self._clock.now_s(),
            output_tokens=self._engine.tokens_made(sequence) if sequence else 0,
            outcome=outcome,
            reason=reason,
        )

    def _submit(self, sequence: Sequence, ended: asyncio.Future[float], now_s: float) -> None:
        self._waiters[sequence] = ended
        self._empty.clear()
        self._engine.submit(sequence, now_s)
        self._set_timer()

    def _drop(self, sequence: Sequence) -> None:
        """Forget a sequence, aborting it when it has not ended."""
        self._streams.pop(sequence, None)
        self._streamed.pop(sequence, None)
        if self._waiters.pop(sequence, None) is not None and sequence.phase is not Phase.ENDED:
            self._engine.abort(sequence, self._clock.now_s())
            self._set_timer()
        self._note_empty()

    def _end_all(self) -> None:
        """The drain deadline has passed: whoever is left ends now, without its last tokens."""
        now_s = self._clock.now_s()
        for sequence, ended in list(self._waiters.items()):
            self._engine.abort(sequence, now_s)
            if not ended.done():
                ended.set_result(now_s)
            if sequence in self._streams:
                self._streams[sequence].put_nowait(0)
        self._waiters.clear()
        self._set_timer()
        self._note_empty()

    def _note_empty(self) -> None:
        if not self._waiters:
            self._empty.set()

    def _set_timer(self) -> None:
        """One timer, at the engine's next event."""
        event_s = self._engine.next_event_s
        if self._timer is not None:
            if event_s == self._timer_s:
                return
            self._timer.cancel()
            self._timer = None
        if event_s is not None:
            self._timer = self._loop.call_at(self._clock.loop_time(event_s), self._advance)
            self._timer_s = event_s

    def _advance(self) -> None:
        self._timer = None
        event_s = self._engine.next_event_s
        assert event_s is not None
        finished = self._engine.advance()
        if self._streams:
            self._feed_streams()
        for sequence in finished:
            ended = self._waiters.pop(sequence, None)
            if ended is not None and not ended.done():
                ended.set_result(event_s)
        self._note_empty()
        self._set_timer()

    def _feed_streams(self) -> None:
        for sequence, tokens in self._streams.items():
            made = self._engine.tokens_made(sequence)
            new = made - self._streamed[sequence]
            if new:
                self._streamed[sequence] = made
                tokens.put_nowait(new)

"""An emulated server as something to measure, without HTTP between: in virtual time its truth comes back exactly."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.points import ServerLimits
from profiler.profile import ServerProfile
from profiler.profile_parts import KvCache
from testbed.emulated_server import EmulatedServer
from testbed.server import ServerSpec
from workloads.clock import RunClock
from workloads.request import Request, Tier


@dataclass(frozen=True, slots=True)
class EmulatedAnswer:
    """Satisfies `profiler.target.TokenStream`."""

    sent_s: float
    token_times_s: tuple[float, ...]
    error: str | None = None


class EmulatedTarget:
    """Satisfies `profiler.target.Target`. Every token is on its way for `request_overhead_s`, and every request for
    `request_overhead_per_sequence_s` times the sequences that run when it is sent.

    Must be made inside a running loop; `start` makes it READY.
    """

    def __init__(
        self,
        profile: ServerProfile,
        limits: ServerLimits,
        request_overhead_s: float = 0.0,
        request_overhead_per_sequence_s: float = 0.0,
        *,
        async_scheduling: bool = True,
    ) -> None:
        blocks = limits.kv_tokens // profile.kv_cache.block_size
        size = profile.kv_cache.block_size
        kv_cache = KvCache(num_gpu_blocks=blocks, block_size=size, max_tokens=blocks * size)
        self.clock = RunClock()
        self._request_overhead_s = request_overhead_s
        self._request_overhead_per_sequence_s = request_overhead_per_sequence_s
        self._requests = 0
        self._server = EmulatedServer(
            ServerSpec(
                model=profile.model.name,
                region="emulated",
                gpu_type=profile.gpu.type,
                gpus=profile.gpu.count,
                max_model_len=limits.max_model_len,
                max_num_seqs=limits.max_num_seqs,
                max_num_batched_tokens=limits.max_num_batched_tokens,
                async_scheduling=async_scheduling,
            ),
            "emulated",
            profile=profile.model_copy(update={"kv_cache": kv_cache}),
            clock=self.clock,
            on_change=lambda *_: None,
            start_s=0.0,
            stop_s=0.0,
            step_by_step=True,
        )

    async def start(self) -> None:
        await self._server.start()

    async def complete(
        self,
        prompt_token_ids: Sequence[int],
        max_tokens: int,
        *,
        request_id: str,  # noqa: ARG002 - the protocol's
        priority: int | None = None,
    ) -> EmulatedAnswer:
        """Send a prompt of as many tokens, wait for `max_tokens`. One that the server refuses comes back as error."""
        sent_s = self.clock.now_s()
        self._requests += 1
        request = Request(
            request_id=self._requests,
            arrival_s=max(0.0, sent_s),
            model=self._server.spec.model,
            region=self._server.spec.region,
            tier=Tier.IW_N,
            prompt_tokens=len(prompt_token_ids),
            output_tokens=max_tokens,
        )
        answer = EmulatedAnswer(sent_s, ())
        if self._request_overhead_per_sequence_s:
            running = (await self._server.load()).num_requests_running
            await asyncio.sleep(self._request_overhead_per_sequence_s * running)
        times: list[float] = []
        try:
            async for new in self._server.stream(request, priority or 0):
                times += [self.clock.now_s() + self._request_overhead_s] * new
        except ValueError as error:
            return replace(answer, error=str(error))
        await asyncio.sleep(self._request_overhead_s)
        return replace(answer, token_times_s=tuple(times))

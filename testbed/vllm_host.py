"""What all vLLM servers of a machine share."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.ports import Ports
from testbed.process_guard import ProcessGuard
from workloads.api_key import ApiKey, server_key


@dataclass(slots=True, kw_only=True)
class VllmHost:
    """The machine as its servers need it.

    `python` is the interpreter that has vLLM, `tasks` the group in which each server watches its process: it ends when
    the servers have. `log_folder` must exist. A server that is not READY within `start_timeout_s` counts as failed, as
    does one whose health check, asked every `health_every_s`, goes unanswered for `health_timeout_s`.
    `api_key` is what the servers want of their clients, the environment's when left out.
    """

    python: Path
    log_folder: Path
    guard: ProcessGuard
    tasks: asyncio.TaskGroup
    ports: Ports = field(default_factory=Ports)
    start_timeout_s: float = 1800.0
    health_every_s: float = 5.0
    health_timeout_s: float = 60.0
    api_key: ApiKey | None = field(default_factory=server_key)
    _locks: dict[int, asyncio.Lock] = field(default_factory=dict, init=False)

    @asynccontextmanager
    async def gpu_turn(self, gpu_indices: Iterable[int]) -> AsyncIterator[None]:
        """Alone on these GPUs: servers that start or stop on one GPU at a time upset vLLM's memory profiling."""
        async with AsyncExitStack() as held:
            # In one order, or two servers that share two GPUs could wait for one another.
            for index in sorted(set(gpu_indices)):
                await held.enter_async_context(self._locks.setdefault(index, asyncio.Lock()))
            yield

"""The one server that is profiled: a real vLLM process with compile caches of its own."""

import asyncio
import re
import shutil
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from profiler.gpu_meter import NvmlMeter, open_meter
from profiler.launch import Level, State
from profiler.profile_parts import MemoryHeld
from profiler.side_tasks import side_tasks
from testbed.bad_input import BadInput
from testbed.doctor import find_vllm_python
from testbed.host_memory import group_memory_bytes
from testbed.process_guard import ProcessGuard
from testbed.server import ServerError, ServerSpec, ServerState
from testbed.server_log import log_tail
from testbed.sleep_api import SLEEP_ARGUMENT, SLEEP_ENV, put_to_sleep, require_sleeping, wake_up
from testbed.vllm_host import VllmHost
from testbed.vllm_server import VllmServer
from workloads.api_key import authorization, server_key
from workloads.clock import RunClock

# Everything that vLLM and what it builds on keep between starts, each in a folder of its own.
_CACHES = (
    *("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH"),
    *("FLASHINFER_WORKSPACE_BASE", "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"),
)
# How vLLM says that this build or this GPU cannot sleep.
_NO_SLEEP = re.compile(
    r"(sleep mode|cumem allocator) is not (supported|available)|unrecognized arguments:.*--enable-sleep-mode", re.I
)
# How vLLM says that what an earlier start compiled was of no use.
_NO_CACHE = re.compile(r"[Cc]ompiling model again due to a load failure.*?reason: (.*)")
# The driver gives memory back some time after the process has gone; this much may stay with others.
_MEMORY_BACK_BYTES = 256 * 2**20
_MEMORY_BACK_S = 60.0
_POLL_S = 0.05


class ProfiledServer:
    """Satisfies `profiler.launch.Launched`; an async context manager that leaves no process behind, even when killed.

    `work_folder` gets `logs/` and `cache/`; no cache outside of it is read or written. `gpu_indices` are NVML's
    numbers, empty on the CPU build. `sleep_mode` None asks for sleep mode where there is a GPU; where vLLM refuses it
    the server starts without, and `notes` says so. `python` None takes the one that `testbed doctor` finds.
    Raises BadInput when entered where there is no vLLM.
    """

    def __init__(
        self,
        spec: ServerSpec,
        *,
        work_folder: Path,
        gpu_indices: tuple[int, ...] = (),
        python: Path | None = None,
        sleep_mode: bool | None = None,
        start_timeout_s: float = 1800.0,
    ) -> None:
        self.spec = spec
        self.log_folder = work_folder.absolute() / "logs"
        self.failure: str | None = None
        """Why the server is FAILED, in one line; None while it is not."""
        self._cache = work_folder.absolute() / "cache"
        self._gpu_indices = gpu_indices
        self._python = python
        self._can_sleep = bool(gpu_indices) if sleep_mode is None else sleep_mode
        self._start_timeout_s = start_timeout_s
        self._notes: list[str] = []
        self._open = AsyncExitStack()
        self._server: VllmServer | None = None
        self._starts = 0
        self._slept: Level | None = None

    async def __aenter__(self) -> Self:
        python = self._python or find_vllm_python()
        if python is None:
            raise BadInput(
                "no vLLM in this Python; install it, or name an interpreter that has it in TESTBED_VLLM_PYTHON "
                "(`testbed doctor` tells what is missing)"
            )
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self._clock = RunClock()
        async with AsyncExitStack() as held:
            guard = held.enter_context(ProcessGuard())
            tasks = await held.enter_async_context(side_tasks())
            self._http = await held.enter_async_context(aiohttp.ClientSession(headers=authorization(server_key())))
            self._meter = held.enter_context(open_meter(self._gpu_indices))
            held.push_async_callback(self._end)
            self._open = held.pop_all()
        self._host = VllmHost(
            python=python,
            log_folder=self.log_folder,
            guard=guard,
            tasks=tasks,
            start_timeout_s=self._start_timeout_s,
        )
        self._others_bytes = self._gpu_used_bytes()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.__aexit__(kind, error, trace)

    @property
    def base_url(self) -> str:
        """Another one after each start. Raises ServerError while it does not run."""
        return self._running().base_url

    @property
    def can_sleep(self) -> bool:
        return self._can_sleep

    @property
    def meter(self) -> NvmlMeter | None:
        """Of its GPUs, for as long as the context lasts; None without GPUs or NVML."""
        return self._meter

    @property
    def notes(self) -> tuple[str, ...]:
        """What did not go as asked, one line each."""
        return tuple(self._notes)

    async def start(self, *, empty_cache: bool) -> float:
        """Seconds from the command to READY. Raises ServerError when it does not start, or runs already."""
        if self._server is not None:
            raise ServerError(f"server {self._server.server_id} was started already; stop it first")
        try:
            return await self._start_once(empty_cache)
        except ServerError as error:
            if not self._can_sleep or not _NO_SLEEP.search(f"{error}\n{error.log_tail}"):
                raise
            self._can_sleep = False
            # Notes go into profiles; a path of this machine would mean nothing there.
            why = str(error).partition("; log: ")[0]
            self._note(f"started without {SLEEP_ARGUMENT}, which was refused: {why}")
            return await self._start_once(empty_cache)

    async def stop(self) -> float:
        """Seconds until processes and, with GPUs, their memory are free; nothing may be in flight.

        One that has FAILED can be stopped too, and then started again. Raises ServerError when it was not started.
        Memory that is not back after a minute goes to `notes`.
        """
        server = self._started()
        began_s = self._clock.now_s()
        await server.stop(drain_s=0.0)
        self._server, self._slept = None, None
        return await self._memory_back_s(self._clock.now_s()) - began_s

    async def sleep(self, level: Level) -> float:
        """Seconds of `POST /sleep`. Raises ServerError when the server does not sleep afterwards."""
        slept_s = await self._timed(put_to_sleep(self._http, self.base_url, level))
        await self._timed(require_sleeping(self._http, self.base_url, True))
        self._slept = level
        return slept_s

    async def wake(self) -> float:
        """Seconds of `POST /wake_up`. After level 2 the weights are loaded anew; random ones have no file to come from
        and stay as they lie. Raises ServerError when the server still sleeps afterwards."""
        reload = self._slept == 2 and self.spec.load_format != "dummy"
        woke_s = await self._timed(wake_up(self._http, self.base_url, reload_weights=reload))
        await self._timed(require_sleeping(self._http, self.base_url, False))
        self._slept = None
        return woke_s

    def memory(self, state: State) -> MemoryHeld:
        """GPU memory beyond what was in use before the first start; host memory of the process group."""
        used_bytes = self._gpu_used_bytes()
        known = used_bytes is not None and self._others_bytes is not None
        return MemoryHeld(
            state=state,
            gpu_bytes=max(0, (used_bytes or 0) - (self._others_bytes or 0)) if known else None,
            host_bytes=0 if self._server is None else group_memory_bytes(self._server.pid or 0),
        )

    # What they are made of.

    async def _start_once(self, empty_cache: bool) -> float:
        if empty_cache:
            await asyncio.to_thread(shutil.rmtree, self._cache, ignore_errors=True)
        env = {**self.spec.env, **self._caches()}
        spec = replace(self.spec, env=env)
        if self._can_sleep:
            spec = replace(spec, env={**env, **SLEEP_ENV}, extra_args=(*spec.extra_args, SLEEP_ARGUMENT))
        self._starts += 1
        self.failure = None
        server = VllmServer(
            spec,
            f"{spec.model}/{self._starts}",
            clock=self._clock,
            on_change=self._changed,
            host=self._host,
            gpu_indices=self._gpu_indices,
        )
        began_s = self._clock.now_s()
        await server.start()
        self._server = server
        took_s = self._clock.now_s() - began_s
        if not empty_cache and (found := _NO_CACHE.search(server.log.read_text(encoding="utf-8", errors="replace"))):
            self._note(f"a warm start compiled again what it had in its cache: {found.group(1)}")
        return took_s

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def _caches(self) -> Mapping[str, str]:
        folders = {name: self._cache / name.lower() for name in _CACHES}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return {name: str(folder) for name, folder in folders.items()}

    def _changed(self, _server_id: str, state: ServerState, reason: str) -> None:
        if state is ServerState.FAILED:
            self.failure = reason

    def _started(self) -> VllmServer:
        if self._server is None:
            raise ServerError(f"the server of {self.spec.model} was not started")
        return self._server

    def _running(self) -> VllmServer:
        server = self._started()
        if self.failure is not None:
            raise ServerError(self.failure)
        return server

    async def _timed(self, order: Awaitable[None]) -> float:
        """Seconds that `order` takes; a refusal is told with the server's name and log."""
        server = self._started()
        began_s = self._clock.now_s()
        try:
            await order
        except ServerError as error:
            if self.failure is not None:  # the better reason
                raise ServerError(self.failure) from error
            raise ServerError(f"server {server.server_id}: {error}; log: {server.log}", log_tail(server.log)) from error
        return self._clock.now_s() - began_s

    def _gpu_used_bytes(self) -> int | None:
        return None if self._meter is None else self._meter.memory_used_bytes()

    async def _memory_back_s(self, gone_s: float) -> float:
        """When the GPUs' memory was back, or `gone_s`, when the processes were, where nobody can tell or it is not."""
        while (used_bytes := self._gpu_used_bytes()) is not None and self._others_bytes is not None:
            held_bytes = used_bytes - self._others_bytes
            if held_bytes <= _MEMORY_BACK_BYTES:
                return self._clock.now_s()
            if self._clock.now_s() - gone_s > _MEMORY_BACK_S:
                self._note(
                    f"{held_bytes / 2**20:.0f} MiB of the GPUs' memory were still in use {_MEMORY_BACK_S:g} s after "
                    "the server's processes had gone; does something else use these GPUs?"
                )
                return gone_s
            await asyncio.sleep(_POLL_S)
        return gone_s

    async def _end(self) -> None:
        if self._server is not None:
            await self._server.stop(drain_s=0.0)
            self._server = None

"""A real vLLM server: a process of its own, spoken to over HTTP."""

import asyncio
import json
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp

from profiler.launch import Level
from testbed.begun_task import begin_in
from testbed.fault import Fault, FaultKind
from testbed.lifecycle import Lifecycle, StateListener
from testbed.paced_process import PacedProcess
from testbed.process_guard import GuardedProcess
from testbed.server import BreakOff, Ended, Received, ServerError, ServerLoad, ServerSpec, ServerState
from testbed.server_health import until_silent
from testbed.server_log import exit_words, log_tail, telling_line
from testbed.sleep_api import SLEEP_ARGUMENT, SLEEP_ENV, put_to_sleep, require_sleeping, wake_up
from testbed.vllm_command import sockets_in, vllm_command
from testbed.vllm_host import VllmHost
from testbed.vllm_metrics import MetricsError, kv_capacity_tokens, server_load
from testbed.vocabulary import vocab_size
from workloads.answer import Answer
from workloads.api_key import authorization
from workloads.client import CompletionClient, as_completion
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.prompts import SMALL_VOCABULARY, prompt_of
from workloads.request import Request

_HEALTH_EVERY_S = 0.2
# Short: while the answer is waited for, a death of the process goes unnoticed.
_HEALTH_TIMEOUT = aiohttp.ClientTimeout(total=1.0)
_CONTROL_TIMEOUT_S = 5.0
# A server that was READY ends within 1 s of SIGTERM; one that starts may hang, and has nothing to put in order.
_TERM_S = 5.0
_TERM_STARTING_S = 0.5


class VllmServer:
    """Starts, serves, drains, sleeps, wakes, stops; notices when its process dies.

    While it runs, a task in `host.tasks` waits for the process: a death while READY, DRAINING or SLEEPING makes the
    state FAILED at once and the requests under way end as failed. One that hangs, which its health check tells, is
    killed. GPUs and port are free when `stop` has returned,
    after FAILED too. With `sleep_level` it is started so that it can sleep; its process lives on while it does, and
    keeps a little of its GPUs' memory (`lifecycle.memory` of a profile says how much).
    """

    def __init__(
        self,
        spec: ServerSpec,
        server_id: str,
        *,
        clock: RunClock,
        on_change: StateListener,
        host: VllmHost,
        gpu_indices: tuple[int, ...] = (),
        sleep_level: Level | None = None,
    ) -> None:
        if sleep_level is not None:
            extra_args, env = (*spec.extra_args, SLEEP_ARGUMENT), {**spec.env, **SLEEP_ENV}
            spec = replace(spec, extra_args=extra_args, env=env)
        self.spec = spec
        self._sleep_level = sleep_level
        self.server_id = server_id
        self._clock = clock
        self._host = host
        self._gpu_indices = gpu_indices
        self._lifecycle = Lifecycle(server_id, on_change)
        self._log = host.log_folder / (re.sub(r"[^\w.@-]", "_", server_id) + ".log")
        self._port: int | None = None
        self._process: GuardedProcess | None = None
        self._paced: PacedProcess | None = None
        self._health: asyncio.Task[None] | None = None
        self._hung = ""
        self._fails_start = False
        self._control: aiohttp.ClientSession | None = None
        self._client: CompletionClient | None = None
        self._vocab_size = SMALL_VOCABULARY
        self._max_model_len = 0
        self._kv_capacity_tokens = 0
        self._reading: ServerLoad | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def state(self) -> ServerState:
        return self._lifecycle.state

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens that fit into the KV cache, as the server itself says; 0 before it is READY."""
        return self._kv_capacity_tokens

    @property
    def log(self) -> Path:
        """Everything the process wrote."""
        return self._log

    @property
    def pid(self) -> int | None:
        """Of the process, and the number of its group; None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def base_url(self) -> str:
        """Where it listens. Raises ServerError while it does not."""
        if self._port is None:
            raise ServerError(f"server {self.server_id} is {self.state} and listens nowhere")
        return f"http://{self._host.ports.host}:{self._port}"

    # Start.

    async def start(self) -> None:
        """Return once READY. Raises ServerError, with the end of the log, when the server dies, does not come up within
        `host.start_timeout_s` or is stopped meanwhile; nothing of it is left then."""
        async with self._host.gpu_turn(self._gpu_indices):
            try:
                await self._launch()
                async with asyncio.timeout(self._host.start_timeout_s) as limit:
                    await self._until_healthy()
                    await self._learn()
            except BaseException as error:
                if isinstance(error, TimeoutError) and limit.expired():
                    error = self._error(f"was not ready within {self._host.start_timeout_s:g} s")
                broken_off = isinstance(error, asyncio.CancelledError)
                if self.state is ServerState.STARTING:
                    if broken_off:
                        self._lifecycle.to(ServerState.STOPPING, "no longer wanted while it started")
                    else:
                        self._lifecycle.to(ServerState.FAILED, str(error) or type(error).__name__)
                await self._release()
                if broken_off and self.state is ServerState.STOPPING:
                    self._lifecycle.to(ServerState.STOPPED)
                raise error from None
        self._lifecycle.to(ServerState.READY)
        self._host.tasks.create_task(self._watch(), name=f"watch {self.server_id}")
        self._health = self._host.tasks.create_task(self._ask_for_health(), name=f"health of {self.server_id}")

    async def _launch(self) -> None:
        self._check_wanted()
        self._port = self._host.ports.take()
        command = vllm_command(
            self.spec,
            python=self._host.python,
            host=self._host.ports.host,
            port=self._port,
            gpu_indices=self._gpu_indices,
            api_key=self._host.api_key,
        )
        self._vocab_size = vocab_size(self.spec)
        self._control = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_CONTROL_TIMEOUT_S), headers=authorization(self._host.api_key)
        )
        # In the log's folder: `python -m` looks for modules in the folder it is started in.
        self._process = await self._host.guard.start(
            command.argv,
            env={**sockets_in(self._host.guard.scratch), **command.env},
            log=self._log,
            cwd=self._host.log_folder,
            what=f"server {self.server_id}",
        )
        if self._fails_start:
            self._process.signal_group(signal.SIGKILL)

    async def _until_healthy(self) -> None:
        assert self._process is not None and self._control is not None
        while True:
            self._check_wanted()
            if self._process.exit_code is not None:
                raise self._error(f"died at start ({exit_words(self._process.exit_code)})")
            try:
                async with self._control.get(f"{self.base_url}/health", timeout=_HEALTH_TIMEOUT) as response:
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # not listening yet
            await asyncio.sleep(_HEALTH_EVERY_S)

    async def _learn(self) -> None:
        """What only the running server can tell; opens the way for requests."""
        try:
            models = {model["id"]: model for model in json.loads(await self._get("/v1/models"))["data"]}
            metrics = await self._get("/metrics")
            if self.spec.model not in models:
                raise self._error(f"answers for {', '.join(models)} instead; something else listens on its port")
            self._max_model_len = int(models[self.spec.model]["max_model_len"])
            self._kv_capacity_tokens = kv_capacity_tokens(metrics)
            self._reading = server_load(metrics, self._clock.now_s())
        except (aiohttp.ClientError, TimeoutError, KeyError, TypeError, ValueError) as error:
            raise self._error(f"started, but cannot be read: {error or type(error).__name__}") from error
        self._check_wanted()
        self._client = CompletionClient(
            self.base_url, self.spec.model, self._clock.now_s, None, api_key=self._host.api_key
        )
        await self._client.__aenter__()

    def _check_wanted(self) -> None:
        if self.state is not ServerState.STARTING:
            raise ServerError(f"server {self.server_id} was stopped while it started")

    # Serve.

    def begin(self, request: Request, ended: Ended, priority: int | None = None) -> BreakOff:
        answer = Answer(self._clock.now_s(), request.output_tokens, token_times=False)
        return begin_in(
            self._host.tasks,
            partial(self.send, request, priority, answer),
            ended,
            lambda: Received(answer.first_token_s, answer.stream.output_tokens),
        )

    async def send(self, request: Request, priority: int | None = None, answer: Answer | None = None) -> Completion:
        """Returns when the last token has arrived; never raises for what the server does.

        Rejected without being sent when the server is not READY or the request is over `max_model_len` (vLLM would
        silently cut it). A cancelled caller frees the request in the server; `answer` keeps what had come, where given.
        """
        if self.state is not ServerState.READY or self._client is None:
            return self._refused(request, f"server {self.server_id} is {self.state}")
        if request.total_tokens > self._max_model_len:
            reason = f"{request.total_tokens} tokens (prompt and output) are over max_model_len {self._max_model_len}"
            return self._refused(request, reason)
        self._in_flight += 1
        self._idle.clear()
        try:
            result = await self._client.complete(
                prompt_of(request, self._vocab_size),
                request.output_tokens,
                request_id=str(request.request_id),
                priority=priority,
                answer=answer,
            )
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.set()
        return as_completion(request, result, server_id=self.server_id, region=self.spec.region)

    def _refused(self, request: Request, reason: str) -> Completion:
        now_s = self._clock.now_s()
        return Completion(
            request=request,
            server_id=self.server_id,
            region=self.spec.region,
            sent_s=now_s,
            first_token_s=None,
            last_token_s=now_s,
            output_tokens=0,
            outcome=Outcome.REJECTED,
            reason=reason,
        )

    async def load(self) -> ServerLoad:
        """The server's gauges now; the previous reading, with its age, when it does not answer within 5 s.

        Raises ServerError before the server was READY.
        """
        if self.state in (ServerState.READY, ServerState.DRAINING):
            try:
                text = await self._get("/metrics")
                self._reading = server_load(text, self._clock.now_s())
            except (aiohttp.ClientError, TimeoutError, MetricsError):
                pass  # its age tells
        if self._reading is None:
            raise ServerError(f"server {self.server_id} is {self.state}: no reading yet")
        return self._reading

    async def _get(self, path: str) -> str:
        assert self._control is not None
        async with self._control.get(f"{self.base_url}{path}", raise_for_status=True) as response:
            return await response.text()

    # Sleep.

    async def sleep(self, drain_s: float) -> None:
        """Return once SLEEPING. Raises ServerError when vLLM refuses, or requests are under way still after `drain_s`;
        the server is STOPPING or FAILED then, and to be stopped."""
        self._lifecycle.to(ServerState.DRAINING, "to sleep")
        try:
            if self._sleep_level is None:
                raise ServerError("it was started without sleep_level")
            if not await self._drained(drain_s):
                raise ServerError(f"{self._in_flight} requests were still under way after {drain_s:g} s")
            async with self._host.gpu_turn(self._gpu_indices):
                await put_to_sleep(self._session(), self.base_url, self._sleep_level)
                await require_sleeping(self._session(), self.base_url, True)
        except ServerError as error:
            if self.state is ServerState.DRAINING:
                self._lifecycle.to(ServerState.STOPPING, f"could not sleep: {error}")
            raise
        self._lifecycle.to(ServerState.SLEEPING)

    async def wake(self) -> None:
        """Return once READY. Raises ServerError when it does not wake; it is FAILED then, and nothing of it is left."""
        self._lifecycle.to(ServerState.STARTING, "waking")
        try:
            async with self._host.gpu_turn(self._gpu_indices):
                # Random weights have no file to come from and stay as they lie.
                reload = self._sleep_level == 2 and self.spec.load_format != "dummy"
                await wake_up(self._session(), self.base_url, reload_weights=reload)
                await require_sleeping(self._session(), self.base_url, False)
        except ServerError as error:
            error = self._error(f"did not wake ({error})")
            if self.state is ServerState.STARTING:
                self._lifecycle.to(ServerState.FAILED, str(error))
            await self._release()
            raise error from None
        self._lifecycle.to(ServerState.READY)

    def _session(self) -> aiohttp.ClientSession:
        assert self._control is not None
        return self._control

    async def _drained(self, drain_s: float) -> bool:
        """Whether the requests under way have ended within `drain_s`."""
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # Stop.

    async def stop(self, drain_s: float) -> None:
        """Take no more requests, wait `drain_s` at most for those under way, end the process group, free the port.

        Requests that are cut off end as failed. A server that starts is stopped at once. Twice is harmless.
        """
        starting = self.state is ServerState.STARTING
        if self.state is ServerState.READY:
            self._lifecycle.to(ServerState.DRAINING)
        if self.state is ServerState.DRAINING:
            await self._drained(drain_s)  # who is left is cut off
        if self.state in (ServerState.STARTING, ServerState.DRAINING, ServerState.SLEEPING):
            self._lifecycle.to(ServerState.STOPPING)
        # A server that starts has the turn itself.
        async with self._host.gpu_turn(() if starting else self._gpu_indices):
            await self._release()
        if self.state is ServerState.STOPPING:
            self._lifecycle.to(ServerState.STOPPED)

    async def _watch(self) -> None:
        assert self._process is not None
        exit_code = await self._process.wait()
        if self.state in (ServerState.READY, ServerState.SLEEPING, ServerState.DRAINING):
            why = self._hung or f"died ({exit_words(exit_code)})"
            self._lifecycle.to(ServerState.FAILED, str(self._error(why)))
            await self._release()

    async def _ask_for_health(self) -> None:
        """Kill the process when it has not answered for too long: whoever watches it tells the rest."""
        assert self._process is not None
        timeout_s = self._host.health_timeout_s
        await until_silent(
            self._session(), f"{self.base_url}/health", every_s=self._host.health_every_s, timeout_s=timeout_s
        )
        self._hung = f"hung: no answer to its health check for {timeout_s:g} s"
        self._process.signal_group(signal.SIGKILL)

    # Faults.

    def inject(self, fault: Fault) -> None:
        """See `testbed.server.Server`: the process is killed, or stopped and continued."""
        waits_for_its_turn = self._process is None and self.state is ServerState.STARTING
        if fault.kind is FaultKind.FAIL_START or (fault.kind is FaultKind.KILL and waits_for_its_turn):
            self._fails_start = True
        elif self._process is None or self._process.exit_code is not None or self.state is ServerState.STOPPING:
            return
        elif fault.kind is FaultKind.KILL:
            self._process.signal_group(signal.SIGKILL)
        else:
            self._paced = self._paced or PacedProcess(self._process, self._host.tasks)
            self._paced.begin(fault)

    async def _release(self) -> None:
        """End what runs, close what is open. Twice is harmless."""
        if self._health is not None:
            self._health.cancel()
        if self._process is not None:
            await self._process.end(_TERM_S if self._client is not None else _TERM_STARTING_S)
        if self._client is not None:
            await self._client.close()
        if self._control is not None:
            await self._control.close()
        if self._port is not None:
            self._host.ports.give_back(self._port)
            self._port = None

    def _error(self, what: str) -> ServerError:
        told = telling_line(self._log)
        return ServerError(
            f"server {self.server_id} ({self.spec.model}) {what}{f': {told}' if told else ''}; log: {self._log}",
            log_tail(self._log),
        )

"""A server: one vLLM process on `tensor_parallel_size` GPUs, real or emulated."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from testbed.fault import Fault
from workloads.completion import Completion
from workloads.request import Request


class ServerState(StrEnum):
    """Of a server's life, in the usual order. A SLEEPING one has given its GPUs back: what it needs to serve again lies
    in host memory (or, at vLLM's sleep level 2, on disk). One that wakes up is STARTING, one that is about to sleep
    DRAINING.
    """

    STARTING = "STARTING"
    READY = "READY"
    SLEEPING = "SLEEPING"
    DRAINING = "DRAINING"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSpec:
    """How to start one server. Names are vLLM's argument names, to the letter; `None` leaves vLLM its default.

    `gpu_type` and `gpus` say what the server takes: `gpus` is a fraction where several servers share one GPU.
    """

    model: str
    region: str
    gpu_type: str
    gpus: float
    profile: str | None = None
    model_path: str | None = None
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    dtype: str | None = None
    load_format: str = "auto"
    scheduling_policy: str | None = None
    enable_prefix_caching: bool | None = None
    async_scheduling: bool | None = None
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLoad:
    """A reading of a server's own gauges, with its age: `at_s` is when it was taken.

    `kv_cache_usage` is the fraction 0..1 that vLLM calls `vllm:kv_cache_usage_perc`.
    """

    at_s: float
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage: float
    num_preemptions_total: int = 0
    prompt_tokens_total: int = 0
    generation_tokens_total: int = 0


class ServerError(RuntimeError):
    """A server could not start, or died. The message is one line for the user; `log_tail` the end of its log."""

    def __init__(self, message: str, log_tail: str = "") -> None:
        super().__init__(message)
        self.log_tail = log_tail


Ended = Callable[[Completion], None]
"""Hears of the end of a request."""


class Received(NamedTuple):
    """What has come of an answer: when its first token did, in seconds of the run (None: none has), and how many."""

    first_token_s: float | None = None
    tokens: int = 0


NOTHING = Received()

BreakOff = Callable[[], Received]
"""Frees a request that is under way and tells what had come of its answer; harmless when it has ended."""


class Server(Protocol):
    """Something that starts, answers requests, tells its load, sleeps and wakes, and stops.

    `start` returns once READY and raises ServerError when it cannot. `begin` serves a request (`priority` in vLLM's
    sense: lower is sooner): `ended` is called once, when the last token has arrived or the request has failed, and not
    before `begin` has returned; what a server does is never raised. Once broken off a request has no end here.
    `sleep` (of a READY server) drains, then gives the GPUs back, and returns once SLEEPING; a server that cannot is
    STOPPING, with the reason, or FAILED, and raises ServerError: it is to be stopped. `wake` (of a SLEEPING one, on the
    GPUs it had) returns once READY and raises ServerError when it cannot. `stop` drains (no longer than `drain_s`),
    then releases everything; twice is harmless. `inject` makes a fault happen to it, from which it may become FAILED;
    one that does not apply any more does nothing. Times are in the running event loop's clock.
    """

    server_id: str
    spec: ServerSpec

    @property
    def state(self) -> ServerState: ...

    @property
    def kv_capacity_tokens(self) -> int: ...

    async def start(self) -> None: ...

    def begin(self, request: Request, ended: Ended, priority: int | None = None) -> BreakOff: ...

    async def load(self) -> ServerLoad: ...

    async def sleep(self, drain_s: float) -> None: ...

    async def wake(self) -> None: ...

    async def stop(self, drain_s: float) -> None: ...

    def inject(self, fault: Fault) -> None: ...

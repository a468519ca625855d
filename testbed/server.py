"""A server: one vLLM process on `tensor_parallel_size` GPUs, real or emulated."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from workloads.completion import Completion
from workloads.request import Request


class ServerState(StrEnum):
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


class Server(Protocol):
    """Something that starts, answers requests, tells its load and stops.

    `start` returns once READY and raises ServerError when it cannot. `send` returns when the last token has arrived
    and never raises for what the server does: a failure is a Completion with its outcome. `stop` drains (no longer
    than `drain_s`), then releases everything; twice is harmless. Times are in the running event loop's clock.
    """

    server_id: str
    spec: ServerSpec

    @property
    def state(self) -> ServerState: ...

    @property
    def kv_capacity_tokens(self) -> int: ...

    async def start(self) -> None: ...

    async def send(self, request: Request) -> Completion: ...

    async def load(self) -> ServerLoad: ...

    async def stop(self, drain_s: float) -> None: ...

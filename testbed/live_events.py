"""What a run tells, as it happens, whoever wants to see it under way."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controller.history import DemandHistory
from controller.types import Observation, Placement, PlacementState, ScalingPlan
from profiler.gpu_meter import GpuReading
from testbed.server import ServerState
from workloads.completion import Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerChange:
    """A server entered `state` at `at_s`, in which it holds `gpus` (0 asleep, or on its way from there to its end)."""

    at_s: float
    server_id: str
    placement: Placement
    gpus: float
    state: ServerState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """Time 0, when the initial servers have settled: the times told until now are `before_s` too late."""

    before_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The run's time is over and its requests have ended; what comes now is servers going home."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A policy saw `seen` and answered with `plan`."""

    seen: Observation
    plan: ScalingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGauge:
    """A READY server's own gauges, in vLLM's names."""

    at_s: float
    server_id: str
    num_requests_running: int
    num_requests_waiting: int
    kv_cache_usage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGauge:
    """All placements at one moment, the requests that wait in each model's NIW queue, and the demand seen so far, None
    where it comes with the decisions alone."""

    at_s: float
    placements: Mapping[Placement, PlacementState]
    niw_queued: Mapping[str, int]
    demand: DemandHistory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """How late the load generator was with the requests that it handed over since it last told, in seconds."""

    at_s: float
    lateness_s: "array[float]"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGauge:
    """A reading of one GPU of the machine; `gpu` is NVML's number."""

    gpu: int
    reading: GpuReading


Event = Completion | ServerChange | Began | Served | Decided | ServerGauge | PoolGauge | HandedOver | GpuGauge

Listener = Callable[[Event], None]
"""Hears of every event in the run's own thread, in the order in which they happen; must return at once."""

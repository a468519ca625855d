"""Where servers come from: emulated ones from a profile, real ones as vLLM processes."""

import asyncio
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from controller.rules.ordering import Order
from controller.types import Placement
from testbed.capacities import ModelCapacity, start_s, stop_s
from testbed.emulated_server import EmulatedServer
from testbed.gpu_slots import GpuSlots, deal_gpus
from testbed.lifecycle import StateListener
from testbed.scenario import Mode, Scenario
from testbed.server import Server, ServerSpec
from testbed.sleep_times import sleep_times
from testbed.step_noise import StepNoise
from workloads.clock import RunClock


class ServerSource(AbstractContextManager["ServerSource"], Protocol):
    """Makes servers and GPU slots; a context that lasts as long as the run of all policies."""

    def slots(self) -> Mapping[tuple[str, str], GpuSlots]:
        """Fresh slots by (region, gpu_type), all free: every policy begins so."""
        ...

    def make(
        self,
        placement: Placement,
        server_id: str,
        gpu_indices: tuple[int, ...],
        *,
        clock: RunClock,
        on_change: StateListener,
        tasks: asyncio.TaskGroup,
        folder: Path,
    ) -> Server:
        """A server that has not been started. `tasks` is where it may keep a watcher, `folder` where its files go."""
        ...

    def capacity_tokens(self, server: Server) -> float:
        """What the router's utilisation divides a server's tokens in flight by."""
        ...

    def gpu_indices(self) -> tuple[int, ...]:
        """GPUs of this machine that servers may stand on; () where they are imagined."""
        ...


class EmulatedSource(AbstractContextManager["EmulatedSource"]):
    """Emulated servers, with the profile of their model on their GPU type."""

    def __init__(self, scenario: Scenario, found: Mapping[tuple[str, str], ModelCapacity]) -> None:
        self._scenario = scenario
        self._found = found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def slots(self) -> Mapping[tuple[str, str], GpuSlots]:
        return imagined_slots(self._scenario)

    def make(
        self,
        placement: Placement,
        server_id: str,
        gpu_indices: tuple[int, ...],  # noqa: ARG002 - imagined ones
        *,
        clock: RunClock,
        on_change: StateListener,
        tasks: asyncio.TaskGroup,  # noqa: ARG002 - no process to watch
        folder: Path,  # noqa: ARG002 - no files
    ) -> Server:
        model = self._scenario.models[placement.model]
        profile = self._found[(placement.model, placement.gpu_type)].profile
        sleep = sleep_times(f"models.{placement.model}", model, profile, Mode.VIRTUAL)
        noise_cv = self._scenario.step_noise_cv
        return EmulatedServer(
            server_spec(self._scenario, placement),
            server_id,
            profile=profile,
            clock=clock,
            on_change=on_change,
            start_s=start_s(model, profile, Mode.VIRTUAL),
            stop_s=stop_s(model, profile),
            sleep_s=sleep.sleep_s or 0.0,
            wake_s=sleep.wake_s or 0.0,
            noise=StepNoise(noise_cv, self._scenario.seed, server_id) if noise_cv else None,
            health_timeout_s=self._scenario.recovery.health_timeout_s,
        )

    def capacity_tokens(self, server: Server) -> float:
        return capacity_tokens(self._scenario, self._found, server)

    def gpu_indices(self) -> tuple[int, ...]:
        return ()


def capacity_tokens(scenario: Scenario, found: Mapping[tuple[str, str], ModelCapacity], server: Server) -> float:
    """Tokens that fit a server's KV cache, or that it has in flight at theta, as the scenario's router counts."""
    if scenario.router.utilisation == "kv_cache":
        return float(server.kv_capacity_tokens)
    return found[(server.spec.model, server.spec.gpu_type)].slo_tokens


def service_s_per_token(found: Mapping[tuple[str, str], ModelCapacity]) -> dict[str, float]:
    """Seconds that a request is in a server at theta for each of its prompt and output tokens, by model: Little's law.

    With N requests in flight theta tokens/s give theta / N to each. The slowest GPU type of a model counts.
    """
    seconds: dict[str, float] = {}
    for (model, _), capacity in found.items():
        each = capacity.theta.concurrency / capacity.theta.theta_tokens_per_s
        seconds[model] = max(each, seconds.get(model, 0.0))
    return seconds


def quotas_of(scenario: Scenario) -> dict[tuple[str, str], float]:
    """GPUs by (region, gpu_type), in the order of the file."""
    return {
        (region, gpu_type): gpus
        for region, config in scenario.regions.items()
        for gpu_type, gpus in config.gpus.items()
    }


def imagined_slots(scenario: Scenario) -> dict[tuple[str, str], GpuSlots]:
    """Slots of GPUs that need not exist, numbered through all regions."""
    quotas = quotas_of(scenario)
    indices = range(sum(math.ceil(gpus) for gpus in quotas.values()))
    return dict(zip(quotas, map(GpuSlots, deal_gpus(list(quotas.values()), indices)), strict=True))


def server_spec(scenario: Scenario, placement: Placement, model_path: str | None = None) -> ServerSpec:
    """How the scenario starts a server of this placement; `model_path` replaces vLLM's model argument."""
    model = scenario.models[placement.model]
    vllm = model.vllm
    return ServerSpec(
        model=placement.model,
        region=placement.region,
        gpu_type=placement.gpu_type,
        gpus=model.gpus,
        profile=model.profiles[placement.gpu_type],
        model_path=model_path or vllm.model,
        tensor_parallel_size=model.tensor_parallel_size,
        max_model_len=model.max_model_len,
        max_num_seqs=model.max_num_seqs,
        max_num_batched_tokens=model.max_num_batched_tokens,
        gpu_memory_utilization=vllm.gpu_memory_utilization,
        kv_cache_memory_bytes=vllm.kv_cache_memory_bytes,
        dtype=vllm.dtype,
        load_format=vllm.load_format,
        enable_prefix_caching=vllm.enable_prefix_caching,
        async_scheduling=vllm.async_scheduling,
        scheduling_policy=None if scenario.router.order is Order.FCFS else "priority",
        extra_args=vllm.extra_args,
        env=dict(vllm.env),
    )

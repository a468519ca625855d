"""Real servers: vLLM processes on this machine's GPUs, or on its CPU."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from controller.types import Placement
from profiler.gpu_types import CPU
from profiler.model_folder import write_model_folder
from profiler.model_shapes import MODEL_SHAPES
from testbed.capacities import ModelCapacity
from testbed.doctor import find_vllm_python
from testbed.gpu_inventory import gpu_inventory
from testbed.gpu_slots import GpuSlots, deal_gpus
from testbed.lifecycle import StateListener
from testbed.ports import Ports
from testbed.process_guard import ProcessGuard
from testbed.scenario import Scenario, ScenarioError
from testbed.server import Server
from testbed.server_sources import capacity_tokens, imagined_slots, quotas_of, server_spec
from testbed.vllm_host import VllmHost
from testbed.vllm_server import VllmServer
from workloads.clock import RunClock


class VllmSource(AbstractContextManager["VllmSource"]):
    """vLLM servers; on exit whatever of them still runs is ended, also when the testbed is killed.

    Raises ScenarioError when vLLM is not installed, or the machine has fewer GPUs than the regions want.
    """

    def __init__(self, scenario: Scenario, found: Mapping[tuple[str, str], ModelCapacity]) -> None:
        python = find_vllm_python()
        if python is None:
            raise ScenarioError(
                "mode vllm: no vLLM in this Python; install it, or name an interpreter that has it in "
                "TESTBED_VLLM_PYTHON (`testbed doctor` tells what is missing)"
            )
        self._python = python
        self._scenario = scenario
        self._found = found
        self._owned = _owned_gpus(scenario)
        self._guard = ProcessGuard()
        self._ports = Ports(first=scenario.ports.first, last=scenario.ports.last)
        self._host: VllmHost | None = None

    def __enter__(self) -> "VllmSource":
        self._guard.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.__exit__(kind, error, trace)

    def slots(self) -> Mapping[tuple[str, str], GpuSlots]:
        imagined = imagined_slots(self._scenario)
        return {key: GpuSlots(self._owned[key]) if key in self._owned else imagined[key] for key in imagined}

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
        if self._host is None or self._host.tasks is not tasks:
            logs = folder / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            self._host = VllmHost(
                python=self._python,
                log_folder=logs.absolute(),
                guard=self._guard,
                tasks=tasks,
                ports=self._ports,
                start_timeout_s=self._scenario.server_start_timeout_s,
                health_every_s=self._scenario.recovery.health_every_s,
                health_timeout_s=self._scenario.recovery.health_timeout_s,
            )
        return VllmServer(
            server_spec(self._scenario, placement, self._model_path(placement.model, folder)),
            server_id,
            clock=clock,
            on_change=on_change,
            host=self._host,
            gpu_indices=() if placement.gpu_type == CPU else gpu_indices,
            sleep_level=self._scenario.models[placement.model].sleep_level,
        )

    def capacity_tokens(self, server: Server) -> float:
        return capacity_tokens(self._scenario, self._found, server)

    def gpu_indices(self) -> tuple[int, ...]:
        return tuple(sorted({index for shares in self._owned.values() for index in shares}))

    def _model_path(self, name: str, folder: Path) -> str:
        """What vLLM is told to load; a built-in shape becomes a folder with its config and a tokenizer."""
        given = self._scenario.models[name].vllm.model or name
        if given not in MODEL_SHAPES:
            return given
        at = (folder / "models" / given).absolute()
        if not at.exists():
            write_model_folder(MODEL_SHAPES[given], at)
        return str(at)


def _owned_gpus(scenario: Scenario) -> dict[tuple[str, str], dict[int, float]]:
    """GPU indices and shares by (region, gpu_type), for every type that is not the CPU."""
    wanted = {key: gpus for key, gpus in quotas_of(scenario).items() if key[1] != CPU}
    if not wanted:
        return {}
    inventory = gpu_inventory()
    present = [gpu.index for gpu in inventory.gpus]
    if not present:
        raise ScenarioError(
            f"mode vllm: the regions want {sum(wanted.values()):g} GPUs, and there is none ({inventory.reason}); "
            f"run with --mode virtual, or give the regions GPUs of type {CPU!r}"
        )
    named: dict[tuple[str, str], dict[int, float]] = {}
    for (region, gpu_type), gpus in wanted.items():
        indices = scenario.regions[region].gpu_indices.get(gpu_type)
        if indices is None:
            continue
        if missing := [index for index in indices if index not in present]:
            raise ScenarioError(
                f"regions.{region}.gpu_indices.{gpu_type}: no GPU {missing[0]}; have {', '.join(map(str, present))}"
            )
        try:
            named[(region, gpu_type)] = deal_gpus([gpus], indices)[0]
        except ValueError as error:
            raise ScenarioError(f"regions.{region}.gpus.{gpu_type}: {error}") from error
    rest = {key: gpus for key, gpus in wanted.items() if key not in named}
    free = [index for index in present if not any(index in shares for shares in named.values())]
    try:
        return {**named, **dict(zip(rest, deal_gpus(list(rest.values()), free), strict=True))}
    except ValueError as error:
        raise ScenarioError(f"mode vllm: {error}") from error

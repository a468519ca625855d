"""Scenario files: everything an experiment depends on, in one strict YAML file."""

from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator, model_validator

from profiler.gpu_types import CPU
from testbed.bad_input import BadInput
from testbed.fault_parts import FaultConfig, RecoveryConfig
from testbed.scenario_parts import (
    CapacityConfig,
    GpuPrice,
    Interval,
    ModelConfig,
    NiwConfig,
    PortRange,
    Positive,
    RegionConfig,
    RouterConfig,
    SloConfig,
    WorkloadConfig,
)
from testbed.strict import FolderName, Strict, nearest
from workloads.request import Tier
from workloads.slo import SAGESERVE_SLOS, Slo


class Mode(StrEnum):
    VIRTUAL = "virtual"
    EMULATED = "emulated"
    VLLM = "vllm"


class ScenarioError(BadInput):
    """A scenario cannot be read or cannot be run: one line for the user."""


class Scenario(Strict):
    """An experiment. `seed` is mandatory: the same scenario and seed give the same bytes in virtual time.

    `step_noise_cv`: coefficient of variation of an emulated server's iteration times around those of its profile.
    """

    name: FolderName
    description: str = ""
    mode: Mode = Mode.VIRTUAL
    seed: int = Field(ge=0)
    models: dict[str, ModelConfig] = Field(min_length=1)
    regions: dict[str, RegionConfig] = Field(min_length=1)
    gpu_types: dict[str, GpuPrice] = Field(default_factory=dict)
    tiers: dict[Tier, SloConfig] = Field(default_factory=dict)
    workload: WorkloadConfig
    router: RouterConfig = RouterConfig()
    niw: NiwConfig = NiwConfig()
    capacity: CapacityConfig = CapacityConfig()
    initial_servers: int | dict[str, int | dict[str, int]] = 1
    min_servers: int = Field(default=1, ge=0)
    policies: dict[str, dict[str, Any]] = Field(min_length=1)
    demand_bin_s: Interval = 60.0
    gauge_every_s: Interval = 60.0
    drain_s: Positive = 600.0
    grace_s: Positive = 26 * 3600.0
    request_timeout_s: Positive | None = None
    server_start_timeout_s: Positive = 1800.0
    faults: tuple[FaultConfig, ...] = ()
    recovery: RecoveryConfig = RecoveryConfig()
    step_noise_cv: float = Field(default=0.0, ge=0, le=1)
    ports: PortRange = PortRange()

    @field_validator("policies", mode="before")
    @classmethod
    def _bare_policies(cls, value: Any) -> Any:
        """A policy without parameters may stand bare: `reactive:`."""
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_match(self) -> "Scenario":
        gpu_types = {gpu_type for region in self.regions.values() for gpu_type in region.gpus}
        for name, region in self.regions.items():
            for key, named in (("prefer", region.prefer), ("rtt_s", tuple(region.rtt_s))):
                for other in named:
                    if other not in self.regions:
                        raise ValueError(f"regions.{name}.{key}: no region {other!r}{nearest(other, self.regions)}")
        for name, model in self.models.items():
            if not gpu_types & set(model.profiles):
                raise ValueError(
                    f"models.{name}.profiles names {', '.join(model.profiles)}, "
                    f"but the regions have {', '.join(sorted(gpu_types))}; add a profile for one of these"
                )
            if self.mode is Mode.VLLM and model.sleep_level is not None and CPU in gpu_types & set(model.profiles):
                raise ValueError(
                    f"models.{name}.sleep_level {model.sleep_level}: vLLM's CPU build cannot sleep; leave sleep_level "
                    f"out, or give the regions GPUs of another type than {CPU!r}"
                )
        if self.workload.synthetic is not None:
            for name in self.workload.synthetic.models:
                if name not in self.models:
                    raise ValueError(f"workload.synthetic.models: no model {name!r}{nearest(name, self.models)}")
            for name in self.workload.synthetic.regions:
                if name not in self.regions:
                    raise ValueError(f"workload.synthetic.regions: no region {name!r}{nearest(name, self.regions)}")
        for number, fault in enumerate(self.faults):
            for key, given, known in (
                ("model", fault.model, set(self.models)),
                ("region", fault.region, set(self.regions)),
                ("gpu_type", fault.gpu_type, gpu_types),
            ):
                if given is not None and given not in known:
                    raise ValueError(f"faults.{number}.{key}: no {key} {given!r}{nearest(given, known)}")
        self._initial_fits()
        return self

    def _initial_fits(self) -> None:
        used: dict[tuple[str, str], float] = {}
        for (model, region, gpu_type), count in self.initial_counts().items():
            key = (region, gpu_type)
            used[key] = used.get(key, 0.0) + count * self.models[model].gpus
        for (region, gpu_type), gpus in used.items():
            owned = self.regions[region].gpus.get(gpu_type, 0.0)
            if gpus > owned + 1e-9:
                raise ValueError(
                    f"initial_servers take {gpus:g} GPUs of type {gpu_type} in region {region}, which has {owned:g}; "
                    "start fewer servers or give the region more GPUs"
                )

    def initial_counts(self) -> dict[tuple[str, str, str], int]:
        """Servers at the start by (model, region, gpu_type), each on the region's first GPU type with a profile.

        Raises ValueError for an unknown model or region, a number below 0, or a region without GPUs for a model that it
        starts with.
        """
        counts: dict[tuple[str, str, str], int] = {}
        if isinstance(self.initial_servers, dict):
            for model in self.initial_servers:
                if model not in self.models:
                    raise ValueError(f"initial_servers: no model {model!r}{nearest(model, self.models)}")
        for model, config in self.models.items():
            wanted = (
                self.initial_servers if isinstance(self.initial_servers, int) else self.initial_servers.get(model, 0)
            )
            if isinstance(wanted, dict):
                for region in wanted:
                    if region not in self.regions:
                        raise ValueError(
                            f"initial_servers.{model}: no region {region!r}{nearest(region, self.regions)}"
                        )
            for region, owner in self.regions.items():
                count = wanted if isinstance(wanted, int) else wanted.get(region, 0)
                if count < 0:
                    raise ValueError(f"initial_servers: {count} of {model} in region {region}; wanted 0 or more")
                if count == 0:
                    continue
                gpu_type = next((g for g in owner.gpus if g in config.profiles), None)
                if gpu_type is None:
                    raise ValueError(
                        f"initial_servers: {count} of {model} in region {region}, which has no GPU that {model} has "
                        f"a profile for (region: {', '.join(owner.gpus)}; model: {', '.join(config.profiles)})"
                    )
                counts[(model, region, gpu_type)] = count
        return counts

    def slos(self) -> dict[Tier, Slo]:
        """SLO by tier: SageServe's where the scenario says nothing."""
        return {**SAGESERVE_SLOS, **{tier: config.slo() for tier, config in self.tiers.items()}}

    def round_trips(self) -> dict[tuple[str, str], float]:
        """Seconds between (region of origin, region of the server), where a region says."""
        given = {(name, other): rtt_s for name, config in self.regions.items() for other, rtt_s in config.rtt_s.items()}
        return {(other, name): rtt_s for (name, other), rtt_s in given.items()} | given

    def preferred_regions(self, origin: str) -> tuple[str, ...]:
        """Every region, in the order in which a request of `origin` tries them."""
        first = self.regions[origin].prefer or (origin,)
        return (*first, *(region for region in self.regions if region not in first))

"""Scenario files: everything an experiment depends on, in one strict YAML file."""

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from testbed.bad_input import BadInput
from testbed.strict import Strict, nearest, one_line
from workloads.request import Tier
from workloads.slo import SAGESERVE_SLOS, Slo
from workloads.synthesis import SyntheticWorkload

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Mode(StrEnum):
    VIRTUAL = "virtual"
    EMULATED = "emulated"
    VLLM = "vllm"


class ScenarioError(BadInput):
    """A scenario cannot be read or cannot be run: one line for the user."""


class VllmArguments(Strict):
    """What a model's servers are started with, in vLLM's argument names; left out means vLLM's own default.

    `model` is a Hugging Face id, a folder, or the name of a built-in shape whose folder the testbed generates.
    """

    model: str | None = None
    dtype: str | None = None
    load_format: str = "auto"
    gpu_memory_utilization: Fraction | None = None
    kv_cache_memory_bytes: int | None = Field(default=None, gt=0)
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)


class ModelConfig(Strict):
    """One model: its profile per GPU type, how big its servers are, how they start.

    `gpus_per_server` is a fraction where several servers share one GPU; left out it is `tensor_parallel_size`.
    `start_s` and `stop_s` override the profile's lifecycle times for emulated servers.
    """

    profiles: dict[str, str]
    tensor_parallel_size: int = Field(default=1, ge=1)
    gpus_per_server: Positive | None = None
    max_num_seqs: int = Field(default=256, ge=1)
    max_num_batched_tokens: int = Field(default=8192, ge=1)
    max_model_len: int | None = Field(default=None, ge=1)
    start_s: float | None = Field(default=None, ge=0)
    stop_s: float | None = Field(default=None, ge=0)
    vllm: VllmArguments = VllmArguments()

    @property
    def gpus(self) -> float:
        return self.gpus_per_server or float(self.tensor_parallel_size)

    @model_validator(mode="after")
    def _gpu_share(self) -> "ModelConfig":
        if self.tensor_parallel_size > 1 and self.gpus != self.tensor_parallel_size:
            raise ValueError(
                f"gpus_per_server {self.gpus} with tensor_parallel_size {self.tensor_parallel_size}: "
                "a server over several GPUs takes them whole; leave gpus_per_server out"
            )
        if not self.profiles:
            raise ValueError("profiles is empty; name a profile for at least one GPU type")
        return self


class RegionConfig(Strict):
    """GPUs of a region by type; `prefer` orders the regions its requests try (itself first when left out).

    `gpu_indices` names the machine's GPUs behind each type in vllm mode; left out, GPUs are dealt in file order.
    """

    gpus: dict[str, Positive]
    prefer: tuple[str, ...] = ()
    gpu_indices: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class GpuPrice(Strict):
    usd_per_gpu_h: float = Field(default=0.0, ge=0)


class SloConfig(Strict):
    ttft_s: Positive | None = None
    tpot_s: Positive | None = None
    deadline_s: Positive | None = None

    def slo(self) -> Slo:
        return Slo(ttft_s=self.ttft_s, tpot_s=self.tpot_s, deadline_s=self.deadline_s)


class WorkloadConfig(Strict):
    """Either `synthetic` or `trace` (a Parquet file of ours, relative to the scenario file).

    `history_h` hours before the run are synthesised with it and given to the forecasts as what was seen before.
    """

    synthetic: SyntheticWorkload | None = None
    trace: Path | None = None
    history_h: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> "WorkloadConfig":
        if (self.synthetic is None) == (self.trace is None):
            raise ValueError("give exactly one of synthetic and trace")
        if self.trace is not None and self.history_h:
            raise ValueError("history_h comes with a synthetic workload; for a trace leave it out")
        return self


class RouterConfig(Strict):
    """SageServe's global rule: the first preferred region whose effective utilisation is below `region_threshold`.

    `utilisation` divides the tokens of requests in flight by the KV cache (`kv_cache`, the paper's), or by the
    tokens in flight when a server runs at its capacity within the SLO (`slo`).
    """

    region_threshold: Positive = 0.70
    utilisation: Literal["kv_cache", "slo"] = "kv_cache"
    no_server_timeout_s: Positive = 600.0


class NiwConfig(Strict):
    """When a pool takes waiting NIW requests, and when one is treated as interactive."""

    take_one_below: Fraction = 0.60
    take_two_below: Fraction = 0.50
    promote_after_s: Positive = 10 * 3600.0


class CapacityConfig(Strict):
    """How theta follows from a profile: `utilisation` of the highest rate within the SLO that is planned for.

    `extrapolate` allows a measured profile to be used beyond what was measured.
    """

    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.9
    extrapolate: bool = False


class PortRange(Strict):
    """Where real servers listen, on 127.0.0.1. Below 32768 the system takes no ports for outgoing connections."""

    first: int = Field(default=20_000, ge=1024, le=65_535)
    last: int = Field(default=29_999, ge=1024, le=65_535)

    @model_validator(mode="after")
    def _in_order(self) -> "PortRange":
        if self.first > self.last:
            raise ValueError(f"first {self.first} lies above last {self.last}; swap them")
        return self


class Scenario(Strict):
    """An experiment. `seed` is mandatory: the same scenario and seed give the same bytes in virtual time."""

    name: str = Field(min_length=1)
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
    demand_bin_s: Positive = 60.0
    gauge_every_s: Positive = 60.0
    drain_s: Positive = 600.0
    grace_s: Positive = 26 * 3600.0
    request_timeout_s: Positive | None = None
    server_start_timeout_s: Positive = 1800.0
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
            for preferred in region.prefer:
                if preferred not in self.regions:
                    raise ValueError(
                        f"regions.{name}.prefer: no region {preferred!r}{nearest(preferred, self.regions)}"
                    )
        for name, model in self.models.items():
            if not gpu_types & set(model.profiles):
                raise ValueError(
                    f"models.{name}.profiles names {', '.join(model.profiles)}, "
                    f"but the regions have {', '.join(sorted(gpu_types))}; add a profile for one of these"
                )
        if self.workload.synthetic is not None:
            for name in self.workload.synthetic.models:
                if name not in self.models:
                    raise ValueError(f"workload.synthetic.models: no model {name!r}{nearest(name, self.models)}")
            for name in self.workload.synthetic.regions:
                if name not in self.regions:
                    raise ValueError(f"workload.synthetic.regions: no region {name!r}{nearest(name, self.regions)}")
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

        Raises ValueError for an unknown model or region, or for a region without GPUs for a model it starts with.
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

    def preferred_regions(self, origin: str) -> tuple[str, ...]:
        """Every region, in the order in which a request of `origin` tries them."""
        first = self.regions[origin].prefer or (origin,)
        return (*first, *(region for region in self.regions if region not in first))


def bundled_scenarios() -> dict[str, Path]:
    """The scenarios that come with the testbed, by name."""
    folder = Path(str(files("testbed") / "scenarios"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_scenario(name_or_path: str, overrides: tuple[str, ...] = ()) -> tuple[Scenario, Path]:
    """Read a scenario, bundled or from a file, with `a.b=c` overrides; returns it and where it was read from.

    Raises ScenarioError with one line for a missing file, bad YAML, an unknown key or a value out of range.
    """
    path = Path(name_or_path)
    bundled = bundled_scenarios()
    if not path.is_file():
        if name_or_path not in bundled:
            hint = nearest(name_or_path, bundled)
            raise ScenarioError(f"no scenario {name_or_path!r}: neither a file nor a bundled name{hint}")
        path = bundled[name_or_path]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ScenarioError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ScenarioError(f"{path}: holds {type(values).__name__}, wanted a mapping of scenario keys")
    for text in overrides:
        override(values, text)
    try:
        return Scenario.model_validate(values), path
    except ValidationError as error:
        raise ScenarioError(f"{path.name}: {one_line(error, Scenario)}") from error


def override(values: dict[str, Any], given: str) -> None:
    """Set one key of nested mappings in place: `a.b=value`, the value read as YAML. Raises ScenarioError."""
    key, equals, text = given.partition("=")
    if not equals or not key:
        raise ScenarioError(f"--set {given!r}: wanted a.b=value")
    *parents, last = key.split(".")
    at = values
    for parent in parents:
        if at.get(parent) is None:
            at[parent] = {}
        at = at[parent]
        if not isinstance(at, dict):
            raise ScenarioError(f"--set {given!r}: {parent} is no mapping")
    try:
        at[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ScenarioError(f"--set {given!r}: {text!r} is not a YAML value") from error

"""Scenario files: everything an experiment depends on, in one strict YAML file."""

from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from controller.rules.niw import DeadlineRules, NiwRule, NiwRules
from controller.rules.ordering import Order
from controller.rules.routing import RegionRule, RoutingRules, ServerRule
from testbed.bad_input import BadInput
from testbed.strict import Strict, nearest, one_line
from workloads.request import Tier
from workloads.slo import SAGESERVE_SLOS, Slo
from workloads.synthesis import SyntheticWorkload

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# The GPU type of a region that has none: in vllm mode its servers run on the CPU build of vLLM.
CPU = "cpu"


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
    Servers can sleep when `sleep_level` is given, vLLM's: 1 keeps the weights in host memory, 2 drops them. `sleep_s`
    and `wake_s` override the profile's times of that level for emulated servers, and stand in for what it lacks.
    """

    profiles: dict[str, str]
    tensor_parallel_size: int = Field(default=1, ge=1)
    gpus_per_server: Positive | None = None
    max_num_seqs: int = Field(default=256, ge=1)
    max_num_batched_tokens: int = Field(default=8192, ge=1)
    max_model_len: int | None = Field(default=None, ge=1)
    start_s: float | None = Field(default=None, ge=0)
    stop_s: float | None = Field(default=None, ge=0)
    sleep_level: Literal[1, 2] | None = None
    sleep_s: float | None = Field(default=None, ge=0)
    wake_s: float | None = Field(default=None, ge=0)
    vllm: VllmArguments = VllmArguments()

    @property
    def gpus(self) -> float:
        return self.gpus_per_server or float(self.tensor_parallel_size)

    @model_validator(mode="after")
    def _fits_together(self) -> "ModelConfig":
        if self.tensor_parallel_size > 1 and self.gpus != self.tensor_parallel_size:
            raise ValueError(
                f"gpus_per_server {self.gpus} with tensor_parallel_size {self.tensor_parallel_size}: "
                "a server over several GPUs takes them whole; leave gpus_per_server out"
            )
        if self.sleep_level is None and (self.sleep_s is not None or self.wake_s is not None):
            raise ValueError("sleep_s or wake_s without sleep_level: the servers do not sleep; give sleep_level 1 or 2")
        if not self.profiles:
            raise ValueError("profiles is empty; name a profile for at least one GPU type")
        return self


class RegionConfig(Strict):
    """GPUs of a region by type; `prefer` orders the regions its requests try (itself first when left out).

    `rtt_s`: seconds of a round trip to other regions, by name; from there to here it is the same unless that region
    says otherwise, and 0 where neither says. `gpu_indices` names the machine's GPUs behind each type in vllm mode; left
    out, GPUs are dealt in file order.
    """

    gpus: dict[str, Positive]
    prefer: tuple[str, ...] = ()
    rtt_s: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict)
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

    The `history_h` hours before the run are given to the forecasts as what was seen before: of a synthetic workload
    they are synthesised with it, of a trace they are its first hours, and the rest of it is the run.
    """

    synthetic: SyntheticWorkload | None = None
    trace: Path | None = None
    history_h: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> "WorkloadConfig":
        if (self.synthetic is None) == (self.trace is None):
            raise ValueError("give exactly one of synthetic and trace")
        return self


class RouterConfig(Strict):
    """How requests find a server; the rules are in `controller/rules/routing.py` and `ordering.py`.

    `region_rule` threshold is SageServe's: the first preferred region whose effective utilisation is below
    `region_threshold`. `server_rule` chooses within a pool, `order` among the requests that wait in a server.
    `spill_above`: utilisation of a pool's interactive servers from which its mixed ones take interactive requests.
    `utilisation` divides the tokens of requests in flight by the KV cache (`kv_cache`, the paper's), or by the
    tokens in flight when a server runs at its capacity within the SLO (`slo`).
    """

    region_threshold: Positive = 0.70
    region_rule: RegionRule = RegionRule.THRESHOLD
    server_rule: ServerRule = ServerRule.JSQ
    spill_above: Positive = 0.70
    order: Order = Order.FCFS
    utilisation: Literal["kv_cache", "slo"] = "kv_cache"
    no_server_timeout_s: Positive = 600.0

    def rules(self, seed: int) -> RoutingRules:
        return RoutingRules(
            region=self.region_rule,
            server=self.server_rule,
            region_threshold=self.region_threshold,
            spill_above=self.spill_above,
            seed=seed,
        )


class NiwConfig(Strict):
    """When a pool takes waiting NIW requests, and when one is treated as interactive (`controller/rules/niw.py`).

    By `age`, SageServe's rule: after `promote_after_s` in the queue. By `deadline`: when `promote_slack` is left of the
    slack that the request came with; until then the two thresholds rise to the router's `region_threshold`.
    """

    rule: Literal["age", "deadline"] = "age"
    take_one_below: Fraction = 0.60
    take_two_below: Fraction = 0.50
    promote_after_s: Positive = 10 * 3600.0
    promote_slack: Fraction = 0.1

    @model_validator(mode="after")
    def _in_order(self) -> "NiwConfig":
        if self.take_two_below > self.take_one_below:
            raise ValueError(
                f"take_two_below {self.take_two_below:g} lies above take_one_below {self.take_one_below:g}; swap them"
            )
        return self

    def rules(
        self, region_threshold: float, service_s_per_token: Mapping[str, float], deadline_after_s: float
    ) -> NiwRule:
        """The rule, with what it needs to know beside these keys."""
        if self.rule == "deadline":
            return DeadlineRules(
                take_one_below=self.take_one_below,
                take_two_below=self.take_two_below,
                region_threshold=region_threshold,
                promote_slack=self.promote_slack,
                deadline_after_s=deadline_after_s,
                s_per_token=service_s_per_token,
            )
        return NiwRules(
            take_one_below=self.take_one_below,
            take_two_below=self.take_two_below,
            promote_after_s=self.promote_after_s,
        )


class CapacityConfig(Strict):
    """How theta follows from a profile: `utilisation` of the highest rate within the SLO that is planned for.

    `extrapolate` allows a measured profile to be used beyond what was measured. With `follow_mix` theta is computed
    anew when the mean lengths of the last hours have moved by a tenth.
    """

    utilisation: Annotated[float, Field(gt=0, le=1)] = 0.9
    extrapolate: bool = False
    follow_mix: bool = True


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

    def round_trips(self) -> dict[tuple[str, str], float]:
        """Seconds between (region of origin, region of the server), where a region says."""
        given = {(name, other): rtt_s for name, config in self.regions.items() for other, rtt_s in config.rtt_s.items()}
        return {(other, name): rtt_s for (name, other), rtt_s in given.items()} | given

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
    values, path = scenario_values(name_or_path)
    for text in overrides:
        override(values, text)
    try:
        return Scenario.model_validate(values), path
    except ValidationError as error:
        raise ScenarioError(f"{path.name}: {one_line(error, Scenario)}") from error


def scenario_values(name_or_path: str) -> tuple[dict[str, Any], Path]:
    """The keys and values of a scenario, bundled or from a file, not yet checked; and where they were read from.

    Raises ScenarioError for a missing file, bad YAML, or a file that holds no mapping.
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
    return values, path


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

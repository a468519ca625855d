"""The parts of a scenario file: models, regions, workload, router, NIW queue, capacity."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from controller.rules.niw import DeadlineRules, NiwRule, NiwRules
from controller.rules.ordering import Order
from controller.rules.routing import RegionRule, RoutingRules, ServerRule
from testbed.admission import Admission
from testbed.strict import Strict
from testbed.vllm_command import check_env, check_extra_args
from workloads.slo import Slo
from workloads.synthesis import SyntheticWorkload

# Of months: what is longer is in another unit.
LONGEST_HISTORY_H = 24 * 400.0

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# What is done that often: a millisecond apart at least, or a run would do nothing else.
Interval = Annotated[float, Field(ge=1e-3, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class VllmArguments(Strict):
    """What a model's servers are started with, in vLLM's argument names; left out means vLLM's own default.

    `model` is a Hugging Face id, a folder, or the name of a built-in shape whose folder the testbed generates.
    """

    model: str | None = None
    dtype: str | None = None
    load_format: str = "auto"
    gpu_memory_utilization: Fraction | None = None
    kv_cache_memory_bytes: int | None = Field(default=None, gt=0)
    enable_prefix_caching: bool | None = None
    async_scheduling: bool | None = None
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _leaves_ours_alone(self) -> "VllmArguments":
        check_extra_args(self.extra_args)
        check_env(self.env)
        return self


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
    history_h: float = Field(default=0.0, ge=0, le=LONGEST_HISTORY_H)

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
    tokens in flight when a server runs at its capacity within the SLO (`slo`). An interactive request is rejected when
    the pool chosen for it is at a utilisation above `reject_above`, and any when `max_waiting` of its model wait for a
    server already; left out, nothing is rejected.
    """

    region_threshold: Positive = 0.70
    region_rule: RegionRule = RegionRule.THRESHOLD
    server_rule: ServerRule = ServerRule.JSQ
    spill_above: Positive = 0.70
    order: Order = Order.FCFS
    utilisation: Literal["kv_cache", "slo"] = "kv_cache"
    no_server_timeout_s: Positive = 600.0
    reject_above: Positive | None = None
    max_waiting: int | None = Field(default=None, ge=0)

    def admission(self) -> Admission:
        return Admission(reject_above=self.reject_above, max_waiting=self.max_waiting)

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
    A request that finds `max_queued` of its model in the queue is rejected; left out, none is.
    """

    rule: Literal["age", "deadline"] = "age"
    take_one_below: Fraction = 0.60
    take_two_below: Fraction = 0.50
    promote_after_s: Positive = 10 * 3600.0
    promote_slack: Fraction = 0.1
    max_queued: int | None = Field(default=None, ge=0)

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

"""What a policy sees and what it answers: the boundary between deciding and doing.

A policy is told everything in an `Observation` and answers with a `ScalingPlan`. Whatever a policy must remember
travels in the plan itself (`Memory`) and comes back as `Observation.previous`; policies hold no state of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from controller.history import DemandHistory


class Pool(NamedTuple):
    """One model in one region."""

    model: str
    region: str

    def __str__(self) -> str:
        return f"{self.model}@{self.region}"


class Placement(NamedTuple):
    """Servers of one model in one region on one GPU type: what a plan counts (indices i, j, k of the ILP)."""

    model: str
    region: str
    gpu_type: str

    @property
    def pool(self) -> Pool:
        return Pool(self.model, self.region)

    def __str__(self) -> str:
        return f"{self.model}@{self.region}/{self.gpu_type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one server of a model on a GPU type offers and costs; known before the run, from its profile.

    `theta_tokens_per_s`: prompt + output tokens/s that one server sustains within its SLO.
    `gpus`: GPUs one server takes (a fraction where several servers share one). `start_s`: from command to READY.
    """

    theta_tokens_per_s: float
    gpus: float
    start_s: float
    usd_per_gpu_h: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """What stays the same during a run: capacities, quotas, the least count.

    `capacity` holds every (model, gpu_type) that can be served; `quota_gpus` the GPUs of each (region, gpu_type).
    """

    models: tuple[str, ...]
    regions: tuple[str, ...]
    capacity: Mapping[tuple[str, str], Capacity]
    quota_gpus: Mapping[tuple[str, str], float]
    min_servers: int = 1

    def placements(self) -> tuple[Placement, ...]:
        """Every (model, region, gpu_type) where a server could stand, in a fixed order."""
        return tuple(
            Placement(model, region, gpu_type)
            for model in self.models
            for region in self.regions
            for (r, gpu_type) in self.quota_gpus
            if r == region and (model, gpu_type) in self.capacity
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementState:
    """Servers of one placement by state, and how loaded they are.

    `utilisation`: effective KV utilisation 0..1 (above 1 when requests wait), over READY servers; 0 with none.
    `outstanding_tokens`: prompt and output tokens of the requests sent and not ended.
    """

    starting: int = 0
    ready: int = 0
    draining: int = 0
    utilisation: float = 0.0
    outstanding_tokens: int = 0

    @property
    def active(self) -> int:
        """n of the ILP: servers that serve now or soon."""
        return self.starting + self.ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Tokens/s to expect for one (model, region of origin), one value per step.

    `mean_tokens_per_s` and `upper_tokens_per_s` (the quantile named by `upper_quantile`) have one entry per step of
    `step_s` seconds, the first step beginning at `from_s`. `fell_back_because` is "" when the named method itself
    answered.
    """

    from_s: float
    step_s: float
    mean_tokens_per_s: tuple[float, ...]
    upper_tokens_per_s: tuple[float, ...]
    upper_quantile: float
    method: str
    fell_back_because: str = ""

    @property
    def peak_mean_tokens_per_s(self) -> float:
        return max(self.mean_tokens_per_s)

    @property
    def peak_upper_tokens_per_s(self) -> float:
        return max(self.upper_tokens_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveReport:
    """A solver's answer: termination (PuLP's `sol_status` in words), objective, best bound, relative gap, seconds.

    `shortfall_tokens_per_s` is demand that no allowed plan can serve, priced and reported; 0 when all is served.
    `solve_wall_s` depends on the machine and is left out of every digest.
    """

    termination: str
    objective: float
    best_bound: float | None
    gap: float | None
    shortfall_tokens_per_s: float
    variables: int
    constraints: int
    solve_wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change of a plan against what stands now, with its reason in words."""

    placement: Placement
    change: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a policy keeps from one decision to the next.

    `budget`: counts the last long-term program chose; `budget_until_s`: when it lapses; `forecasts`: what it was
    given, by (model, region); `last_change_s`: when each placement was last changed.
    """

    budget: Mapping[Placement, int] = field(default_factory=lambda: MappingProxyType({}))
    budget_until_s: float = 0.0
    forecasts: Mapping[Pool, Forecast] = field(default_factory=lambda: MappingProxyType({}))
    last_change_s: Mapping[Placement, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPlan:
    """Absolute server counts per placement (applying twice is harmless), when to decide next, and why.

    `next_decision_s` is absolute. `solve` is present when a program was solved for this very plan.
    """

    counts: Mapping[Placement, int]
    next_decision_s: float
    steps: tuple[Step, ...] = ()
    solve: SolveReport | None = None
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything a policy may know at `at_s`: the past and the present, never the future.

    `demand` holds tokens/s by (model, region of origin) on a regular grid up to now. `niw_queued_tokens` are those
    waiting in the NIW queue by model.
    """

    at_s: float
    limits: FleetLimits
    placements: Mapping[Placement, PlacementState]
    demand: DemandHistory
    niw_queued_tokens: Mapping[str, int]
    previous: ScalingPlan | None = None


class Policy(Protocol):
    """Pure: the same observation gives the same plan; no clock, no I/O, no chance."""

    @property
    def name(self) -> str: ...

    def decide(self, seen: Observation) -> ScalingPlan: ...


class Fleet(Protocol):
    """Something to observe and to apply a plan to."""

    async def observe(self) -> Observation: ...

    async def apply(self, plan: ScalingPlan) -> None: ...


PolicyParameters = Mapping[str, Any]

"""What a policy sees and what it answers: the boundary between deciding and doing.

A policy is told everything in an `Observation` and answers with a `ScalingPlan`. Whatever a policy must remember
travels in the plan itself (`Memory`) and comes back as `Observation.previous`; policies hold no state of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from controller.history import DemandHistory


class Pool(NamedTuple):
    """One model in one region."""

    model: str
    region: str

    def __str__(self) -> str:
        return f"{self.model}@{self.region}"


class Role(StrEnum):
    """Which requests a server takes. shared, mixed: all of them; interactive: IW-F and IW-N; batch: NIW.

    A `mixed` server takes interactive requests only once the interactive ones of its pool are busy.
    """

    SHARED = "shared"
    INTERACTIVE = "interactive"
    MIXED = "mixed"
    BATCH = "batch"

    @property
    def takes_interactive(self) -> bool:
        return self is not Role.BATCH

    @property
    def takes_niw(self) -> bool:
        return self is not Role.INTERACTIVE


class Silo(NamedTuple):
    """The servers of one role in a pool. Most policies have one role, `shared`, and so one silo for each pool."""

    model: str
    region: str
    role: Role = Role.SHARED

    @property
    def pool(self) -> Pool:
        return Pool(self.model, self.region)

    def __str__(self) -> str:
        return str(self.pool) if self.role is Role.SHARED else f"{self.pool}#{self.role.value}"


class Placement(NamedTuple):
    """Servers of one model in one region on one GPU type in one role: what a plan counts (indices i, j, k of the
    ILP, which knows one role).
    """

    model: str
    region: str
    gpu_type: str
    role: Role = Role.SHARED

    @property
    def pool(self) -> Pool:
        return Pool(self.model, self.region)

    @property
    def silo(self) -> Silo:
        return Silo(self.model, self.region, self.role)

    def __str__(self) -> str:
        shared = f"{self.model}@{self.region}/{self.gpu_type}"
        return shared if self.role is Role.SHARED else f"{shared}#{self.role.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one server of a model on a GPU type offers and costs; known before the run, from its profile.

    `theta_tokens_per_s`: prompt + output tokens/s that one server sustains within its SLO, at the length mix seen.
    `gpus`: GPUs one server takes (a fraction where several servers share one). `start_s`: from command to READY.
    `prefill_tokens_per_s` and `decode_tokens_per_s`: the same capacity taken apart: p prompt tokens/s and o output
    tokens/s take p / prefill + o / decode servers; None where only theta is known. `sleep_s` and `wake_s`: from READY
    to sleeping and back; None where servers of the model cannot sleep. `stay_s`: how long a request may stay with a
    server within its SLO, waiting included; what arrives is served over that time. 0: within the bin that it came in.
    `saturated_tokens_per_s`: what it serves within the SLO while requests queue, None where only theta is known;
    `patience_s`: how long a request may queue, 0 where more load than theta is missed whole.
    """

    theta_tokens_per_s: float
    gpus: float
    start_s: float
    usd_per_gpu_h: float = 0.0
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    sleep_s: float | None = None
    wake_s: float | None = None
    stay_s: float = 0.0
    saturated_tokens_per_s: float | None = None
    patience_s: float = 0.0

    @property
    def can_sleep(self) -> bool:
        return self.wake_s is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLimits:
    """What bounds a plan: capacities, quotas, the least count. Capacities move with the length mix, and a quota is less
    once servers have failed on its GPUs again and again; the rest stays.

    `capacity` holds every (model, gpu_type) that can be served; `quota_gpus` the GPUs of each (region, gpu_type).
    `min_servers` counts for each silo; `roles` are those that the policy divides its servers into. `rtt_s`: round
    trip between (region of origin, region of the server); left out means 0.
    """

    models: tuple[str, ...]
    regions: tuple[str, ...]
    capacity: Mapping[tuple[str, str], Capacity]
    quota_gpus: Mapping[tuple[str, str], float]
    min_servers: int = 1
    roles: tuple[Role, ...] = (Role.SHARED,)
    rtt_s: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))

    def placements(self) -> tuple[Placement, ...]:
        """Every (model, region, gpu_type, role) where a server could stand, in a fixed order."""
        return tuple(
            Placement(model, region, gpu_type, role)
            for model in self.models
            for region in self.regions
            for (r, gpu_type) in self.quota_gpus
            if r == region and (model, gpu_type) in self.capacity
            for role in self.roles
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementState:
    """Servers of one placement by state, and how loaded they are.

    `utilisation`: effective KV utilisation 0..1 (above 1 when requests wait), over READY servers; 0 with none.
    `outstanding_tokens`: prompt and output tokens of the requests sent and not ended. `starting` counts those that wake
    up too, and `ready_at_s` is when each of the starting ones is expected to be READY, soonest first. `sleeping`
    servers hold host memory and no GPU.
    """

    starting: int = 0
    ready: int = 0
    draining: int = 0
    sleeping: int = 0
    utilisation: float = 0.0
    outstanding_tokens: int = 0
    ready_at_s: tuple[float, ...] = ()

    @property
    def active(self) -> int:
        """n of the ILP: servers that serve now or soon."""
        return self.starting + self.ready


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastQuantile:
    """What demand stays at or below with probability `level`, tokens/s: each step on its own (`path`), and the highest
    of all steps (`peak`).
    """

    level: float
    path_tokens_per_s: tuple[float, ...]
    peak_tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Tokens/s to expect for one (model, region of origin), one value per step.

    `mean_tokens_per_s` and `upper_tokens_per_s` have one entry per step of `step_s` seconds, the first step beginning
    at `from_s`. `upper` is the mean scaled so that its highest step is the quantile `upper_quantile` of the peak.
    `quantiles`, by rising level, are of means over `step_s` where they are of a path, over `peak_step_s` where of the
    peak. `fell_back_because` is "" when the named method itself answered; `warnings` are those of its fit.
    """

    from_s: float
    step_s: float
    mean_tokens_per_s: tuple[float, ...]
    upper_tokens_per_s: tuple[float, ...]
    upper_quantile: float
    method: str
    fell_back_because: str = ""
    warnings: tuple[str, ...] = ()
    quantiles: tuple[ForecastQuantile, ...] = ()
    peak_step_s: float | None = None

    @property
    def peak_mean_tokens_per_s(self) -> float:
        return max(self.mean_tokens_per_s)

    @property
    def peak_upper_tokens_per_s(self) -> float:
        return max(self.upper_tokens_per_s)

    def quantile(self, level: float) -> ForecastQuantile:
        """The quantile of exactly this level. Raises ValueError where the forecast carries none."""
        for each in self.quantiles:
            if each.level == level:
                return each
        carried = ", ".join(f"{each.level:g}" for each in self.quantiles) or "none"
        raise ValueError(f"no quantile {level:g} in a forecast that carries {carried}; add it to the levels asked for")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A row of a program that binds: its family (local, global, quota, minimum), what it is about (a pool, a model, a
    region's GPU type), and its shadow price: what one more unit of its right side costs in the objective, in the LP
    relaxation.
    """

    family: str
    subject: str
    shadow_price: float


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
    binding: tuple[Binding, ...] = ()


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
    given, by (model, region); `last_change_s`: when each placement was last changed; `numbers`: whatever else, by a
    name that `explain` can show.
    """

    budget: Mapping[Placement, int] = field(default_factory=lambda: MappingProxyType({}))
    budget_until_s: float = 0.0
    forecasts: Mapping[Pool, Forecast] = field(default_factory=lambda: MappingProxyType({}))
    last_change_s: Mapping[Placement, float] = field(default_factory=lambda: MappingProxyType({}))
    numbers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPlan:
    """Absolute server counts per placement (applying twice is harmless), when to decide next, and why.

    `next_decision_s` is absolute. `solve` is present when a program was solved for this very plan. `sleeping`: servers
    to keep asleep beside the counts; a server that is not wanted any more goes to sleep while there are fewer, and is
    stopped otherwise.
    """

    counts: Mapping[Placement, int]
    next_decision_s: float
    sleeping: Mapping[Placement, int] = field(default_factory=lambda: MappingProxyType({}))
    steps: tuple[Step, ...] = ()
    solve: SolveReport | None = None
    memory: Memory = field(default_factory=Memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything a policy may know at `at_s`: the past and the present, never the future.

    `demand` holds tokens/s by (model, region of origin) on a regular grid up to now. `niw_queued_tokens` are those
    waiting in the NIW queue by model. `niw_due`: the same by deadline, for each model (due_s, tokens) by rising due_s:
    so many tokens are due from then on, within the hour (a 24th of the tier's deadline, where that is no day); what has
    no deadline is left out.
    """

    at_s: float
    limits: FleetLimits
    placements: Mapping[Placement, PlacementState]
    demand: DemandHistory
    niw_queued_tokens: Mapping[str, int]
    previous: ScalingPlan | None = None
    niw_due: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=lambda: MappingProxyType({}))


class Policy(Protocol):
    """Pure: the same observation gives the same plan; no clock, no I/O, no chance.

    `roles` are those that it divides the servers of a pool into.
    """

    @property
    def name(self) -> str: ...

    @property
    def roles(self) -> tuple[Role, ...]: ...

    def decide(self, seen: Observation) -> ScalingPlan: ...


class Fleet(Protocol):
    """Something to observe and to apply a plan to."""

    async def observe(self) -> Observation: ...

    async def apply(self, plan: ScalingPlan) -> None: ...


PolicyParameters = Mapping[str, Any]

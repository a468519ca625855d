"""What the long-term program is asked and what it answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from controller.program.demand import Demand
from controller.types import FleetLimits, Placement, SolveReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingProblem:
    """`standing`: n, the servers there now; `period_s`: how long the answer will stand, which weighs running costs
    against start-up costs; `epsilon`: the share of a region's demand that must be served in the region.

    Demand below 0 (a forecast may say so) counts as 0. Raises ValueError for a number that is NaN or infinite, for a
    period of no time, and for capacities that are negative or take no GPU.
    """

    limits: FleetLimits
    standing: Mapping[Placement, int]
    demand: Demand
    epsilon: float
    period_s: float

    def __post_init__(self) -> None:
        for of, tokens in (*self.demand.local.items(), *self.demand.anywhere.items()):
            if not math.isfinite(tokens):
                raise ValueError(f"demand of {of} is {tokens} tokens/s; must be finite: look at its forecast")
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon={self.epsilon}; must be 0 or more, and finite")
        if not 0 < self.period_s < math.inf:
            raise ValueError(f"period_s={self.period_s}; must be above 0, and finite")
        for (model, gpu_type), c in self.limits.capacity.items():
            numbers = (c.theta_tokens_per_s, c.gpus, c.start_s, c.usd_per_gpu_h)
            if not all(0 <= number < math.inf for number in numbers) or c.gpus == 0:
                raise ValueError(
                    f"capacity of {model} on {gpu_type} is {numbers} (theta, gpus, start_s, usd_per_gpu_h);"
                    " each must be 0 or more and finite, and gpus above 0"
                )
        for (region, gpu_type), gpus in self.limits.quota_gpus.items():
            if not 0 <= gpus < math.inf:
                raise ValueError(f"quota of {gpu_type} in {region} is {gpus} GPUs; must be 0 or more, and finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSolution:
    """Servers for every placement of the limits, and how the solver came to them."""

    counts: Mapping[Placement, int]
    report: SolveReport


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """Relative gap at which a plan is good enough, and seconds after which the best plan known is taken.

    The linear program and its rounding run to their end whatever the limit: they are what gives a plan and a bound at
    all. An answer at the time limit depends on the machine's speed; the report's termination says so.
    """

    gap: float = 0.005
    time_limit_s: float = 60.0


DEFAULT_SETTINGS = SolverSettings()

"""From the whole problem to one pool per model, in which every plan of the whole problem is still possible.

A model's servers in all regions and on all GPU types are counted together, in units of GPUs. What the units must reach
in a step is the least number of GPUs whose servers cover the demand of all regions, or the sum of what every region
must hold, whichever is more; a start takes the shortest start-up of its types. Quotas that models share are left out.
Whatever a plan does, its units do too, at no more cost: the pool's cheapest plan is a lower bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import gcd, lcm

import numpy as np

from controller.bound.deferrable import Deferrable, deferrable
from controller.bound.need import Counts, Need, Values
from controller.bound.problem import ForesightProblem
from controller.types import Capacity, Pool

_ROUNDING = 1e-9
# The dynamic program looks at every number of units in every step.
MOST_UNITS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledModel:
    """One model as one pool. `unit_gpus`: GPUs of a unit; `theta_tokens_per_s`: the most that a unit serves.

    `local`: units that each region must hold, by region, of shape (steps,); `load`: interactive work in unit-steps,
    shape (steps,), as far as `need` covers it, `load_asked` all of it; `work`: what may wait. `capped`: steps in which
    more is asked than the quotas hold, or than servers that stood at time 0 serve before others can be READY. `absent`:
    units that regions should hold and have no room for, over regions and steps, minimums counted once.
    """

    unit_gpus: float
    theta_tokens_per_s: float
    need: Need
    local: dict[str, Counts]
    load: Values
    load_asked: Values
    work: Deferrable | None
    capped: int
    absent: int


def pooled(problem: ForesightProblem, model: str, gpu_types: Sequence[str]) -> PooledModel:
    """`model` as one pool that uses `gpu_types` alone.

    Raises ValueError where its demand takes more than MOST_UNITS.
    """
    limits, steps = problem.limits, problem.demand.steps
    kinds = {gpu_type: limits.capacity[model, gpu_type] for gpu_type in gpu_types}
    unit = _common_unit([kind.gpus for kind in kinds.values()])
    theta = max(kind.theta_tokens_per_s * unit / kind.gpus for kind in kinds.values())
    tokens_per_s = problem.demand.of_model(model)
    work, urgent = _waiting(problem, model, theta)
    load = tokens_per_s / theta + urgent
    start_s = min(kind.start_s for kind in kinds.values())
    # Whatever is started at time 0 is READY after its start-up: until then nobody has more than stood there.
    early = np.arange(steps) * problem.demand.step_s < (start_s if problem.initial is not None else 0.0)
    local: dict[str, Counts] = {}
    least = most = standing = absent = 0
    for region in limits.regions:
        here = [kind for gpu_type, kind in kinds.items() if (region, gpu_type) in limits.quota_gpus]
        if not here:
            continue
        room = _whole(_room_gpus(problem, model, region, gpu_types) / unit)
        minimum = _whole(limits.min_servers * min(kind.gpus for kind in here) / unit)
        floor = min(minimum, room)
        stood = _standing_units(problem, model, region, gpu_types, unit)
        origin = problem.epsilon * problem.demand.interactive.get(Pool(model, region), np.zeros(steps))
        own = _units_for(origin, here, unit)
        units = np.clip(own, floor, room)
        absent += minimum - floor + int(np.sum(np.maximum(own - room, 0)))
        local[region] = np.where(early, np.minimum(units, stood), units)
        # A minimum that the start state falls short of is not READY either before it has been started.
        least += floor if problem.initial is None else min(floor, stood)
        most, standing = most + room, standing + stood
    peak = float(np.max(load))
    if peak > MOST_UNITS:
        raise ValueError(
            f"{model}: {peak:,.0f} units of {unit:g} GPUs at its peak, more than the bound counts ({MOST_UNITS:,}); "
            "check theta and the unit of times in the trace"
        )
    asked = np.maximum(_units_for(load * theta, list(kinds.values()), unit), np.sum(list(local.values()), axis=0))
    required = np.where(early, np.minimum(asked, standing), np.minimum(asked, most))
    need = Need(
        required=required,
        start_steps=min(problem.lead_s(kind) for kind in kinds.values()) / problem.demand.step_s,
        cold_steps=start_s / problem.demand.step_s,
        least=least,
        initial=None if problem.initial is None else standing,
    )
    return PooledModel(
        unit_gpus=unit,
        theta_tokens_per_s=theta,
        need=need,
        local=local,
        load=np.minimum(load, required),
        load_asked=load,
        work=work,
        capped=int(np.sum(required < asked)),
        absent=absent,
    )


def _room_gpus(problem: ForesightProblem, model: str, region: str, gpu_types: Sequence[str]) -> float:
    """GPUs that servers of the model can fill in a region, type by type."""
    limits, room = problem.limits, 0.0
    for gpu_type in gpu_types:
        gpus = limits.capacity[model, gpu_type].gpus
        room += _whole(limits.quota_gpus.get((region, gpu_type), 0.0) / gpus) * gpus
    return room


def _standing_units(problem: ForesightProblem, model: str, region: str, gpu_types: Sequence[str], unit: float) -> int:
    """Units of the model in a region at time 0, on these types."""
    gpus = 0.0
    for p, servers in (problem.initial or {}).items():
        if p.model == model and p.region == region and p.gpu_type in gpu_types:
            gpus += servers * problem.limits.capacity[model, p.gpu_type].gpus
    return _whole(gpus / unit)


def _waiting(problem: ForesightProblem, model: str, theta: float) -> tuple[Deferrable | None, Values]:
    """What may wait, and what is due in the step of its arrival, which is as urgent as interactive work."""
    steps, waiting = problem.demand.steps, problem.demand.waiting.get(model)
    if waiting is None or len(waiting.tokens) == 0:
        return None, np.zeros(steps)
    work = waiting.tokens / (theta * problem.demand.step_s)
    now = waiting.due <= waiting.arrives
    urgent: Values = np.bincount(waiting.arrives[now], weights=work[now], minlength=steps).astype(np.float64)
    if now.all():
        return None, urgent
    return deferrable(waiting.arrives[~now], waiting.due[~now], work[~now], steps), urgent


def _units_for(tokens_per_s: Values, kinds: Sequence[Capacity], unit: float) -> Counts:
    """Least units whose servers cover `tokens_per_s`: most[n] = what n units serve at best, by dynamic programming."""
    sizes = [(_whole(kind.gpus / unit), kind.theta_tokens_per_s) for kind in kinds]
    peak = float(np.max(tokens_per_s)) * (1 - _ROUNDING)
    most = [0.0]
    while most[-1] < peak:
        n = len(most)
        most.append(max(most[-1], *(most[n - size] + theta if n >= size else 0.0 for size, theta in sizes)))
    return np.searchsorted(np.array(most), tokens_per_s * (1 - _ROUNDING), side="left").astype(np.int64)


def _common_unit(gpus: Sequence[float]) -> float:
    """The largest number of GPUs that all of `gpus` are multiples of."""
    exact = [Fraction(each).limit_denominator(10_000) for each in gpus]
    parts = lcm(*(each.denominator for each in exact))
    return reduce(gcd, (int(each * parts) for each in exact)) / parts


def _whole(value: float) -> int:
    return int(value + _ROUNDING)

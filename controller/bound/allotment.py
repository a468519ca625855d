"""From a pool's plan to servers in regions: a plan that a fleet could carry out within its quotas."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from controller.bound.levels import least_plan
from controller.bound.need import Counts, Need, Values, unit_steps
from controller.bound.pooled import PooledModel
from controller.bound.problem import ForesightProblem
from controller.types import Placement

FreeGpus = dict[tuple[str, str], Values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotment:
    """Servers READY by placement, each of shape (steps,), and what they cost in server-steps, starts included."""

    servers: Mapping[Placement, Counts]
    server_steps: float


def allot(
    problem: ForesightProblem, model: str, gpu_type: str, pool: PooledModel, plan: Counts, free: FreeGpus
) -> Allotment | None:
    """`plan` servers of `model` on one GPU type, shape (steps,), put into regions; None where quotas leave no room.

    Every region has what it must hold itself, smoothed over gaps shorter than a start; what is needed beyond their sum
    stands, one stay at a time, where it stood at time 0, else where most GPUs are free. Takes what it uses from `free`,
    GPUs by (region, type).
    """
    gpus, lead = pool.unit_gpus, math.ceil(max(pool.need.start_steps, pool.need.cold_steps))
    violated = plan < pool.need.required
    servers: dict[Placement, Counts] = {}
    cost = 0.0
    surplus: dict[str, int] = {}
    for region, local in pool.local.items():
        placement = Placement(model, region, gpu_type)
        stood = None if problem.initial is None else problem.initial.get(placement, 0)
        floor = int(local.min())
        need = Need(
            required=np.where(violated, floor, local), start_steps=pool.need.start_steps, least=floor, initial=stood
        )
        base = least_plan(need)
        cost += unit_steps(need, base)
        surplus[region] = max(0, (stood or 0) - int(base[0]))
        servers[placement] = base
        free[region, gpu_type] -= gpus * _held(base, lead)
    # Where work waits, the plan is more than its need: the rest was for that work.
    reach = pool.need.excused(violated).required if pool.work is None else plan
    beyond = np.maximum(reach - np.sum(list(servers.values()), axis=0), 0)
    extra = Need(
        required=beyond,
        start_steps=pool.need.start_steps,
        initial=None if problem.initial is None else sum(surplus.values()),
    )
    smooth = least_plan(extra)
    cost += unit_steps(extra, smooth)
    for first, last in _stays(smooth):
        window = slice(max(first - lead, 0), last)
        stood_in = [r for r, left in surplus.items() if left > 0] if first == 0 else []
        region = max(stood_in or pool.local, key=lambda r: float(free[r, gpu_type][window].min()))
        if stood_in:
            surplus[region] -= 1
        placement = Placement(model, region, gpu_type)
        servers[placement] = servers[placement].copy()
        servers[placement][first:last] += 1
        free[region, gpu_type][window] -= gpus
    # The first start of a server is a whole one, also where later ones only wake it.
    cold_extra = max(0.0, pool.need.cold_steps - pool.need.start_steps)
    for placement, counts in servers.items():
        stood = counts[0] if problem.initial is None else problem.initial.get(placement, 0)
        cost += cold_extra * max(0, int(counts.max()) - int(stood))
    if any(float(values.min()) < -1e-6 for values in free.values()):
        return None
    return Allotment(servers=servers, server_steps=cost)


def _held(servers: Counts, lead: int) -> Counts:
    """Servers READY or starting, shape (steps,), where each start takes `lead` steps."""
    rises = np.maximum(np.diff(servers, prepend=servers[0]), 0)
    sums = np.concatenate(([0], np.cumsum(np.concatenate((rises, np.zeros(lead, dtype=np.int64))))))
    starting = sums[lead + 1 :] - sums[1 : len(servers) + 1]
    return np.asarray(servers + starting, dtype=np.int64)


def _stays(plan: Counts) -> Iterator[tuple[int, int]]:
    """From and until when each server of a plan stands, level by level."""
    for level in range(1, int(plan.max(initial=0)) + 1):
        edges = np.flatnonzero(np.diff((plan >= level).astype(np.int8), prepend=0, append=0))
        yield from ((int(a), int(b)) for a, b in edges.reshape(-1, 2))

"""Policies against the bound of perfect foresight, in the fluid model: GPU-hours against violated minutes.

    python -m benchmarks.control [--traces DIR] [--start-s 300] [--servers 10] [--hours 24] [--csv FILE] [--quick]

Every policy is run with several values of its knob on every workload, from the same start state and with the same
history. The table names the GPU-hours above the bound that allows 1 % of violated minutes and the violated
minutes, both in per cent; then, for `mpc` at its default budget, how its GPU-hours compare with every other policy's
frontier at the same violation rate (interpolated between its knob values: the best of them in hindsight).
Synthetic workloads are always there; public traces where `--traces` holds them under their published names
(invocations_ten_second_Coding.csv, invocations_ten_second_Conversation.csv, and ServeGen's m-large rates).
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.control_workloads import Workload, public_workloads, synthetic_workloads
from controller.bound.foresight import least_gpu_hours
from controller.bound.problem import ForesightProblem, WholeDemand
from controller.catalogue import make_policy
from controller.fluid.load import FluidLoad
from controller.fluid.study import run_fluid
from controller.policies.mpc_parameters import MpcParameters
from controller.policies.oracle import TrueFuture, oracle
from controller.types import Capacity, FleetLimits, Policy

BUDGET = 0.01
WAKE_S = 60.0


def _hpa(target: float) -> dict[str, Any]:
    down = {"stabilisation_s": 0.0}
    return {"target": target, "window_s": 900.0, "interval_s": 60.0, "tolerance": 0.0, "scale_down": down}


def _reactive(above: float) -> dict[str, Any]:
    return {"scale_out_above": above, "scale_in_below": above / 2, "interval_s": 60.0}


def _long_term(quantile: float) -> dict[str, Any]:
    return {"forecast": {"peak_quantile": quantile}}


KNOBS: dict[str, list[tuple[float, dict[str, Any]]]] = {
    "hpa": [(x, _hpa(x)) for x in (1.2, 1.05, 0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25)],
    "reactive": [(x, _reactive(x)) for x in (0.9, 0.75, 0.6, 0.45, 0.3, 0.2)],
    "lt-i": [(x, _long_term(x)) for x in (0.5, 0.8, 0.9, 0.95, 0.99)],
    "lt-ua": [(x, _long_term(x)) for x in (0.5, 0.9, 0.99)],
    "mpc": [(x, {"budget": x}) for x in (0.0025, 0.005, 0.01, 0.02, 0.05)],
}
QUICK = {"hpa": 2, "reactive": 2, "lt-i": 4, "lt-ua": 4, "mpc": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run. `above`: GPU-hours over the bound less 1; `violated`: share of violated minutes."""

    workload: str
    policy: str
    knob: float
    gpu_h: float
    above: float
    violated: float
    missed: float
    wasted: float
    asleep_h: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--traces", type=Path, help="folder with public traces under their published names")
    parser.add_argument("--start-s", type=float, default=300.0)
    parser.add_argument("--servers", type=float, default=10.0, help="mean demand of a model, in servers")
    parser.add_argument("--hours", type=float, default=24.0, help="length of a run; what lies before is history")
    parser.add_argument("--policies", default=",".join(KNOBS), help="which to sweep")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--csv", type=Path, help="write every run here")
    parser.add_argument("--quick", action="store_true", help="fewer knob values, the synthetic chat day alone")
    given = parser.parse_args()
    points: list[Point] = []
    for workload in _workloads(given):
        found = list(_points(workload, given))
        points += found
        _print_frontiers(workload, found, [name for name in KNOBS if name in given.policies.split(",")])
        if given.csv:
            _write(given.csv, points)


def _workloads(given: argparse.Namespace) -> Iterator[Workload]:
    names = ("chat",) if given.quick else ("chat", "azure-office", "burst", "sageserve-day")
    yield from synthetic_workloads([name for name in names if given.only in name], hours=given.hours)
    if given.traces:
        yield from public_workloads(given.traces, hours=given.hours, only=given.only)


def _limits(workload: Workload, servers: float, start_s: float, wake_s: float | None) -> FleetLimits:
    models = tuple(dict.fromkeys(pool.model for pool in workload.interactive))
    regions = tuple(dict.fromkeys(pool.region for pool in workload.interactive))
    capacity = {}
    for model in models:
        mean = sum(float(s.mean()) for pool, s in workload.interactive.items() if pool.model == model)
        theta = mean / servers
        sleep_s = None if wake_s is None else 0.0
        capacity[model, "gpu"] = Capacity(
            theta_tokens_per_s=theta, gpus=1.0, start_s=start_s, sleep_s=sleep_s, wake_s=wake_s
        )
    return FleetLimits(
        models=models,
        regions=regions,
        capacity=capacity,
        quota_gpus={(region, "gpu"): 1e4 for region in regions},
        min_servers=0 if len(regions) > 1 else 1,
    )


def _bound_gpu_h(workload: Workload, limits: FleetLimits) -> float:
    demand = WholeDemand(step_s=60.0, interactive=workload.interactive, waiting={})
    return least_gpu_hours(ForesightProblem(demand=demand, limits=limits, violated_share=BUDGET)).lower_gpu_hours


def _points(workload: Workload, given: argparse.Namespace) -> Iterator[Point]:
    limits = _limits(workload, given.servers, given.start_s, None)
    bound = _bound_gpu_h(workload, limits)
    demand = sum(float(s.mean()) for s in workload.interactive.values())
    hours = len(next(iter(workload.interactive.values()))) / 60.0
    print(
        f"\n{workload.name}: {len(limits.models)} models, {len(limits.regions)} regions, {hours:g} h, "
        f"{demand:.0f} tokens/s, bound {bound:.1f} GPU-hours"
    )
    for name in given.policies.split(","):
        for knob, parameters in KNOBS[name][:: QUICK[name] if given.quick else 1]:
            yield _run(workload, limits, bound, name, knob, make_policy(name, parameters))
    future = TrueFuture(bin_s=60.0, interactive=workload.interactive)
    yield _run(workload, limits, bound, "oracle", BUDGET, oracle(MpcParameters(budget=BUDGET), future))
    asleep = _limits(workload, given.servers, given.start_s, WAKE_S)
    yield _run(workload, asleep, bound, "mpc asleep", BUDGET, make_policy("mpc", {"budget": BUDGET}))


def _run(workload: Workload, limits: FleetLimits, bound: float, name: str, knob: float, policy: Policy) -> Point:
    load = FluidLoad(bin_s=60.0, interactive=workload.interactive, interactive_before=workload.before)
    initial = {}
    for p in limits.placements():
        theta = limits.capacity[p.model, p.gpu_type].theta_tokens_per_s
        initial[p] = max(limits.min_servers, int(np.ceil(1.3 * float(workload.interactive[p.pool][0]) / theta)))
    started = time.perf_counter()
    found = run_fluid(policy, load, replace(limits), initial)
    point = Point(
        workload=workload.name,
        policy=name,
        knob=knob,
        gpu_h=found.gpu_h,
        above=found.gpu_h / bound - 1.0,
        violated=found.violated_share,
        missed=found.missed_share,
        wasted=found.wasted_gpu_h,
        asleep_h=found.sleeping_server_h,
        seconds=time.perf_counter() - started,
    )
    print(
        f"  {name:10} {knob:7.4g}  {100 * point.above:7.1f} % above  {100 * point.violated:6.2f} % violated  "
        f"{100 * point.missed:6.2f} % missed  wasted {point.wasted:6.1f} h  asleep {point.asleep_h:7.1f} h  "
        f"{point.seconds:5.1f} s",
        flush=True,
    )
    return point


def at_violation(points: list[Point], violated: float) -> float | None:
    """GPU-hours above the bound of a policy at a violation rate, between its knob values; None outside them."""
    frontier: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p.violated, p.above)):
        if not frontier or point.above < frontier[-1][1]:
            frontier.append((point.violated, point.above))
    if not frontier or violated < frontier[0][0]:
        return None
    return float(np.interp(violated, [v for v, _ in frontier], [above for _, above in frontier]))


def _print_frontiers(workload: Workload, points: list[Point], policies: list[str]) -> None:
    at_one = {name: at_violation([p for p in points if p.policy == name], BUDGET) for name in policies}
    words = ", ".join(f"{name} {'-' if a is None else f'{100 * a:.1f}'}" for name, a in at_one.items())
    print(f"  at {BUDGET:.0%} violated minutes, knob chosen in hindsight, % above the bound: {words}")
    ours = next((p for p in points if p.policy == "mpc" and p.knob == BUDGET), None)
    for name in policies if ours else []:
        if name == "mpc" or ours is None:
            continue
        theirs = at_violation([p for p in points if p.policy == name], ours.violated)
        if theirs is None:
            print(f"  mpc at {ours.violated:.2%} violated: {name} does not get there")
        else:
            change = (1 + ours.above) / (1 + theirs) - 1
            side = "under" if change < 0 else "ABOVE"
            print(
                f"  mpc at {ours.violated:.2%} violated: {side} the frontier of {name} by {abs(change):.1%} GPU-hours"
            )


def _write(path: Path, points: list[Point]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Point.__slots__)
        writer.writerows([getattr(point, name) for name in Point.__slots__] for point in points)


if __name__ == "__main__":
    sys.exit(main())

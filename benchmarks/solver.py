"""How fast the long-term program is solved, and how good the answers are: CPU seconds on one core, by size.

    python -m benchmarks.solver [--sizes 4x3x1,20x10x3,100x30x4] [--seed 0] [--big-m-limit-s 60]

Random fleets with the prices and speeds of GPU types as in the bundled profiles, three quarters of the GPUs needed,
servers standing for another hour's demand. `rounded`: relaxation, rounding, exchanges; `clean`: the whole route to the
gap given; `big-M`: the form with a binary "starts or not" per placement, a literal reading of max(0, delta).
Every gap is against the best bound that the clean form proved. `mpc` is another program, that of the policy of this
name, for the same fleet and demand; its gap is against its own bound.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
import pulp

from controller.mpc.needs import Needs
from controller.mpc.program import place
from controller.mpc.statement import PlacingProblem
from controller.program.demand import Demand
from controller.program.formulation import state
from controller.program.ilp import ScalingProblem, SolverSettings, solve
from controller.program.table import Table, tabulate
from controller.types import Capacity, FleetLimits, Placement, Pool

# theta in tokens/s relative to one H100, and USD per GPU and hour.
GPU_TYPES = {"h100": (1.0, 4.0), "a100-80gb": (0.55, 2.2), "l40s": (0.28, 1.2), "b200": (1.8, 7.5)}
GAPS = {"4x3x1": 0.0, "20x10x3": 0.005, "100x30x4": 0.002}
NEEDED = 0.75
MPC_LIMIT_S = 5.0


def random_problem(models: int, regions: int, gpu_types: int, seed: int) -> ScalingProblem:
    """A fleet of that size; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    names = tuple(f"model{i}" for i in range(models))
    places = tuple(f"region{j}" for j in range(regions))
    kinds = dict(list(GPU_TYPES.items())[:gpu_types])
    gpus = dict(zip(names, rng.choice([1.0, 1.0, 2.0, 4.0, 8.0], models).tolist(), strict=True))
    theta = {name: float(rng.uniform(3_000, 20_000)) for name in names}
    capacity = {
        (name, kind): Capacity(
            theta_tokens_per_s=theta[name] * speed * float(rng.uniform(0.85, 1.15)),
            gpus=gpus[name],
            start_s=float(rng.uniform(60, 600)),
            usd_per_gpu_h=usd,
        )
        for name in names
        for kind, (speed, usd) in kinds.items()
    }
    level = {name: theta[name] * float(rng.lognormal(1.5, 0.8)) for name in names}
    rho = {Pool(name, place): level[name] * float(rng.uniform(0.4, 1.6)) for name in names for place in places}
    speed_of_all = float(np.mean([speed for speed, _ in kinds.values()]))
    needed = {place: sum(rho[Pool(n, place)] / theta[n] * gpus[n] for n in names) for place in places}
    quota = {
        (place, kind): max(8.0, float(round(needed[place] / speed_of_all / NEEDED / gpu_types * rng.uniform(0.7, 1.3))))
        for place in places
        for kind in kinds
    }
    limits = FleetLimits(models=names, regions=places, capacity=capacity, quota_gpus=quota, min_servers=1)
    free, standing = dict(quota), dict[Placement, int]()
    for p in limits.placements():
        wanted = rng.poisson(rho[p.pool] / capacity[p.model, p.gpu_type].theta_tokens_per_s / gpu_types)
        standing[p] = min(int(wanted), int(free[p.region, p.gpu_type] / gpus[p.model]))
        free[p.region, p.gpu_type] -= standing[p] * gpus[p.model]
    demand = Demand(local=rho, anywhere={})
    return ScalingProblem(limits=limits, standing=standing, demand=demand, epsilon=0.8, period_s=3600.0)


def big_m_cost(table: Table, *, gap: float, time_limit_s: float) -> float:
    """The least cost found by the form with x whole, up = max(0, x - n) through a binary and its big M."""
    statement = state(replace(table, standing=np.zeros_like(table.standing)))  # every x in one piece
    lp = statement.lp
    cost: list[tuple[pulp.LpVariable, float]] = []
    for index, x in enumerate(statement.started):
        if x is None:
            continue
        most, standing = int(table.most[index]), int(table.standing[index])
        up = lp.add_variable(f"up{index}", 0, most)
        starts = lp.add_variable(f"starts{index}", 0, 1, pulp.LpInteger)
        big_m = float(max(most, standing))
        for terms, least in (
            ([(up, 1.0), (x, -1.0)], -standing),  # up >= delta
            ([(up, -1.0), (x, 1.0), (starts, -big_m)], -standing - big_m),  # up <= delta where it starts
            ([(up, -1.0), (starts, big_m)], 0.0),  # nothing comes up where it does not
        ):
            lp.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(terms), pulp.LpConstraintGE, rhs=least))
        cost += [(x, float(table.hold[index])), (up, float(table.start[index]))]
    lp.setObjective(pulp.LpAffineExpression(cost))
    lp.solve(pulp.HiGHS(msg=False, threads=1, gapRel=gap, timeLimit=time_limit_s, random_seed=0))
    found = lp.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    return float(lp.solverModel.getInfo().objective_function_value) if found else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default=",".join(GAPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--big-m-limit-s", type=float, default=60.0)
    given = parser.parse_args()
    print(f"{'models x regions x types':26} {'form':24} {'asked gap':>9} {'CPU s':>8} {'wall s':>8} {'gap':>9}  route")
    for size in given.sizes.split(","):
        models, regions, gpu_types = (int(part) for part in size.split("x"))
        _compare(size, random_problem(models, regions, gpu_types, given.seed), given.big_m_limit_s)


def _compare(size: str, problem: ScalingProblem, big_m_limit_s: float) -> None:
    gap = GAPS.get(size, 0.005)
    solve(problem, SolverSettings(gap=1.0))  # what is loaded once is not timed
    _, cpu_s, wall_s = _timed(lambda: state(tabulate(problem)))
    _line(size, "build", None, cpu_s, wall_s, None, "arrays and PuLP's program")
    rounded, *rounded_s = _timed(lambda: solve(problem, SolverSettings(gap=1.0)))
    clean, *clean_s = _timed(lambda: solve(problem, SolverSettings(gap=gap, time_limit_s=60.0)))
    bound = clean.report.best_bound or 0.0
    for name, asked, answer, seconds in (("rounded", None, rounded, rounded_s), ("clean", gap, clean, clean_s)):
        reached = 1 - bound / answer.report.objective if answer.report.objective else 0.0
        _line(size, name, asked, *seconds, max(0.0, reached), answer.report.termination)
    if big_m_limit_s > 0:
        cost, cpu_s, wall_s = _timed(lambda: big_m_cost(tabulate(problem), gap=gap, time_limit_s=big_m_limit_s))
        reached = None if cost == float("inf") else max(0.0, 1 - bound / cost)
        _line(
            size, f"big-M, {big_m_limit_s:g} s", gap, cpu_s, wall_s, reached, "" if reached is not None else "no plan"
        )
    placed, cpu_s, wall_s = _timed(lambda: place(_placing(problem)))
    _line(size, f"mpc, {MPC_LIMIT_S:g} s", None, cpu_s, wall_s, placed.report.gap, placed.report.termination)


def _placing(problem: ScalingProblem) -> PlacingProblem:
    """The same fleet and demand, as `mpc` asks."""
    local, asked = problem.demand.local, dict.fromkeys(problem.limits.models, 0.0)
    for pool, tokens_per_s in local.items():
        asked[pool.model] += tokens_per_s
    return PlacingProblem(
        limits=problem.limits,
        needs=Needs(tokens_per_s=asked, shares={pool: tokens / asked[pool.model] for pool, tokens in local.items()}),
        standing=problem.standing,
        asleep={},
        horizon_s=900.0,
        distance_price=1.0,
        time_limit_s=MPC_LIMIT_S,
    )


def _timed(work):  # type: ignore[no-untyped-def]
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    answer = work()
    return answer, time.process_time() - cpu_s, time.perf_counter() - wall_s


def _line(
    size: str, form: str, asked: float | None, cpu_s: float, wall_s: float, gap: float | None, route: str
) -> None:
    asked_text, gap_text = ("-" if value is None else f"{value:.3%}" for value in (asked, gap))
    print(f"{size:26} {form:24} {asked_text:>9} {cpu_s:8.3f} {wall_s:8.3f} {gap_text:>9}  {route}", flush=True)


if __name__ == "__main__":
    main()

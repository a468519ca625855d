"""Where servers go when models compete for GPUs, GPU types differ, or distance has a price: an integer program.

Indices: i model, j region of origin, r region of the server, k GPU type. Integers x[i,r,k], servers after this
decision; s + w >= x - n, servers to start and to wake, w <= asleep; flows f[i,j], tokens/s of origin j served
elsewhere; u[i], tokens/s without capacity; and v[i,r], servers missing to the minimum.

    minimise    sum hours alpha x + sum sigma s + sum omega w + sum hours lambda rtt[j] f + P sum u + Q sum v
    subject to  sum_rk theta[i,k] x[i,r,k] + u[i] >= sum_j need[i,j]
                sum_k theta[i,k] x[i,j,k] + f[i,j] >= need[i,j],  f[i,j] <= need[i,j]
                sum_ik gpus x[i,r,k] <= quota[r,k]
                sum_k x[i,r,k] + v[i,r] >= minimum

What leaves its region is priced by the round trip to the nearest other one: flows to each region apart would say the
same where these trips are alike, and make the program several times slower.

One step of the horizon is enough: `need` is the peak from now to the lead's end, and in a program of several steps
whose only costs are holding and starting, every server stands or falls alone (a network matrix, see
`controller.bound`): it is kept exactly while the next need of it is nearer than a start costs, which is what the peak
over the lead says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pulp

from controller.mpc.needs import Needs
from controller.program.prices import hourly_price, start_up_price
from controller.types import FleetLimits, Placement, Pool, SolveReport

_UNSERVED_PRICE = 50.0
"""Times the dearest capacity: what demand without capacity costs."""
_GAP = 0.002
"""Of the cost: a smaller gain is not worth a change, and to prove it takes ten times as long."""
_NOISE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingProblem:
    """`standing`: servers there now; `asleep` ones beside them, which wake for less than a start. `horizon_s`: how long
    the answer will stand about, which weighs holding against starting. `distance_price`: a second of round trip for
    all that one server serves costs so many times the server.
    """

    limits: FleetLimits
    needs: Needs
    standing: Mapping[Placement, int]
    asleep: Mapping[Placement, int]
    horizon_s: float
    distance_price: float
    time_limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingSolution:
    """Servers for every placement, and how the solver came to them."""

    counts: Mapping[Placement, int]
    report: SolveReport


def place(problem: PlacingProblem) -> PlacingSolution:
    """The cheapest counts. Demand beyond all GPUs is left unserved at a price and reported; the standing counts are
    the answer, by name, where the solver finds none.
    """
    limits, needs, hours = problem.limits, problem.needs, problem.horizon_s / 3600.0
    usable = {
        p: limits.capacity[p.model, p.gpu_type]
        for p in limits.placements()
        if limits.capacity[p.model, p.gpu_type].theta_tokens_per_s > 0
    }
    dearest = max((hourly_price(limits, p) / c.theta_tokens_per_s for p, c in usable.items()), default=1.0) * hours
    lp = pulp.LpProblem("placing", pulp.LpMinimize)
    x: dict[Placement, pulp.LpVariable] = {}
    cost = []
    for index, (p, c) in enumerate(usable.items()):
        most = int(limits.quota_gpus[p.region, p.gpu_type] / c.gpus + _NOISE)
        x[p] = lp.add_variable(f"x{index}", 0, most, cat=pulp.LpInteger)
        started = lp.add_variable(f"s{index}", 0, None)
        woken = lp.add_variable(f"w{index}", 0, problem.asleep.get(p, 0) if c.can_sleep else 0)
        lp.addConstraint(started + woken >= x[p] - problem.standing.get(p, 0))
        waking = hourly_price(limits, p) * (c.wake_s or 0.0) / 3600.0
        cost += [hourly_price(limits, p) * hours * x[p], start_up_price(limits, p) * started, waking * woken]
    for (region, gpu_type), quota in limits.quota_gpus.items():
        held = [c.gpus * x[p] for p, c in usable.items() if (p.region, p.gpu_type) == (region, gpu_type)]
        if held:
            lp.addConstraint(pulp.lpSum(held) <= quota + _NOISE)
    unserved = []
    for number, model in enumerate(limits.models):
        rooms = {r: [p for p in usable if p.model == model and p.region == r] for r in limits.regions}
        unserved.append(_serve(lp, problem, f"{number}", model, rooms, x, cost, dearest))
    lp.setObjective(pulp.lpSum(cost) + _UNSERVED_PRICE * dearest * pulp.lpSum(unserved))
    answered, seconds = _solved(lp, problem.time_limit_s)
    counts = {p: problem.standing.get(p, 0) for p in limits.placements()}
    if answered:
        found, cheapest = {p: round(v.value()) for p, v in x.items()}, float(pulp.value(lp.objective))
        for p, v in x.items():
            v.lowBound = v.upBound = counts[p]
        # Of plans as good as each other within the gap the one that stands: no change without a gain.
        stays, more = _solved(lp, problem.time_limit_s)
        seconds += more
        if not stays or float(pulp.value(lp.objective)) > cheapest * (1 + _GAP) + _NOISE:
            counts.update(found)
            for p, v in x.items():
                v.lowBound = v.upBound = found[p]
            answered, more = _solved(lp, problem.time_limit_s)
            seconds += more
    missing = sum(u.value() or 0.0 for u in unserved) if answered else sum(needs.tokens_per_s.values())
    report = SolveReport(
        termination=pulp.LpSolution[lp.sol_status] if answered else "No Solution Found, standing servers kept",
        objective=float(pulp.value(lp.objective) or 0.0) if answered else 0.0,
        best_bound=None,
        gap=_GAP if answered else None,
        shortfall_tokens_per_s=missing if missing > 1e-5 * sum(needs.tokens_per_s.values()) else 0.0,
        variables=len(lp.variables()),
        constraints=lp.numConstraints(),
        solve_wall_s=seconds,
    )
    return PlacingSolution(counts=counts, report=report)


def _solved(lp: pulp.LpProblem, time_limit_s: float) -> tuple[bool, float]:
    """Whether there is an answer, and the seconds it took."""
    lp.solve(pulp.HiGHS(msg=False, threads=1, gapRel=_GAP, timeLimit=time_limit_s, random_seed=0))
    return lp.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible), float(lp.solutionTime)


def _serve(
    lp: pulp.LpProblem,
    problem: PlacingProblem,
    number: str,
    model: str,
    rooms: Mapping[str, list[Placement]],
    x: Mapping[Placement, pulp.LpVariable],
    cost: list[pulp.LpAffineExpression],
    dearest: float,
) -> pulp.LpVariable:
    """Rows of one model: minimum, capacity, flows. Adds to `cost`; answers the tokens/s left unserved."""
    limits = problem.limits

    def capacity(region: str) -> pulp.LpAffineExpression:
        return pulp.lpSum(limits.capacity[p.model, p.gpu_type].theta_tokens_per_s * x[p] for p in rooms[region])

    for j, region in enumerate(limits.regions):
        if rooms[region] and limits.min_servers:
            short = lp.add_variable(f"v{number}_{j}", 0, limits.min_servers)
            lp.addConstraint(pulp.lpSum(x[p] for p in rooms[region]) + short >= limits.min_servers)
            theta = max(limits.capacity[p.model, p.gpu_type].theta_tokens_per_s for p in rooms[region])
            cost.append(10 * _UNSERVED_PRICE * dearest * theta * short)
    need = {region: problem.needs.of_pool(Pool(model, region)) for region in limits.regions}
    missing = lp.add_variable(f"u{number}", 0, None)
    lp.addConstraint(pulp.lpSum(capacity(r) for r in limits.regions) + missing >= sum(need.values()))
    for j, origin in enumerate(limits.regions):
        nearest_s = min((limits.rtt_s.get((origin, r), 0.0) for r in limits.regions if r != origin), default=0.0)
        if need[origin] > 0 and nearest_s > 0:
            away = lp.add_variable(f"f{number}_{j}", 0, need[origin])
            lp.addConstraint(away + capacity(origin) >= need[origin])
            cost.append(problem.distance_price * nearest_s * dearest * away)
    return missing

"""Where servers go when models compete for GPUs, GPU types differ, or distance has a price: an integer program.

Indices: i model, j region of origin, r region of the server, k GPU type. Integers x[i,r,k], servers after this
decision; s + w >= x - n, servers to start and to wake, w <= asleep; flows f[i,j], tokens/s of origin j served
elsewhere; u[i], tokens/s without capacity; and v[i,r], servers missing to the minimum.

    minimise    sum hours alpha x + sum sigma s + sum omega w + sum hours lambda rtt[j] f
    subject to  sum_rk theta[i,k] x[i,r,k] + u[i] >= sum_j need[i,j]
                sum_k theta[i,k] x[i,j,k] + f[i,j] >= need[i,j],  f[i,j] <= need[i,j]
                sum_ik gpus x[i,r,k] <= quota[r,k]
                sum_k x[i,r,k] + v[i,r] >= minimum

u and v are 0 wherever GPUs allow that. Where they do not, the least of 10 theta v + u is found first and the cheapest
plan with that after it: at a price for them a small need would be cheaper to leave than to serve, and a gap of the cost
would be worth many servers.

What leaves its region is priced by the round trip to the nearest other one: flows to each region apart would say the
same where these trips are alike, and make the program several times slower.

One step of the horizon is enough: `need` is the peak from now to the lead's end, and in a program of several steps
whose only costs are holding and starting, every server stands or falls alone (a network matrix, see
`controller.bound`): it is kept exactly while the next need of it is nearer than a start costs, which is what the peak
over the lead says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulp

from controller.mpc.needs import Needs
from controller.program.prices import hourly_price, start_up_price
from controller.types import FleetLimits, Placement, Pool, SolveReport

_MISSING_MINIMUM = 10.0
"""Times what it serves: how much worse a server missing to the minimum is than demand without capacity."""
_GAP = 0.002
"""Of the cost: a smaller gain is not worth a change, and to prove it takes ten times as long."""
_NOISE = 1e-6
_SLACK = 1e-5
"""Of a need: so much may miss unseen, since whole servers are whole within 1e-6 only to the solver."""


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
    """The cheapest counts that serve the most. Demand beyond all GPUs is left unserved and reported; the standing
    counts are the answer, by name, where the solver finds none.
    """
    limits, hours = problem.limits, problem.horizon_s / 3600.0
    asked = sum(problem.needs.tokens_per_s.values())
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
    short = _Short()
    for number, model in enumerate(limits.models):
        rooms = {r: [p for p in usable if p.model == model and p.region == r] for r in limits.regions}
        _serve(lp, problem, f"{number}", model, rooms, x, cost, dearest, short)
    money = pulp.lpSum(cost)
    answered, seconds = _solved(lp, money, problem.time_limit_s)
    if not answered:
        short.allow()
        answered, more = _solved(lp, short.penalty(), problem.time_limit_s)
        seconds += more
        if answered:
            least = float(pulp.value(lp.objective))
            lp.addConstraint(short.penalty() <= least + _SLACK * asked)
            answered, more = _solved(lp, money, problem.time_limit_s)
            seconds += more
    counts = {p: problem.standing.get(p, 0) for p in limits.placements()}
    if answered:
        found, cheapest = {p: round(v.value()) for p, v in x.items()}, float(pulp.value(lp.objective))
        for p, v in x.items():
            v.lowBound = v.upBound = counts[p]
        # Of plans as good as each other within the gap the one that stands: no change without a gain.
        stays, more = _solved(lp, money, problem.time_limit_s)
        seconds += more
        if not stays or float(pulp.value(lp.objective)) > cheapest * (1 + _GAP) + _NOISE:
            counts.update(found)
            for p, v in x.items():
                v.lowBound = v.upBound = found[p]
            answered, more = _solved(lp, money, problem.time_limit_s)
            seconds += more
    missing = sum(u.value() or 0.0 for u in short.demand) if answered else asked
    report = SolveReport(
        termination=pulp.LpSolution[lp.sol_status] if answered else "No Solution Found, standing servers kept",
        objective=float(pulp.value(lp.objective) or 0.0) if answered else 0.0,
        best_bound=None,
        gap=_GAP if answered else None,
        shortfall_tokens_per_s=missing if missing > _SLACK * asked else 0.0,
        variables=len(lp.variables()),
        constraints=lp.numConstraints(),
        solve_wall_s=seconds,
    )
    return PlacingSolution(counts=counts, report=report)


@dataclass(frozen=True, slots=True)
class _Short:
    """What is not there, next to 0 until it is allowed: tokens/s without capacity, and servers to minimums, with the
    most that may miss and what each would serve."""

    demand: list[pulp.LpVariable] = field(default_factory=list)
    minimums: list[tuple[pulp.LpVariable, int, float]] = field(default_factory=list)

    def allow(self) -> None:
        for variable in self.demand:
            variable.upBound = None
        for variable, most, _ in self.minimums:
            variable.upBound = most

    def penalty(self) -> pulp.LpAffineExpression:
        """In tokens/s."""
        return pulp.lpSum(self.demand) + pulp.lpSum(_MISSING_MINIMUM * theta * v for v, _, theta in self.minimums)


def _solved(lp: pulp.LpProblem, objective: pulp.LpAffineExpression, time_limit_s: float) -> tuple[bool, float]:
    """Whether there is an answer, and the seconds it took."""
    lp.setObjective(objective)
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
    short: _Short,
) -> None:
    """Rows of one model: minimum, capacity, flows. Adds to `cost` and to what may be `short`."""
    limits = problem.limits

    def capacity(region: str) -> pulp.LpAffineExpression:
        return pulp.lpSum(limits.capacity[p.model, p.gpu_type].theta_tokens_per_s * x[p] for p in rooms[region])

    for j, region in enumerate(limits.regions):
        if rooms[region] and limits.min_servers:
            absent = lp.add_variable(f"v{number}_{j}", 0, 0)
            lp.addConstraint(pulp.lpSum(x[p] for p in rooms[region]) + absent >= limits.min_servers)
            theta = max(limits.capacity[p.model, p.gpu_type].theta_tokens_per_s for p in rooms[region])
            short.minimums.append((absent, limits.min_servers, theta))
    need = {region: problem.needs.of_pool(Pool(model, region)) for region in limits.regions}
    missing = lp.add_variable(f"u{number}", 0, _SLACK * sum(need.values()))
    short.demand.append(missing)
    lp.addConstraint(pulp.lpSum(capacity(r) for r in limits.regions) + missing >= sum(need.values()))
    for j, origin in enumerate(limits.regions):
        nearest_s = min((limits.rtt_s.get((origin, r), 0.0) for r in limits.regions if r != origin), default=0.0)
        if need[origin] > 0 and nearest_s > 0:
            away = lp.add_variable(f"f{number}_{j}", 0, need[origin])
            lp.addConstraint(away + capacity(origin) >= need[origin])
            cost.append(problem.distance_price * nearest_s * dearest * away)

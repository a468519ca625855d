"""The integer program of `controller.mpc.program`, stated in PuLP.

Indices: i model, j region of origin, r region of the server, k GPU type. Integers x[i,r,k], servers after this
decision; s + w >= x - n, servers to start and to wake, w <= asleep; flows f[i,j], tokens/s of origin j
served elsewhere; u[i], tokens/s without capacity; and v[i,r], servers missing to the minimum.

    minimise    sum hours alpha x + sum sigma s + sum omega w + sum hours lambda[i] rtt[j] f
    subject to  sum_rk theta[i,k] x[i,r,k] + u[i] >= sum_j need[i,j]
                sum_k theta[i,k] x[i,j,k] + f[i,j] >= need[i,j],  f[i,j] <= need[i,j]
                sum_ik gpus x[i,r,k] <= quota[r,k]
                sum_k x[i,r,k] + v[i,r] >= minimum

u and v are 0 until a shortage is allowed.

What leaves its region is priced by the round trip to the nearest other one: flows to each region apart would say the
same where these trips are alike, and make the program several times slower.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulp

from controller.mpc.needs import Needs
from controller.program.prices import hourly_price, start_up_price
from controller.types import Capacity, FleetLimits, Placement, Pool

SLACK = 1e-5
"""Of a need: so much may miss unseen, since whole servers are whole within 1e-6 only to the solver."""
_MISSING_MINIMUM = 10.0
"""Times what it serves: how much worse a server missing to the minimum is than demand without capacity."""
_NOISE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingProblem:
    """`standing`: servers there now; `asleep` ones beside them, which wake for less than a start. `horizon_s`: how long
    the answer will stand about, which weighs holding against starting. `distance_price`: a second of round trip for
    all that one server serves costs so many times the server, the dearest of its model.
    """

    limits: FleetLimits
    needs: Needs
    standing: Mapping[Placement, int]
    asleep: Mapping[Placement, int]
    horizon_s: float
    distance_price: float
    time_limit_s: float

    @property
    def asked_tokens_per_s(self) -> float:
        return sum(self.needs.tokens_per_s[model] for model in self.limits.models)


@dataclass(slots=True)
class Statement:
    """`servers` is x and at `most` that; `cost` the terms of the objective; `begun` s + w; `unserved` u; `absent` v
    with the most that may miss and what each would serve in tokens/s."""

    lp: pulp.LpProblem
    servers: dict[Placement, pulp.LpVariable] = field(default_factory=dict)
    most: dict[Placement, int] = field(default_factory=dict)
    cost: list[pulp.LpAffineExpression] = field(default_factory=list)
    begun: list[pulp.LpAffineExpression] = field(default_factory=list)
    unserved: list[pulp.LpVariable] = field(default_factory=list)
    absent: list[tuple[pulp.LpVariable, int, float]] = field(default_factory=list)
    shortage_allowed: bool = False

    def allow_shortage(self) -> None:
        self.shortage_allowed = True
        for variable in self.unserved:
            variable.upBound = None
        for variable, most, _ in self.absent:
            variable.upBound = most

    def money(self) -> pulp.LpAffineExpression:
        return pulp.lpSum(self.cost)

    def shortage(self) -> pulp.LpAffineExpression:
        """In tokens/s."""
        return pulp.lpSum(self.unserved) + pulp.lpSum(_MISSING_MINIMUM * theta * v for v, _, theta in self.absent)

    def changes(self, standing: Mapping[Placement, int]) -> pulp.LpAffineExpression:
        """Servers that are added to these counts, and that go."""
        gone = []
        for index, (placement, count) in enumerate(standing.items()):
            if count:
                gone.append(self.lp.add_variable(f"g{index}", 0, None))
                self.lp.addConstraint(gone[-1] >= count - self.servers[placement])
        return pulp.lpSum(self.begun) + pulp.lpSum(gone)

    def free(self) -> None:
        """As it was before `hold_to`."""
        for placement, variable in self.servers.items():
            variable.lowBound, variable.upBound = 0, self.most[placement]

    def hold_to(self, counts: Mapping[Placement, int]) -> None:
        for placement, variable in self.servers.items():
            variable.lowBound = variable.upBound = counts[placement]

    def counts(self) -> dict[Placement, int]:
        """Of the solution found."""
        return {placement: round(variable.value()) for placement, variable in self.servers.items()}

    def unserved_tokens_per_s(self) -> float:
        """Of the solution found."""
        return float(sum(variable.value() or 0.0 for variable in self.unserved))


def stated(problem: PlacingProblem) -> Statement:
    """The program of that problem, without an objective."""
    statement = Statement(pulp.LpProblem("placing", pulp.LpMinimize))
    limits = problem.limits
    usable = {
        p: limits.capacity[p.model, p.gpu_type]
        for p in limits.placements()
        if limits.capacity[p.model, p.gpu_type].theta_tokens_per_s > 0
    }
    for index, (placement, capacity) in enumerate(usable.items()):
        _state_placement(statement, problem, str(index), placement, capacity)
    for slot, quota in limits.quota_gpus.items():
        held = [c.gpus * statement.servers[p] for p, c in usable.items() if (p.region, p.gpu_type) == slot]
        if held:
            statement.lp.addConstraint(pulp.lpSum(held) <= quota + _NOISE)
    for number, model in enumerate(limits.models):
        rooms = {r: [p for p in usable if p.model == model and p.region == r] for r in limits.regions}
        _state_model(statement, problem, str(number), model, rooms)
    return statement


def _state_placement(
    statement: Statement, problem: PlacingProblem, number: str, p: Placement, capacity: Capacity
) -> None:
    """Its servers, and what holding, starting and waking them costs."""
    lp, price, hours = statement.lp, hourly_price(problem.limits, p), problem.horizon_s / 3600.0
    most = int(problem.limits.quota_gpus[p.region, p.gpu_type] / capacity.gpus + _NOISE)
    servers = lp.add_variable(f"x{number}", 0, most, cat=pulp.LpInteger)
    statement.most[p] = most
    started = lp.add_variable(f"s{number}", 0, None)
    woken = lp.add_variable(f"w{number}", 0, problem.asleep.get(p, 0) if capacity.can_sleep else 0)
    lp.addConstraint(started + woken >= servers - problem.standing.get(p, 0))
    statement.servers[p] = servers
    statement.begun.append(started + woken)
    waking = price * (capacity.wake_s or 0.0) / 3600.0
    statement.cost += [price * hours * servers, start_up_price(problem.limits, p) * started, waking * woken]


def _state_model(
    statement: Statement, problem: PlacingProblem, number: str, model: str, rooms: Mapping[str, list[Placement]]
) -> None:
    """Rows of one model: minimum, capacity, flows."""
    lp, limits = statement.lp, problem.limits

    def theta(p: Placement) -> float:
        return limits.capacity[p.model, p.gpu_type].theta_tokens_per_s

    capacity = {r: pulp.lpSum(theta(p) * statement.servers[p] for p in room) for r, room in rooms.items()}
    for j, room in enumerate(rooms.values()):
        if room and limits.min_servers:
            absent = lp.add_variable(f"v{number}_{j}", 0, 0)
            lp.addConstraint(pulp.lpSum(statement.servers[p] for p in room) + absent >= limits.min_servers)
            statement.absent.append((absent, limits.min_servers, max(map(theta, room))))
    need = {region: problem.needs.of_pool(Pool(model, region)) for region in limits.regions}
    unserved = lp.add_variable(f"u{number}", 0, SLACK * sum(need.values()))
    statement.unserved.append(unserved)
    lp.addConstraint(pulp.lpSum(capacity.values()) + unserved >= sum(need.values()))
    dearest = max((hourly_price(limits, p) / theta(p) for room in rooms.values() for p in room), default=0.0)
    for j, origin in enumerate(limits.regions):
        nearest_s = min((limits.rtt_s.get((origin, r), 0.0) for r in limits.regions if r != origin), default=0.0)
        if need[origin] > 0 and nearest_s > 0:
            away = lp.add_variable(f"f{number}_{j}", 0, need[origin])
            lp.addConstraint(away + capacity[origin] >= need[origin])
            price = problem.distance_price * nearest_s * dearest * problem.horizon_s / 3600.0
            statement.cost.append(price * away)

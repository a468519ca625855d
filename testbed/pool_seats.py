"""READY servers as the router counts them: tokens of the requests it sent there that have not ended."""

from collections.abc import Callable, Sequence

from controller.rules.routing import RoutingRules, ServerRule, choose_server, expected_wait_s, two_choices
from controller.types import Pool, Role
from testbed.server import Server
from workloads.request import Request

ServerChoice = Callable[[Request, Sequence["Seat"]], "Seat"]
"""One of the seats, of which there is at least one."""


class Seat:
    """One READY server. `tokens_per_s` is what it sustains within its SLO (theta)."""

    __slots__ = (
        "capacity_tokens",
        "groups",
        "kv_capacity_tokens",
        "kv_tokens",
        "open",
        "outstanding_tokens",
        "server",
        "tokens_per_s",
    )

    def __init__(
        self, server: Server, capacity_tokens: float, tokens_per_s: float, groups: tuple["SeatGroup", ...]
    ) -> None:
        self.server = server
        self.capacity_tokens = capacity_tokens
        self.tokens_per_s = tokens_per_s
        self.kv_capacity_tokens = server.kv_capacity_tokens or capacity_tokens
        self.groups = groups
        self.outstanding_tokens = 0
        self.kv_tokens = 0.0
        self.open = True

    def take(self, request: Request) -> None:
        """A request is sent here."""
        tokens = request.prompt_tokens + request.output_tokens
        self.outstanding_tokens += tokens
        self.kv_tokens += tokens - 0.5 * request.output_tokens
        for group in self.groups:
            group.outstanding_tokens += tokens

    def give_back(self, request: Request) -> None:
        """It has ended. A server that has left is counted in no group any more."""
        tokens = request.prompt_tokens + request.output_tokens
        self.outstanding_tokens -= tokens
        self.kv_tokens -= tokens - 0.5 * request.output_tokens
        if self.open:
            for group in self.groups:
                group.outstanding_tokens -= tokens

    @property
    def kv_cache_usage(self) -> float:
        """Of the KV cache, what is in use if requests are on average half-way through their output; above 1 when some
        wait. Unlike the server's own gauge it has no age."""
        return self.kv_tokens / self.kv_capacity_tokens


class SeatGroup:
    """Seats of one pool that are counted together, and their sums. `coming_tokens` are of requests on their way to one
    of them."""

    __slots__ = ("capacity_tokens", "coming_tokens", "outstanding_tokens", "pool", "seats", "tokens_per_s")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.seats: list[Seat] = []
        self.capacity_tokens = 0.0
        self.tokens_per_s = 0.0
        self.outstanding_tokens = 0
        self.coming_tokens = 0

    def add(self, seat: Seat) -> None:
        self.seats.append(seat)
        self._sum_up()

    def remove(self, seat: Seat) -> None:
        self.seats.remove(seat)
        self._sum_up()

    def _sum_up(self) -> None:
        self.capacity_tokens = sum(seat.capacity_tokens for seat in self.seats)
        self.tokens_per_s = sum(seat.tokens_per_s for seat in self.seats)
        self.outstanding_tokens = sum(seat.outstanding_tokens for seat in self.seats)

    @property
    def utilisation(self) -> float:
        """Tokens in flight over the tokens that fit; infinite with no server."""
        if not self.seats:
            return float("inf")
        return (self.outstanding_tokens + self.coming_tokens) / self.capacity_tokens

    def wait_s(self, threshold: float) -> float:
        """`expected_wait_s`; infinite with no server."""
        if not self.seats:
            return float("inf")
        taken = self.outstanding_tokens + self.coming_tokens
        return expected_wait_s(taken, self.capacity_tokens, self.tokens_per_s, threshold)


class PoolSeats:
    """The seats of one pool by role, and together by what they take.

    With a single role all groups are one and the same. Interactive requests go to `first`, the shared and interactive
    servers, and to the mixed ones too when those are busy.
    """

    def __init__(self, pool: Pool, roles: Sequence[Role], spill_above: float) -> None:
        self.pool = pool
        self.by_role = {role: SeatGroup(pool) for role in roles}
        self._first = self._together([role for role in roles if role.takes_interactive and role is not Role.MIXED])
        self._interactive = self._together([role for role in roles if role.takes_interactive])
        self._niw = self._together([role for role in roles if role.takes_niw])
        self._spill_above = spill_above

    def _together(self, roles: Sequence[Role]) -> SeatGroup:
        return self.by_role[roles[0]] if len(roles) == 1 else SeatGroup(self.pool)

    def groups_of(self, role: Role) -> tuple[SeatGroup, ...]:
        """Every group that counts a server of this role, each once. Raises ValueError for a role not in use."""
        if role not in self.by_role:
            raise ValueError(f"a server of role {role}, but the policy's roles are {', '.join(self.by_role)}")
        groups = [self.by_role[role]]
        if role.takes_interactive:
            groups.append(self._interactive)
            if role is not Role.MIXED:
                groups.append(self._first)
        if role.takes_niw:
            groups.append(self._niw)
        return tuple(dict.fromkeys(groups))

    def taking(self, interactive: bool) -> SeatGroup:
        """All that may take interactive requests, or all that may take NIW."""
        return self._interactive if interactive else self._niw

    def open_to(self, interactive: bool) -> list[Seat]:
        """The seats of which one gets a request now."""
        if not interactive:
            return self._niw.seats
        first = self._first
        if first is self._interactive or (first.seats and first.utilisation < self._spill_above):
            return first.seats
        return self._interactive.seats

    @property
    def seats(self) -> list[Seat]:
        return [seat for group in self.by_role.values() for seat in group.seats]


def server_choice(rules: RoutingRules) -> ServerChoice:
    """The rule by which a pool's server is chosen."""
    if rules.server is ServerRule.JSQ:
        return _fewest_tokens
    if rules.server is ServerRule.LEAST_KV:
        return _emptiest_cache
    seed = rules.seed

    def better_of_two(request: Request, seats: Sequence[Seat]) -> Seat:
        first, second = two_choices(request.request_id, seed, len(seats))
        return _fewest_tokens(request, (seats[first], seats[second]))

    return better_of_two


def _fewest_tokens(request: Request, seats: Sequence[Seat]) -> Seat:  # noqa: ARG001 - one rule's signature for all
    if len(seats) == 1:
        return seats[0]
    return seats[choose_server([seat.outstanding_tokens for seat in seats])]


def _emptiest_cache(request: Request, seats: Sequence[Seat]) -> Seat:  # noqa: ARG001
    return seats[choose_server([seat.kv_cache_usage for seat in seats])]

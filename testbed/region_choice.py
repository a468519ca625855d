"""The region rule with its arguments in place: it is asked for every request."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter

from controller.rules.routing import RegionRule, RoutingRules, choose_region, least_latency_region
from controller.types import Pool
from testbed.pool_seats import PoolSeats, Seat, SeatGroup
from workloads.request import Request

_UTILISATION: Callable[[SeatGroup], float] = attrgetter("utilisation")


class RegionChoice:
    """Chooses a region by the rule, on the counts of `pools`. `preferred` orders the regions by region of origin."""

    def __init__(
        self,
        pools: Mapping[Pool, PoolSeats],
        preferred: Mapping[str, tuple[str, ...]],
        rules: RoutingRules,
        rtt_s: Mapping[tuple[str, str], float],
    ) -> None:
        self._pools = pools
        self._preferred = preferred
        self._rules = rules
        self._rtt_s = rtt_s
        self._choose: dict[tuple[str, str, bool], Callable[[], SeatGroup]] = {}

    def choose(self, request: Request, interactive: bool) -> SeatGroup:
        """The seats of the region to which the request is to go; where no region has a server for it, any region's."""
        key = (request.model, request.region, interactive)
        choose = self._choose.get(key)
        if choose is None:
            choose = self._choose[key] = self._rule(*key)
        return choose()

    def first_with(
        self, request: Request, interactive: bool, wanted: Callable[[Sequence[Seat]], Sequence[Seat]]
    ) -> SeatGroup | None:
        """The seats of the first preferred region that has some of those `wanted`; None where none has."""
        groups = self._in_order(request.model, request.region, interactive)
        return next((group for group in groups if wanted(group.seats)), None)

    def _in_order(self, model: str, origin: str, interactive: bool) -> list[SeatGroup]:
        return [self._pools[Pool(model, region)].taking(interactive) for region in self._preferred[origin]]

    def _rule(self, model: str, origin: str, interactive: bool) -> Callable[[], SeatGroup]:
        preferred, threshold = self._in_order(model, origin, interactive), self._rules.region_threshold
        if self._rules.region is RegionRule.THRESHOLD:
            return partial(choose_region, preferred, _UTILISATION, threshold)
        rtt_s = {group: self._rtt_s.get((origin, group.pool.region), 0.0) for group in preferred}
        return partial(least_latency_region, preferred, rtt_s.__getitem__, lambda group: group.wait_s(threshold))

"""LT-UA: LT-U that leaves its budget late in a period when the load belies the forecast."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.parameters import AdaptiveParameters
from controller.policies.lt_u import LongTermByUtilisation
from controller.thresholds import Bounds
from controller.types import Forecast, Memory, Observation, Placement, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTermAdaptive(LongTermByUtilisation):
    """SageServe's LT-UA (arXiv 2502.14617): in the last 20 minutes of the hour, observed tokens/s of at least 5 times
    the forecast lift the budget as an upper bound, of at most half the forecast as a lower one.

    Each pool is compared with the forecast of its own model and region. The utilisation thresholds still decide.
    """

    parameters: AdaptiveParameters
    name: str = "lt-ua"

    def bounds(self, seen: Observation, memory: Memory) -> Bounds:
        if seen.at_s < memory.budget_until_s - self.parameters.late_window_s:
            return Bounds(most=memory.budget, least=memory.budget)
        most, least, beyond = dict(memory.budget), dict(memory.budget), {}
        for pool, forecast in memory.forecasts.items():
            observed = seen.demand.latest(pool, self.parameters.observed_window_s)
            expected = expected_tokens_per_s(forecast, seen.at_s)
            if observed > 0 and observed >= self.parameters.beyond_above * expected:
                beyond[pool] = _words(observed, ">=", self.parameters.beyond_above, expected)
                most.update(_active(seen, memory.budget, pool, ahead=1))
            elif observed <= self.parameters.beyond_below * expected:
                beyond[pool] = _words(observed, "<=", self.parameters.beyond_below, expected)
                least.update(dict.fromkeys(_active(seen, memory.budget, pool, ahead=0), 0))
        return Bounds(most=most, least=least, beyond=beyond)


def expected_tokens_per_s(forecast: Forecast, at_s: float) -> float:
    """The mean forecast for the step of `at_s`: the first before the first step, the last after the last."""
    step = int((at_s - forecast.from_s) // forecast.step_s)
    return forecast.mean_tokens_per_s[min(max(step, 0), len(forecast.mean_tokens_per_s) - 1)]


def _active(seen: Observation, budget: Mapping[Placement, int], pool: Pool, *, ahead: int) -> dict[Placement, int]:
    """For each placement of the pool: `ahead` more than stand now, or the budget where that is more."""
    return {
        placement: max(count, seen.placements[placement].active + ahead)
        for placement, count in budget.items()
        if placement.pool == pool and placement in seen.placements
    }


def _words(observed: float, sign: str, factor: float, expected: float) -> str:
    return f"beyond the budget: {observed:.0f} tokens/s {sign} {factor:g} x {expected:.0f} forecast"

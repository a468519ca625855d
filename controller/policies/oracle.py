"""Oracle: `mpc` with the true future in place of its forecast, and the budget spent where hindsight would spend it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from controller.bound.budget import within_budget
from controller.bound.need import Need
from controller.history import Series
from controller.mpc.outlook import Outlook
from controller.policies.mpc import ModelPredictive
from controller.policies.mpc_parameters import MpcParameters
from controller.types import Observation, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueFuture:
    """Foresight: interactive tokens/s of every pool from time 0 on, in bins of `bin_s` seconds.

    Minutes within the budget whose capacity would cost most are not planned for; which those are is decided once, for
    the whole of the future, by the bound's dynamic program.
    """

    bin_s: float
    interactive: Mapping[Pool, Series]
    _planned: dict[tuple[object, ...], Series] = field(default_factory=dict, repr=False, compare=False)

    def outlook(self, seen: Observation, model: str, lead_s: float, budget: float) -> Outlook | None:
        series = [values for pool, values in self.interactive.items() if pool.model == model]
        if not series:
            return None
        planned = self._plan(seen, model, lead_s, budget, np.sum(series, axis=0))
        first = int(seen.at_s / self.bin_s + 1e-6)
        steps = int(np.ceil(lead_s / self.bin_s - 1e-6)) + 1
        peak = float(planned[first : first + steps].max(initial=0.0))
        return Outlook(
            peak_tokens_per_s=peak,
            expected_tokens_per_s=peak,
            window_s=steps * self.bin_s,
            headroom=0.0,
            method="true future",
        )

    def _plan(self, seen: Observation, model: str, lead_s: float, budget: float, demand: Series) -> Series:
        """Demand that is planned for: all of it, but in the minutes that the budget is spent on."""
        thetas = [c.theta_tokens_per_s for (m, _), c in seen.limits.capacity.items() if m == model]
        theta = max(thetas, default=0.0)
        pools = sum(1 for p in {q.pool for q in seen.placements} if p.model == model)
        least = seen.limits.min_servers * pools
        key = (model, theta, lead_s, budget, least)
        if key not in self._planned:
            if theta <= 0:
                return demand
            required = np.maximum(np.ceil(demand / theta - 1e-6).astype(np.int64), least)
            need = Need(required=required, start_steps=lead_s / self.bin_s, least=least)
            found = within_budget(need, int(budget * np.count_nonzero(demand)))
            self._planned[key] = np.where(found.violated, np.minimum(demand, found.plan * theta), demand)
        return self._planned[key]


def oracle(parameters: MpcParameters, future: TrueFuture | None) -> ModelPredictive:
    """Without a future it knows what `mpc` knows; its plans name the forecast then."""
    return ModelPredictive(parameters=parameters, name="oracle", foresight=future)

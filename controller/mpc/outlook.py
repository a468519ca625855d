"""What a model's demand may peak at while its servers start or wake, and in words from what that was told."""

from dataclasses import dataclass
from math import ceil, exp

import numpy as np

from controller.history import DemandHistory, Series
from controller.mpc.features import LONGEST
from controller.mpc.headroom import Rehearsal, rehearsed
from controller.mpc.held import LEADS_HELD
from controller.mpc.lead_peak import LeadPeakFit, LeadPeaks
from controller.mpc.served_load import served_load
from controller.mpc.tail import score_at, worthwhile

_RECENT_STEPS = 15
_PLAIN_SIZE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Tokens/s to have capacity for over a window from now; `expected` is the peak at no headroom.

    `headroom`: the one in force, at most the one asked for.
    """

    needed_tokens_per_s: float
    expected_tokens_per_s: float
    window_s: float
    headroom: float
    method: str
    fell_back_because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPast:
    """Interactive tokens/s of one model in service, over all regions, in whole steps of `step_s`; the last is number
    `last_step` of the run (counted from 1, below for history from before it).
    """

    values: Series
    step_s: float
    last_step: int

    @classmethod
    def of(cls, demand: DemandHistory, model: str, step_s: float, stay_s: float) -> "ModelPast":
        """Of requests that stay with a server for `stay_s`. Raises ValueError when `step_s` is no multiple of the
        history's bin.
        """
        series = [demand.resampled(key, step_s) for key in demand.interactive if key[0] == model]
        values = np.sum(series, axis=0) if series else np.zeros(0)
        last = int(np.floor(demand.until_s / step_s + 1e-6))
        load = served_load(np.asarray(values, dtype=np.float64), stay_s / step_s)
        return cls(values=load, step_s=step_s, last_step=last)

    def recent_mean(self) -> float:
        """Mean of the last 15 steps, tokens/s; 0 with no history."""
        return float(self.values[-_RECENT_STEPS:].mean()) if len(self.values) else 0.0

    def weight(self, steps: float, season_steps: int) -> float:
        """How many mean steps of the last season hold as much demand as the last `steps`; `steps` where it had none."""
        mean = float(self.values[-season_steps:].mean()) if len(self.values) else 0.0
        return steps * float(self.values[-max(1, round(steps)) :].mean()) / mean if mean > 0 else steps

    def highest(self, steps: int) -> float:
        return float(self.values[-steps:].max(initial=0.0))

    def window_steps(self, lead_s: float) -> int:
        """Steps from now to the end of the one in which a server started now is READY."""
        return ceil(lead_s / self.step_s - 1e-6) + 1


def outlook(past: ModelPast, peaks: LeadPeaks, lead_s: float, headroom: float, budget: float) -> Outlook:
    """The peak from now to `lead_s` that is exceeded with probability exp(-headroom), or with a larger one where so
    much headroom is not worth its price.

    While history is too short for a fit it is the highest of the last 15 minutes and a tenth more for each e-fold of
    the odds, by name.
    """
    window = past.window_steps(lead_s)
    fit = peaks.fit(past.values, past.last_step, window)
    if fit is None:
        recent = past.highest(_RECENT_STEPS)
        return Outlook(
            needed_tokens_per_s=recent * exp(_PLAIN_SIZE * headroom),
            expected_tokens_per_s=recent,
            window_s=window * past.step_s,
            headroom=headroom,
            method="highest of the last 15 steps",
            fell_back_because=f"too little demand seen for a fit: {len(past.values)} steps",
        )
    tail = past.values[-(peaks.season_steps + 2 * LONGEST) :]
    log_peak, size = (float(column[0]) for column in fit.expected(tail, len(tail)))
    in_force = worthwhile(fit.grid_scores, size, headroom, budget)
    return Outlook(
        needed_tokens_per_s=fit.peak_tokens_per_s(log_peak, size, score_at(fit.scores, in_force)),
        expected_tokens_per_s=fit.peak_tokens_per_s(log_peak, 0.0, 0.0),
        window_s=window * past.step_s,
        headroom=in_force,
        method="peak of the lead",
    )


def first_headroom(
    past: ModelPast, peaks: LeadPeaks, lead_s: float, theta: float, least_servers: int, budget: float
) -> float | None:
    """The headroom that the last season of history would have brought about; None without a fit to rehearse with."""
    window = past.window_steps(lead_s)
    fit: LeadPeakFit | None = peaks.fit(past.values, past.last_step, window)
    if fit is None or theta <= 0:
        return None
    lead = window - 1
    given = Rehearsal(
        values=past.values,
        theta_tokens_per_s=theta,
        least_servers=least_servers,
        lead_steps=lead,
        hold_steps=max(1, round(LEADS_HELD * lead)),
    )
    return rehearsed(fit, given, budget, peaks.season_steps)

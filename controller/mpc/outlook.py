"""What a model's demand may peak at while its servers start or wake, and in words from what that was told."""

from dataclasses import dataclass
from math import ceil, exp

import numpy as np

from controller.history import DemandHistory, Key, Series
from controller.mpc.features import LONGEST
from controller.mpc.lead_peak import LeadPeaks
from controller.mpc.served_load import served_load
from controller.mpc.short_history import LEVEL_STEPS, STEPS, recent_peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The peak of demand, tokens/s, over a window from now; `expected` is the one at no headroom.

    `headroom`: the one in force, at most the one asked for. `saturation`: a queue is relied on, of which servers serve
    so many times theta, 1 or more; 1 where the headroom knows of queues.
    """

    peak_tokens_per_s: float
    expected_tokens_per_s: float
    window_s: float
    headroom: float
    method: str
    fell_back_because: str = ""
    saturation: float = 1.0

    @property
    def needed_tokens_per_s(self) -> float:
        """What to have capacity for, by theta: the peak, less what a queue takes of it, down to the expected one."""
        return max(self.peak_tokens_per_s / self.saturation, min(self.peak_tokens_per_s, self.expected_tokens_per_s))

    @property
    def exceeded(self) -> float:
        """How likely (0..1) demand is above the peak."""
        return min(1.0, exp(-self.headroom))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPast:
    """Interactive load of one model in service, over all regions, in whole steps of `step_s`; the last is number
    `last_step` of the run (counted from 1, below for history from before it). In tokens/s of the mix that theta
    counts: in a minute of long prompts a server takes more tokens than theta, in one of long answers fewer.
    """

    values: Series
    step_s: float
    last_step: int

    @classmethod
    def of(
        cls, demand: DemandHistory, model: str, step_s: float, stay_s: float, weights: tuple[float, float]
    ) -> "ModelPast":
        """Of requests that stay with a server for `stay_s`; `weights` of a prompt token and of an output token.

        Where the history does not tell output tokens apart, every token counts as one of the mix.
        Raises ValueError when `step_s` is no multiple of the history's bin.
        """
        series = [_weighted(demand, key, step_s, weights) for key in demand.interactive if key[0] == model]
        values = np.sum(series, axis=0) if series else np.zeros(0)
        last = int(np.floor(demand.until_s / step_s + 1e-6))
        load = served_load(np.asarray(values, dtype=np.float64), stay_s / step_s)
        return cls(values=load, step_s=step_s, last_step=last)

    def recent_mean(self) -> float:
        """Mean of the last 15 steps, tokens/s; 0 with no history."""
        return float(self.values[-STEPS:].mean()) if len(self.values) else 0.0

    def level(self) -> float:
        """Mean of the last 5 steps, tokens/s; 0 with no history."""
        return float(self.values[-LEVEL_STEPS:].mean()) if len(self.values) else 0.0

    def weight(self, steps: float, season_steps: int) -> float:
        """How many mean steps of the last season hold as much demand as the last `steps`; `steps` where it had none."""
        mean = float(self.values[-season_steps:].mean()) if len(self.values) else 0.0
        return steps * float(self.values[-max(1, round(steps)) :].mean()) / mean if mean > 0 else steps

    def highest(self, steps: int) -> float:
        return float(self.values[-steps:].max(initial=0.0))

    def window_steps(self, lead_s: float) -> int:
        """Steps from now to the end of the one in which a server started now is READY."""
        return ceil(lead_s / self.step_s - 1e-6) + 1


def _weighted(demand: DemandHistory, key: Key, step_s: float, weights: tuple[float, float]) -> Series:
    tokens, outputs = demand.resampled(key, step_s), demand.resampled_output(key, step_s)
    if outputs is None:
        return tokens
    of_prompt, of_output = weights
    return of_prompt * (tokens - outputs) + of_output * outputs


def outlook(
    past: ModelPast, peaks: LeadPeaks, lead_s: float, headroom: float, budget: float, saturation: float, *, even: bool
) -> Outlook:
    """The peak from now to `lead_s` that is exceeded with probability exp(-headroom), or with a larger one where so
    much headroom is not worth its price. `even`: errors are taken to be of one size.

    While history is too short for a fit the last 15 minutes say what they can, by name; nor was the headroom rehearsed
    with a queue then, so that what servers serve of one, `saturation` times theta, counts here.
    """
    window = past.window_steps(lead_s)
    fit = peaks.fit(past.values, past.last_step, window, even=even)
    if fit is None:
        peak, expected = recent_peak(past.values, headroom)
        return Outlook(
            peak_tokens_per_s=peak,
            expected_tokens_per_s=expected,
            window_s=window * past.step_s,
            headroom=headroom,
            method=f"last {STEPS} steps",
            fell_back_because=f"too little demand seen for a fit: {len(past.values)} steps",
            saturation=saturation,
        )
    tail = past.values[-(peaks.season_steps + 2 * LONGEST) :]
    log_peak, size = (column[:1] for column in fit.expected(tail, len(tail)))
    planned, in_force = fit.planned(log_peak, size, headroom, budget)
    return Outlook(
        peak_tokens_per_s=float(planned[0]),
        expected_tokens_per_s=float(fit.peaks_tokens_per_s(log_peak, size, np.zeros(1))[0]),
        window_s=window * past.step_s,
        headroom=float(in_force[0]),
        method="peak of the lead",
    )

"""The coefficient of variation of tenants' gaps at which a synthetic trace is as dispersed as the one it is to be like.

Between the gaps of single tenants and the counts of all of them lie how many tenants there are and how much each sends.
So the CV is not computed but found: drawn, measured, corrected.
"""

from dataclasses import dataclass, field
from math import exp, log

import numpy as np

from workloads.arrivals import HIGHEST_CV, LOWEST_CV
from workloads.dispersion import WINDOW_S, index_of_dispersion
from workloads.request import Tier
from workloads.synthesis import synthesise
from workloads.synthetic_workload import SyntheticWorkload
from workloads.trace import Trace

REQUESTS = 300_000
MOST_DRAWS = 5
TURNS = 6
TRIMMED = 0.02  # of the minutes: edges of bursts say nothing about gaps
USUAL_SLOPE = 1.5  # of ln dispersion over ln CV: 2 where a tenant sends often, near 0 where it hardly ever does
LEAST_SLOPE, MOST_SLOPE = 0.4, 2.5
MOST_STEP = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    from_s: float
    to_s: float


@dataclass(slots=True)
class _Search:
    """What has been tried for one tier: ln CV, and ln of the dispersion found."""

    wanted: float
    tried: list[float] = field(default_factory=list)
    found: list[float] = field(default_factory=list)

    def better(self) -> float:
        """ln CV at which the line through what was found reaches what is wanted: one draw is chance, many are less."""
        x, y = np.array(self.tried), np.array(self.found)
        spread = float(((x - x.mean()) ** 2).sum())
        slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 1e-3 else USUAL_SLOPE
        step = (self.wanted - y.mean()) / min(MOST_SLOPE, max(LEAST_SLOPE, slope))
        return float(np.clip(x.mean() + step, x.min() - MOST_STEP, x.max() + MOST_STEP))


def matched_cv(workload: SyntheticWorkload, trace: Trace) -> dict[Tier, float]:
    """`workload.interarrival_cv`, corrected so that each tier's index of dispersion is that of `trace`.

    Compared over the busiest part of the trace with some 300,000 requests, over several draws where it has fewer. A
    tier that is too sparse to measure keeps its CV; one whose dispersion no CV within 0.05..20 reaches gets the nearer.
    """
    window = _busiest(trace)
    requests = max(1, int(np.diff(np.searchsorted(trace.numbers("arrival_s"), [window.from_s, window.to_s]))[0]))
    draws = min(MOST_DRAWS, max(1, REQUESTS // requests))
    searches = {tier: _Search(log(value)) for tier, value in _dispersions(trace, window).items()}
    cv = {tier: float(np.clip(workload.interarrival_cv[tier], LOWEST_CV, HIGHEST_CV)) for tier in Tier}
    hours = 24.0 / workload.day_s
    for turn in range(TURNS):
        tried = workload.model_copy(update={"interarrival_cv": dict(cv)})
        found: dict[Tier, list[float]] = {tier: [] for tier in searches}
        for seed in range(turn * draws, (turn + 1) * draws):
            drawn = synthesise(tried, seed, from_h=window.from_s * hours, to_h=window.to_s * hours)
            for tier, value in _dispersions(drawn, _Window(from_s=0.0, to_s=drawn.horizon_s)).items():
                if tier in found:
                    found[tier].append(value)
        for tier, values in found.items():
            if values:
                searches[tier].tried.append(log(cv[tier]))
                searches[tier].found.append(log(sum(values) / len(values)))
                cv[tier] = min(HIGHEST_CV, max(LOWEST_CV, exp(searches[tier].better())))
    return cv


def _dispersions(trace: Trace, window: _Window) -> dict[Tier, float]:
    """Index of dispersion of each tier in a window; tiers that have none, or 0, are left out."""
    arrival_s, tier = trace.numbers("arrival_s"), trace.labels("tier")
    start, stop = np.searchsorted(arrival_s, [window.from_s, window.to_s], side="left").tolist()
    found = {}
    for code, name in enumerate(tier.names):
        own_s = arrival_s[start:stop][tier.codes[start:stop] == code] - window.from_s
        value = index_of_dispersion(own_s, window.to_s - window.from_s, trimmed=TRIMMED)
        if value:
            found[Tier(name)] = value
    return found


def _busiest(trace: Trace) -> _Window:
    """The part of the trace with the most requests, so long that an average part has REQUESTS of them."""
    if len(trace) <= REQUESTS:
        return _Window(from_s=0.0, to_s=trace.horizon_s)
    width_s = trace.horizon_s * REQUESTS / len(trace)
    # Whole minutes: a trace's own minutes, at which the bursts of a synthetic one begin and end, are not cut in two.
    starts_s = np.floor(np.linspace(0.0, trace.horizon_s - width_s, 200) / WINDOW_S) * WINDOW_S
    arrival_s = trace.numbers("arrival_s")
    counts = np.searchsorted(arrival_s, starts_s + width_s) - np.searchsorted(arrival_s, starts_s)
    from_s = float(starts_s[counts.argmax()])
    return _Window(from_s=from_s, to_s=from_s + width_s)

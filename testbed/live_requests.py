"""A live view's requests: outcomes, SLOs met and latencies by tier, by the report's own formulas, in bounded memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.metrics import METRIC_COLUMNS, is_tier, latencies, percentiles, slo_met
from testbed.live_grid import Floats, Grid, Name
from workloads.completion import Completion, Outcome
from workloads.request import Tier
from workloads.slo import Slo

METRICS = ("ttft", "tpot", "e2e")
QUANTILES = ("p50", "p95", "p99")

# Upper bounds in seconds, those of vLLM's own histograms.
BUCKETS_S: Mapping[str, tuple[float, ...]] = {
    "ttft": (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
        *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
    ),
    "tpot": (
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    ),
    "e2e": (
        *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0),
        *(960.0, 1920.0, 7680.0),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Latencies of completed requests: `counts[i]` at most BUCKETS_S[metric][i] and above the bound before it, the
    last those above all of them; `sum_s` is theirs together."""

    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCounts:
    """Of one tier: requests by how they ended, and those that met every limit of their tier."""

    outcomes: Mapping[Outcome, int]
    met: int

    @property
    def ended(self) -> int:
        return sum(self.outcomes.values())


class LiveRequests:
    """Counts all that ended; keeps the latencies of the bins under way and the percentiles of those that have passed.

    A request belongs to the bin in which it ended. One that is told later than the bin after is counted, and leaves
    the percentiles of its bin as they were drawn.
    """

    def __init__(self, grid: Grid, slos: Mapping[Tier, Slo]) -> None:
        self._grid = grid
        self._slos = slos
        self._outcomes: dict[Tier, Counter[Outcome]] = {tier: Counter() for tier in Tier}
        self._met: Counter[Tier] = Counter()
        self._open: dict[tuple[str, Tier], dict[int, Floats]] = {}
        self._percentiles: dict[Name, Floats] = {}
        self._buckets = {
            (metric, tier): np.zeros(len(bounds) + 1, dtype=np.int64)
            for metric, bounds in BUCKETS_S.items()
            for tier in Tier
        }
        self._sums_s = dict.fromkeys(self._buckets, 0.0)

    def ended(self, completions: Sequence[Completion]) -> None:
        """Count these, in the order in which they ended."""
        if not completions:
            return
        rows = [
            (c.request.tier.value, c.output_tokens, c.request.arrival_s, c.first_token_s, c.last_token_s, c.outcome)
            for c in completions
        ]
        table = pd.DataFrame(rows, columns=METRIC_COLUMNS)
        taken = latencies(table)
        met = slo_met(table, taken, self._slos)
        completed = np.array([c.outcome is Outcome.COMPLETED for c in completions])
        bins = self._grid.indices(table["last_token_s"].to_numpy(np.float64))
        for tier in Tier:
            of_tier = is_tier(table, tier)
            self._outcomes[tier].update(c.outcome for c in completions if c.request.tier is tier)
            self._met[tier] += int((met & of_tier).sum())
            answered = of_tier & completed
            if answered.any():
                for metric, values in zip(METRICS, (taken.ttft_s, taken.tpot_s, taken.e2e_s), strict=True):
                    self._measured(metric, tier, values[answered], bins[answered])

    def counts(self) -> dict[Tier, RequestCounts]:
        return {tier: RequestCounts(outcomes=dict(self._outcomes[tier]), met=self._met[tier]) for tier in Tier}

    def percentiles(self) -> dict[Name, Floats]:
        """By (metric, tier, quantile), seconds per bin; NaN where none completed."""
        return {name: values.copy() for name, values in self._percentiles.items()}

    def histograms(self) -> dict[tuple[str, Tier], Histogram]:
        """By (metric, tier)."""
        return {
            key: Histogram(counts=tuple(buckets.tolist()), sum_s=self._sums_s[key])
            for key, buckets in self._buckets.items()
        }

    def _measured(self, metric: str, tier: Tier, values: Floats, bins: npt.NDArray[np.int64]) -> None:
        there = ~np.isnan(values)
        values, bins = values[there], bins[there]
        if not len(values):
            return
        bounds = BUCKETS_S[metric]
        self._buckets[metric, tier] += np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1)
        self._sums_s[metric, tier] += float(values.sum())
        under_way = self._open.setdefault((metric, tier), {})
        drawn = self._percentiles.get((metric, tier.value, QUANTILES[0]), self._grid.empty())
        for index in np.unique(bins).tolist():
            if index not in under_way and not np.isnan(drawn[index]):
                continue
            under_way[index] = np.concatenate((under_way.get(index, values[:0]), values[bins == index]))
            found = percentiles(under_way[index])
            for quantile in QUANTILES:
                series = self._percentiles.setdefault((metric, tier.value, quantile), self._grid.empty())
                series[index] = getattr(found, quantile)
        newest = max(under_way, default=0)
        # The bin before the newest stays open, for those that are told late.
        for passed in [index for index in under_way if index < newest - 1]:
            del under_way[passed]

"""Latencies, SLO attainment and quantiles of recorded completions: the definitions of `workloads`, on columns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from results.arrays import Floats, Mask
from workloads.completion import Outcome
from workloads.request import Tier
from workloads.slo import Slo

QUANTILE_METHOD = (
    "linear interpolation between order statistics (type 7 of Hyndman and Fan 1996), over completed requests"
)

# The names of what is measured, in the order in which it is told.
LATENCIES = ("TTFT", "TPOT", "E2E")

# What `latencies` and `slo_met` read.
METRIC_COLUMNS = ("tier", "output_tokens", "arrival_s", "first_token_s", "last_token_s", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Seconds per request, NaN where there is none; defined as the properties of workloads.completion.Completion."""

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats

    @property
    def by_name(self) -> dict[str, Floats]:
        """By the names in LATENCIES."""
        return dict(zip(LATENCIES, (self.ttft_s, self.tpot_s, self.e2e_s), strict=True))


def latencies(completions: pd.DataFrame) -> Latencies:
    """The latencies of completions with at least METRIC_COLUMNS; arrays of their length."""
    arrival_s, first_token_s, last_token_s = (
        completions[name].to_numpy(np.float64) for name in ("arrival_s", "first_token_s", "last_token_s")
    )
    gaps = completions["output_tokens"].to_numpy(np.float64) - 1
    return Latencies(
        ttft_s=first_token_s - arrival_s,
        tpot_s=np.divide(last_token_s - first_token_s, gaps, out=np.full(len(gaps), np.nan), where=gaps >= 1),
        e2e_s=last_token_s - arrival_s,
    )


def limits_s(slo: Slo) -> dict[str, float | None]:
    """The limits of a tier by the names in LATENCIES; None leaves one free."""
    return dict(zip(LATENCIES, (slo.ttft_s, slo.tpot_s, slo.deadline_s), strict=True))


def slo_met(completions: pd.DataFrame, taken: Latencies, slos: Mapping[Tier, Slo]) -> Mask:
    """Whether each request met every limit of its tier; one that did not complete met none."""
    met = is_outcome(completions, Outcome.COMPLETED).copy()
    for tier, slo in slos.items():
        of_tier = is_tier(completions, tier)
        for name, limit_s in limits_s(slo).items():
            if limit_s is not None:
                met &= ~of_tier | ~(taken.by_name[name] > limit_s)
    return met


def is_outcome(completions: pd.DataFrame, outcome: Outcome) -> Mask:
    return np.asarray(completions["outcome"] == outcome.value, dtype=np.bool_)


def is_tier(completions: pd.DataFrame, tier: Tier) -> Mask:
    return np.asarray(completions["tier"] == tier.value, dtype=np.bool_)


class Percentiles(BaseModel):
    """Quantiles and mean in the unit of what they are of; None when `n` is 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int
    mean: float | None = None
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


def percentiles(values: Floats) -> Percentiles:
    """Over the values that are there (NaN is none)."""
    there = values[~np.isnan(values)]
    if not len(there):
        return Percentiles(n=0)
    p50, p75, p90, p95, p99 = np.quantile(there, (0.5, 0.75, 0.9, 0.95, 0.99)).tolist()
    return Percentiles(n=len(there), mean=float(there.mean()), p50=p50, p75=p75, p90=p90, p95=p95, p99=p99)

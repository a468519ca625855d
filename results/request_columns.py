"""The requests of one policy as arrays: what every chart of latencies and goodput counts from, made once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from results.arrays import Floats, Mask
from results.manifest import RunManifest
from results.metrics import Latencies, is_outcome, is_tier, latencies, slo_met
from results.time_bins import bin_of, time_bins
from workloads.completion import Outcome
from workloads.request import Tier

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestColumns:
    """Arrays with one value per recorded request.

    `tier` counts in the order of `Tier`, `model` in that of `models` (most tokens first), `bin` is that of `edges_s`
    in which the request arrived. Latencies are NaN where the request did not complete.
    """

    models: tuple[str, ...]
    edges_s: Floats
    tier: Codes
    model: Codes
    bin: Codes
    taken: Latencies
    met: Mask

    @property
    def bins(self) -> int:
        return len(self.edges_s) - 1

    def has_tier(self, tier: Tier) -> bool:
        return bool((self.tier == list(Tier).index(tier)).any())


def request_columns(manifest: RunManifest, completions: pd.DataFrame, end_s: float) -> RequestColumns:
    """From rows of results.schema.COMPLETIONS."""
    taken = latencies(completions)
    met = slo_met(completions, taken, manifest.tier_slos())
    lost = ~is_outcome(completions, Outcome.COMPLETED)
    tier = np.zeros(len(completions), dtype=np.int64)
    for index, each in enumerate(Tier):
        tier[is_tier(completions, each)] = index
    for values in taken.by_name.values():
        values[lost] = np.nan
    edges = time_bins(end_s)
    names = completions["model"].astype("category").cat
    tokens = completions["prompt_tokens"].to_numpy(np.float64) + completions["output_tokens"].to_numpy(np.float64)
    weights = np.bincount(names.codes, weights=tokens, minlength=len(names.categories))
    order = np.argsort(-weights, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return RequestColumns(
        models=tuple(str(names.categories[index]) for index in order),
        edges_s=edges,
        tier=tier,
        model=rank[names.codes.to_numpy()],
        bin=bin_of(completions["arrival_s"].to_numpy(np.float64), edges),
        taken=taken,
        met=met,
    )

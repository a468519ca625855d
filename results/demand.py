"""Demand as it was observed, in tokens/s, from the completions of a run."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from results.arrays import Floats
from workloads.request import Tier

DEMAND_COLUMNS = ("model", "region", "tier", "prompt_tokens", "output_tokens", "arrival_s", "last_token_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStream:
    """Tokens in the order in which they became known: `total[i]` came up to and including `at_s[i]`.

    As in controller.history.DemandHistory, prompt tokens count when the request arrived and output tokens when the
    answer ended, so that it compares with a forecast made from that history.
    """

    at_s: Floats
    total: Floats

    def per_s(self, edges_s: Floats) -> Floats:
        """Mean tokens/s in each bin [edge, next edge)."""
        sums = np.concatenate(([0.0], self.total))
        tokens: Floats = np.diff(sums[np.searchsorted(self.at_s, edges_s, side="left")])
        return np.asarray(tokens / np.diff(edges_s), dtype=np.float64)


def token_stream(completions: pd.DataFrame) -> TokenStream:
    """The tokens of completions with at least DEMAND_COLUMNS."""
    at_s = np.concatenate([completions[name].to_numpy(np.float64) for name in ("arrival_s", "last_token_s")])
    tokens = np.concatenate([completions[name].to_numpy(np.float64) for name in ("prompt_tokens", "output_tokens")])
    order = np.argsort(at_s, kind="stable")
    return TokenStream(at_s=at_s[order], total=np.cumsum(tokens[order]))


def interactive(completions: pd.DataFrame) -> pd.DataFrame:
    return completions[completions["tier"] != Tier.NIW.value]


def non_interactive(completions: pd.DataFrame) -> pd.DataFrame:
    return completions[completions["tier"] == Tier.NIW.value]


def bin_edges(end_s: float, most_bins: int = 144) -> Floats:
    """Edges of equal bins of a round width over [0, end_s], at most `most_bins`; the last may reach beyond."""
    widths = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    width = next((w for w in widths if end_s / w <= most_bins), 86400.0 * np.ceil(end_s / 86400.0 / most_bins))
    return np.arange(0, max(1, int(np.ceil(end_s / width))) + 1, dtype=np.float64) * float(width)

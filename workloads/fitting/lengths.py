"""Quantile tables learned from lengths."""

import numpy as np
import numpy.typing as npt

from workloads.lengths import QuantileTable

Lengths = npt.NDArray[np.int32]

LEAST_CUT, LEAST_CUT_SHARE = 10, 0.005
# A hundredth apart, and closer at the end: a mean depends on its tail.
QUANTILES = np.concatenate([np.arange(100) / 100, [0.995, 0.999, 1.0]])


def unclipped(prompt: Lengths, output: Lengths) -> Lengths:
    """The prompts, with those that were cut to the context made as long as it; shapes (requests,).

    Where many requests (0.5 %) have the very same largest total, prompts were cut to make room for the answer, and how
    long they had been is not known. As long as the context they are cut again to what they were, whatever the answer.
    """
    total = prompt.astype(np.int64) + output
    cut = total == total.max()
    return np.where(cut, total.max(), prompt).astype(np.int32) if is_clipped(prompt, output) else prompt


def is_clipped(prompt: Lengths, output: Lengths) -> bool:
    """Whether prompts were cut to a context: 0.5 % of the requests or more, and ten, have the same largest total."""
    total = prompt.astype(np.int64) + output
    return int((total == total.max()).sum()) >= max(LEAST_CUT, LEAST_CUT_SHARE * len(total))


def quantile_table(lengths: Lengths) -> QuantileTable:
    """The table of these lengths (one or more, shape (requests,)); the middle of a step is left out."""
    tokens = [int(value) for value in np.quantile(lengths, QUANTILES, method="inverted_cdf")]
    last = len(tokens) - 1
    kept = [i for i in range(last + 1) if i in (0, last) or not tokens[i - 1] == tokens[i] == tokens[i + 1]]
    return tuple((round(float(QUANTILES[i]), 3), tokens[i]) for i in kept)

"""How long prompts and outputs are: quantile tables, drawn from by inverse transform."""

from functools import lru_cache
from itertools import pairwise
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

Lengths = npt.NDArray[np.int32]
MOST_TOKENS = 10_000_000  # the largest context windows that are advertised
CELLS = 1 << 16  # of a table that lengths are drawn from: one request in 65536 takes the longest


def _checked(points: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    quantiles = [quantile for quantile, _ in points]
    tokens = [count for _, count in points]
    if len(points) < 2 or quantiles[0] != 0.0 or quantiles[-1] != 1.0:
        raise ValueError(f"quantiles {quantiles}; must begin at 0 (the least length) and end at 1 (the cap)")
    if not all(low < high for low, high in pairwise(quantiles)):
        raise ValueError(f"quantiles {quantiles}; must rise")
    if tokens[0] < 1 or any(low > high for low, high in pairwise(tokens)):
        raise ValueError(f"tokens {tokens}; must be at least 1 and never fall")
    if tokens[-1] > MOST_TOKENS:
        raise ValueError(f"tokens {tokens}; must be at most {MOST_TOKENS:,}")
    return points


QuantileTable = Annotated[tuple[tuple[float, int], ...], AfterValidator(_checked)]
"""(quantile, tokens) pairs from (0, least) to (1, cap); equal neighbouring token counts are a template's step."""


def at_quantiles(table: QuantileTable, quantiles: npt.NDArray[np.float64]) -> Lengths:
    """Tokens at `quantiles` (any shape, 0..1): between two points the logarithm of the length is linear."""
    known = np.array([quantile for quantile, _ in table])
    log_tokens = np.log([count for _, count in table])
    return np.rint(np.exp(np.interp(quantiles, known, log_tokens))).astype(np.int32)


def drawn(table: QuantileTable, rng: np.random.Generator, size: int) -> Lengths:
    """`size` lengths of the law that `table` stands for, each from one of 65536 equally likely cells."""
    # An integer a request and a look-up: twenty times faster than a float and an exponential.
    return _cells(table)[rng.integers(0, CELLS, size, dtype=np.uint16)]


@lru_cache(maxsize=64)
def _cells(table: QuantileTable) -> Lengths:
    return at_quantiles(table, (np.arange(CELLS) + 0.5) / CELLS)


def clipped(prompt: Lengths, output: Lengths, max_model_len: int) -> tuple[Lengths, Lengths, npt.NDArray[np.bool_]]:
    """Prompt and output cut so that together they fit `max_model_len` tokens (2 or more), and which were cut.

    The output keeps its length if it can (at least one token of prompt must remain): the prompt gives way, as when a
    client truncates the context to leave room for the answer.
    """
    short_output = np.minimum(output, np.int32(max_model_len - 1))
    short_prompt = np.minimum(prompt, np.int32(max_model_len) - short_output)
    return short_prompt, short_output, (short_prompt < prompt) | (short_output < output)


def mean_total_tokens(prompt: QuantileTable, output: QuantileTable, max_model_len: int, resolution: int = 400) -> float:
    """Expected prompt + output tokens of a request after clipping; prompt and output are independent.

    By the midpoint rule over `resolution` x `resolution` quantiles: within 0.5 % for tables like the built-in ones.
    """
    middle = (np.arange(resolution) + 0.5) / resolution
    prompts, outputs = np.meshgrid(at_quantiles(prompt, middle), at_quantiles(output, middle))
    short_prompt, short_output, _ = clipped(prompts, outputs, max_model_len)
    return float(short_prompt.mean() + short_output.mean())

"""The scale that models are fitted on: demand over its mean, or the logarithm of that."""

from dataclasses import dataclass
from math import fsum
from typing import Self

import numpy as np

from controller.forecasts.forecast import Paths
from controller.history import Series

_EMPTY = 0.01
"""Added to value / mean before its logarithm, so that empty steps stay finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`mean_tokens_per_s` becomes 1; with `logs`, the logarithm is what is modelled: errors in proportion to demand."""

    mean_tokens_per_s: float
    logs: bool

    @classmethod
    def of(cls, values: Series, *, logs: bool) -> Self | None:
        """The scale of a history; None for one that is constant, from which nothing can be fitted."""
        # fsum, exact: a last digit that depends on where the array lies in memory would be carried through the fit.
        mean = fsum(values) / len(values) if len(values) else 0.0
        if not mean > 0 or float(np.ptp(values)) < 1e-9 * mean:
            return None
        return cls(mean_tokens_per_s=mean, logs=logs)

    def to_model(self, tokens_per_s: Paths) -> Paths:
        scaled = tokens_per_s / self.mean_tokens_per_s
        return np.asarray(np.log(scaled + _EMPTY) if self.logs else scaled)

    def from_model(self, values: Paths) -> Paths:
        """Back to tokens/s, never negative. Overflow becomes infinity, which is noticed."""
        with np.errstate(over="ignore"):
            plain = (np.exp(values) - _EMPTY) if self.logs else values
        return np.asarray(np.where(np.isnan(plain), np.nan, np.maximum(plain, 0.0)) * self.mean_tokens_per_s)

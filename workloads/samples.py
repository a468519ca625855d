"""Many measurements of one kind, in flat memory: 4 bytes each."""

from array import array
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Of `n` samples, in their unit; zeros where there are none."""

    n: int
    p50: float
    p99: float
    max: float


class Samples:
    """Float32 values that only grow in number."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = array("f")

    def add(self, value: float) -> None:
        self._values.append(value)

    def extend(self, other: "Samples") -> None:
        self._values.extend(other._values)

    @classmethod
    def of(cls, values: "array[float]") -> "Samples":
        """These float32 values; the array becomes the samples'."""
        samples = cls()
        samples._values = values
        return samples

    def since(self, index: int) -> "array[float]":
        """Those from `index` on, as a copy."""
        return self._values[index:]

    def __len__(self) -> int:
        return len(self._values)

    def quantiles(self) -> Quantiles:
        if not self._values:
            return Quantiles(n=0, p50=0.0, p99=0.0, max=0.0)
        values = np.asarray(self._values, dtype=np.float32)
        p50, p99 = np.quantile(values, (0.5, 0.99)).tolist()
        return Quantiles(n=len(values), p50=p50, p99=p99, max=float(values.max()))

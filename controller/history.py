"""Demand and service seen so far, on a regular grid, by (model, region of origin), interactive and NIW apart."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]
Key = tuple[str, str]

SERIES = ("interactive", "niw", "ended", "missed", "interactive_output")
"""What is counted, as `DemandHistory` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandHistory:
    """Tokens/s in whole past bins of `bin_s` seconds; the last bin ends at `until_s`, the run starts at 0.

    `interactive` and `niw` map (model, region of origin) to arrays of one length; bins before 0 are history that the
    scenario supplied. Prompt tokens count in the bin in which the request arrived, output tokens in the one in which
    the answer ended: nothing is counted before it can be known. `interactive_output` holds the output tokens among
    `interactive`, for those keys of which they are known apart. `ended` and `missed` are interactive requests per bin:
    those that ended in it, however they did, and those of them that missed their SLO; 0 before the run.
    """

    bin_s: float
    until_s: float
    interactive: Mapping[Key, Series]
    niw: Mapping[Key, Series]
    ended: Mapping[Key, Series] = field(default_factory=lambda: MappingProxyType({}))
    missed: Mapping[Key, Series] = field(default_factory=lambda: MappingProxyType({}))
    interactive_output: Mapping[Key, Series] = field(default_factory=lambda: MappingProxyType({}))

    def resampled(self, key: Key, step_s: float) -> Series:
        """Mean tokens/s of `key`, interactive, on a grid of `step_s` (a multiple of `bin_s`) aligned to time 0.

        The grid's last step is the last whole one; an incomplete one at either end is left out.
        Raises ValueError when `step_s` is no multiple of `bin_s`.
        """
        return self._resampled(self.interactive[key], step_s)

    def resampled_output(self, key: Key, step_s: float) -> Series | None:
        """The same of its output tokens alone; None where they are not known apart."""
        series = self.interactive_output.get(key)
        return None if series is None else self._resampled(series, step_s)

    def _resampled(self, series: Series, step_s: float) -> Series:
        ratio = round(step_s / self.bin_s)
        if ratio < 1 or abs(ratio * self.bin_s - step_s) > 1e-9:
            raise ValueError(f"step_s={step_s} must be a multiple of the bin width {self.bin_s} s")
        end_bin = round(self.until_s / self.bin_s)
        tail = end_bin % ratio
        whole = series[: len(series) - tail] if tail else series
        head = len(whole) % ratio
        whole = whole[head:]
        return np.asarray(whole.reshape(-1, ratio).mean(axis=1))

    def latest(self, key: Key, window_s: float) -> float:
        """Mean interactive tokens/s of `key` over the last `window_s` seconds; 0 with no history."""
        series = self.interactive[key]
        count = max(1, round(window_s / self.bin_s))
        return float(series[-count:].mean()) if len(series) else 0.0

    def latest_niw(self, key: Key, window_s: float) -> float:
        """Mean NIW tokens/s of `key` over the last `window_s` seconds; 0 with no history."""
        series = self.niw[key]
        count = max(1, round(window_s / self.bin_s))
        return float(series[-count:].mean()) if len(series) else 0.0

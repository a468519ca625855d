"""What a fluid study asks of a fleet: tokens/s by model and region of origin, bin by bin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from controller.history import Series
from controller.types import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidLoad:
    """Tokens/s in bins of `bin_s` seconds, by (model, region of origin).

    `interactive` and `niw` begin at time 0 and have one length; `interactive_before` and `niw_before` end there and are
    what forecasts know of the past, oldest bin first. A pool that is left out has no load. NIW tokens must be served
    within `niw_deadline_s` of their arrival.
    Raises ValueError for series of different lengths, or for none.
    """

    bin_s: float
    interactive: Mapping[Pool, Series]
    niw: Mapping[Pool, Series] = field(default_factory=lambda: MappingProxyType({}))
    interactive_before: Mapping[Pool, Series] = field(default_factory=lambda: MappingProxyType({}))
    niw_before: Mapping[Pool, Series] = field(default_factory=lambda: MappingProxyType({}))
    niw_deadline_s: float = 24 * 3600.0

    def __post_init__(self) -> None:
        lengths = {len(series) for series in (*self.interactive.values(), *self.niw.values())}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"load series have {sorted(lengths)} bins; give every pool the same number, at least 1")
        if not self.bin_s > 0:
            raise ValueError(f"bin_s={self.bin_s}; must be above 0")

    @property
    def bins(self) -> int:
        return len(next(iter((*self.interactive.values(), *self.niw.values()))))

    @property
    def horizon_s(self) -> float:
        return self.bins * self.bin_s

    @property
    def bins_before(self) -> int:
        return max((len(s) for s in (*self.interactive_before.values(), *self.niw_before.values())), default=0)

    def whole(self, pool: Pool, *, interactive: bool) -> Series:
        """Past and load of a pool end to end, tokens/s; shape (bins_before + bins,), zeros where nothing is known."""
        before, load = (self.interactive_before, self.interactive) if interactive else (self.niw_before, self.niw)
        series = np.zeros(self.bins_before + self.bins)
        past = before.get(pool)
        if past is not None and len(past):
            series[self.bins_before - len(past) : self.bins_before] = past
        if pool in load:
            series[self.bins_before :] = load[pool]
        series.flags.writeable = False
        return series

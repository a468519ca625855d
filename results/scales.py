"""From a value to its place along an axis, and the ticks that a person reads there."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, floor, log10

import numpy as np

from results.arrays import Floats

Ticks = tuple[tuple[float, str], ...]

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_TIME_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 4, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 28)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis from `low` to `high`, linear or logarithmic; what lies outside is drawn at its end."""

    low: float
    high: float
    ticks: Ticks
    title: str = ""
    log: bool = False

    def place(self, values: Floats) -> Floats:
        """0 at `low`, 1 at `high`; NaN stays NaN."""
        inside = np.clip(np.asarray(values, dtype=np.float64), self.low, self.high)
        if self.log:
            return np.asarray(np.log(inside / self.low) / np.log(self.high / self.low))
        return (inside - self.low) / (self.high - self.low)

    @property
    def untitled(self) -> "Scale":
        """The same where the plot beneath tells what it is."""
        return replace(self, title="")


def from_zero(most: float, show: Callable[[float], str] | None = None, ticks: int = 4) -> Scale:
    """0 to the round value above `most`, at most `ticks` ticks beyond 0."""
    top = most if np.isfinite(most) and most > 0 else 1.0
    power = 10.0 ** floor(log10(top / ticks))
    step = next(power * each for each in (1.0, 2.0, 2.5, 5.0, 10.0) if top / (power * each) <= ticks)
    count = max(1, ceil(top / step - 1e-9))
    values = [step * index for index in range(count + 1)]
    return Scale(low=0.0, high=values[-1], ticks=tuple((v, (show or plain)(v)) for v in values))


def decades(low: float, high: float, show: Callable[[float], str]) -> Scale:
    """A logarithmic axis over whole powers of ten around `low` and `high`, both above 0."""
    first, last = floor(log10(low) + 1e-9), ceil(log10(high) - 1e-9)
    last = max(last, first + 1)
    every = ceil((last - first) / 6)
    powers = range(first, last + 1, every)
    return Scale(
        low=10.0**first,
        high=10.0**last,
        ticks=tuple((10.0**power, show(10.0**power)) for power in powers),
        log=True,
    )


def run_time(end_s: float, ticks: int = 7, title: str = "time of the run") -> Scale:
    """Time from 0 to `end_s` in the unit that suits it."""
    step = next((s for s in _TIME_STEPS_S if end_s / s <= ticks), _DAY * 28 * ceil(end_s / _DAY / 28 / ticks))
    unit_s, unit = next((s, name) for s, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"), (1, "s")) if step >= s)
    values = np.arange(0, end_s * (1 + 1e-9), step)
    return Scale(
        low=0.0,
        high=float(end_s) or 1.0,
        ticks=tuple((float(value), f"{value / unit_s:g}") for value in values),
        title=f"{title}, {unit}",
    )


def percentages() -> Scale:
    return Scale(low=0.0, high=1.0, ticks=tuple((n / 4, f"{n * 25} %") for n in range(5)))


def plain(value: float) -> str:
    """A tick's number: 1 M, 2.5 k, 0.1."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e3 else f"{value:g}"

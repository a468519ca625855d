"""How good forecasts were: sums that add up over series, and the scores made of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from controller.history import Series
from controller.types import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums over the forecasts of one or more series, in tokens/s where nothing else is said.

    `path_*` run over steps, `peak_*` over forecasts, one peak each. `missed` is |came - mean|; `excess` the peak of the
    mean less the peak that came; `spare` the peak's quantile less the peak that came; `pinball` the loss of that
    quantile; `covered` counts peaks at or below it. `why` counts reasons of fall-backs. `fit_s` and `step_s` are
    seconds spent in fits and in everything else.
    """

    forecasts: int = 0
    path_missed: float = 0.0
    path_came: float = 0.0
    peak_missed: float = 0.0
    peak_excess: float = 0.0
    peak_came: float = 0.0
    peak_spare: float = 0.0
    peak_pinball: float = 0.0
    path_pinball: float = 0.0
    covered: int = 0
    fits: int = 0
    fit_s: float = 0.0
    step_s: float = 0.0
    why: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in Tally.__slots__})

    @property
    def scores(self) -> "Scores":
        def share(part: float, whole: float) -> float | None:
            return part / whole if whole > 0 else None

        return Scores(
            forecasts=self.forecasts,
            path_wape=share(self.path_missed, self.path_came),
            peak_wape=share(self.peak_missed, self.peak_came),
            peak_bias=share(self.peak_excess, self.peak_came),
            path_pinball=share(self.path_pinball, self.path_came),
            peak_pinball=share(self.peak_pinball, self.peak_came),
            peak_coverage=share(self.covered, self.forecasts),
            peak_over_provision=share(self.peak_spare, self.peak_came),
            s_per_fit=share(self.fit_s, self.fits),
            s_per_step=share(self.step_s, self.forecasts),
            fits=self.fits,
            fell_back=self.why.total(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Errors as fractions of the demand that came; None where there is nothing to divide by.

    `path_wape`: sum |came - mean| / sum came, over all steps. `peak_wape`: the same of the peaks, the highest mean
    against the highest that came; `peak_bias`: signed, below 0 where the peak of the mean falls short.
    `path_pinball`, `peak_pinball`: pinball loss of the quantile, over what came. `peak_coverage`: share of peaks at or
    below the peak's quantile; `peak_over_provision`: sum (quantile - came) / sum came. `s_per_fit`, `s_per_step`: CPU
    seconds. `fell_back`: forecasts that the named method did not make, or not all of it.
    """

    forecasts: int
    path_wape: float | None
    peak_wape: float | None
    peak_bias: float | None
    path_pinball: float | None
    peak_pinball: float | None
    peak_coverage: float | None
    peak_over_provision: float | None
    s_per_fit: float | None
    s_per_step: float | None
    fits: int
    fell_back: int


def pinball(came: Series, quantile: Series, level: float) -> float:
    """Sum of the loss level (came - q) where that is positive, else (1 - level)(q - came) (Koenker and Bassett,
    Econometrica 46:33, 1978).
    """
    short = came - quantile
    return float(np.maximum(level * short, (level - 1) * short).sum())


def tally(forecast: Forecast, came: Series, peak_came: float, *, fits: int, fit_s: float, step_s: float) -> Tally:
    """One forecast against what came, shape (steps,), and its peak."""
    mean = np.array(forecast.mean_tokens_per_s)
    level = forecast.upper_quantile
    peak, upper = forecast.peak_mean_tokens_per_s, forecast.quantile(level)
    path = np.array(upper.path_tokens_per_s)
    return Tally(
        forecasts=1,
        path_missed=float(np.abs(came - mean).sum()),
        path_came=float(came.sum()),
        peak_missed=abs(peak_came - peak),
        peak_excess=peak - peak_came,
        peak_came=peak_came,
        peak_spare=upper.peak_tokens_per_s - peak_came,
        peak_pinball=pinball(np.array([peak_came]), np.array([upper.peak_tokens_per_s]), level),
        path_pinball=pinball(came, path, level),
        covered=int(peak_came <= upper.peak_tokens_per_s),
        fits=fits,
        fit_s=fit_s,
        step_s=step_s,
        why=Counter([forecast.fell_back_because] if forecast.fell_back_because else []),
    )


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them as one: what is large counts more."""
    return sum(tallies, Tally())

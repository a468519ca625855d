"""Forecasting methods by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType

from controller.forecasts.arima import Arima
from controller.forecasts.boosted import Boosted
from controller.forecasts.ensemble import Ensemble
from controller.forecasts.ets import Ets
from controller.forecasts.forecast import Method
from controller.forecasts.refit import Estimator, Refitted
from controller.forecasts.seasonal import LastLevel, SeasonalNaive
from controller.forecasts.theta import Theta

PAPER_ORDER = (3, 1, 2)
FOURIER_ORDER = (2, 0, 1)
WEEK_PER_DAY = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSettings:
    """What methods are made of; None stands for the method's own. Times in seconds of the run.

    `refit_s` defaults to half a season. `fit_window_s` defaults to seven seasons, or three for the paper's ARIMA, which
    only takes longer on more.
    """

    season_s: float = 24 * 3600.0
    level_steps: int = 4
    order: tuple[int, int, int] | None = None
    fourier_pairs: int = 4
    refit_s: float | None = None
    fit_window_s: float | None = None

    def refitted(self, estimator: Estimator, *, seasons: int = 7) -> Refitted:
        return Refitted(
            estimator=estimator,
            season_s=self.season_s,
            refit_s=self.refit_s or self.season_s / 2,
            fit_window_s=self.fit_window_s or seasons * self.season_s,
        )


def _last_value(_: MethodSettings) -> Method:
    return LastLevel(level_steps=1, name="last-value")


def _last_level(given: MethodSettings) -> Method:
    return LastLevel(level_steps=given.level_steps)


def _seasonal_naive(given: MethodSettings) -> Method:
    return SeasonalNaive(season_s=given.season_s, level_steps=given.level_steps)


def _seasonal_copy(given: MethodSettings) -> Method:
    return SeasonalNaive(season_s=given.season_s, level_steps=None, name="seasonal-copy")


def _weekly_naive(given: MethodSettings) -> Method:
    season_s = WEEK_PER_DAY * given.season_s
    return SeasonalNaive(season_s=season_s, level_steps=given.level_steps, name="weekly-naive")


def _weekly_copy(given: MethodSettings) -> Method:
    return SeasonalNaive(season_s=WEEK_PER_DAY * given.season_s, level_steps=None, name="weekly-copy")


def _arima(given: MethodSettings) -> Method:
    return given.refitted(Arima(order=given.order or PAPER_ORDER), seasons=3)


def _arima_fourier(given: MethodSettings) -> Method:
    return given.refitted(
        Arima(
            order=given.order or FOURIER_ORDER,
            fourier_pairs=given.fourier_pairs,
            logs=True,
            by="conditional",
            name="arima-fourier",
        )
    )


def _arima_log(given: MethodSettings) -> Method:
    return given.refitted(
        Arima(order=given.order or PAPER_ORDER, logs=True, by="conditional", name="arima-log"),
    )


def _ets(given: MethodSettings) -> Method:
    return given.refitted(Ets())


def _ensemble(given: MethodSettings) -> Method:
    return Ensemble(members=tuple(METHODS[name].make(given) for name in ENSEMBLE))


def _lightgbm(given: MethodSettings) -> Method:
    return given.refitted(Boosted())


def _statsforecast(given: MethodSettings) -> Method:
    return given.refitted(Theta())


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMethod:
    """How a method is made, what it is in one line, and the package of an optional extra (named like it) it needs."""

    make: Callable[[MethodSettings], Method]
    about: str
    needs: str = ""


ENSEMBLE = ("seasonal-naive", "arima-fourier", "arima-log", "ets")
METHODS: Mapping[str, KnownMethod] = MappingProxyType(
    {
        "last-value": KnownMethod(make=_last_value, about="the last step goes on"),
        "last-level": KnownMethod(make=_last_level, about="the mean of the last steps goes on"),
        "seasonal-naive": KnownMethod(make=_seasonal_naive, about="yesterday at the level of today"),
        "seasonal-copy": KnownMethod(make=_seasonal_copy, about="yesterday as it was"),
        "weekly-naive": KnownMethod(make=_weekly_naive, about="a week ago at the level of today"),
        "weekly-copy": KnownMethod(make=_weekly_copy, about="a week ago as it was"),
        "arima": KnownMethod(make=_arima, about="the paper's ARIMA(3, 1, 2), by maximum likelihood"),
        "arima-log": KnownMethod(make=_arima_log, about="ARIMA(3, 1, 2) on logs, by least squares"),
        "arima-fourier": KnownMethod(make=_arima_fourier, about="ARIMA(2, 0, 1) around daily Fourier terms, on logs"),
        "ets": KnownMethod(make=_ets, about="level, damped trend and daily season, on logs"),
        "ensemble": KnownMethod(make=_ensemble, about=f"the mean, by past errors, of {', '.join(ENSEMBLE)}"),
        "lightgbm": KnownMethod(make=_lightgbm, about="boosted trees of lags and seasons", needs="lightgbm"),
        "statsforecast": KnownMethod(make=_statsforecast, about="AutoTheta", needs="statsforecast"),
    }
)


def method(name: str, settings: MethodSettings) -> Method:
    """The method called `name`. Raises ValueError, one line, for one that there is not or whose package is missing."""
    if (problem := problem_with(name)) is not None:
        raise ValueError(problem)
    return METHODS[name].make(settings)


def problem_with(name: str) -> str | None:
    """Why the method cannot be used here, in one line; None where it can."""
    if name not in METHODS:
        return f"no forecast method {name!r}; there are {', '.join(METHODS)}"
    needs = METHODS[name].needs
    if needs and find_spec(needs) is None:
        return f"forecast method {name} needs {needs}, which is not installed: pip install 'sageserve-testbed[{needs}]'"
    return None

"""Parameters of forecasts, as a scenario file gives them."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.calibration import Calibration
from controller.forecasts.forecast import Forecaster
from controller.forecasts.methods import MethodSettings, method, problem_with
from controller.forecasts.seasonal import LastLevel, SeasonalNaive
from controller.parameter_types import Parameters, Quantile, Seconds

BEST_METHOD = "ensemble"
"""What `docs/forecasts.md` chooses. SageServe's own policies keep its ARIMA."""


class ForecastParameters(Parameters):
    """What forecasts demand. Times are of the run: a run compressed to minutes compresses them too.

    `method`: a name of `controller.forecasts.methods.METHODS`; `arima`, the default, is the paper's. `step_s` is the
    forecast's grid and must be a multiple of the history's bin; `peak_quantile` is the quantile of the next period's
    peak that the program must serve, null for the paper's rule: the peak of the mean. `peak_step_s` is the width of a
    peak: null for `step_s`, else a divisor of it and a multiple of the history's bin. `levels`: quantiles that
    forecasts carry beside it.
    Left out, `refit_s` is half a season, `calibration_window_s` three seasons, and `fit_window_s` seven seasons (three
    for the paper's ARIMA, which only takes longer on more). `trust_after_s`: time after which what arrived since the
    last whole step corrects a forecast by half (`controller.forecasts.correction`), null for no such correction.
    `processes`: over how many a refit of many series is spread.
    """

    method: str = "arima"
    step_s: Seconds = 900.0
    season_s: Seconds = 24 * 3600.0
    peak_quantile: Quantile | None = 0.9
    peak_step_s: Seconds | None = None
    levels: tuple[Quantile, ...] = (0.5, 0.9)
    order: tuple[int, int, int] | None = None
    fourier_pairs: Annotated[int, Field(ge=1, le=24)] = 4
    refit_s: Seconds | None = None
    fit_window_s: Seconds | None = None
    calibration_window_s: Seconds | None = None
    level_steps: Annotated[int, Field(ge=1)] = 4
    trust_after_s: Seconds | None = None
    processes: Annotated[int, Field(ge=1, le=64)] = 1

    @field_validator("method")
    @classmethod
    def _method_is_known_and_installed(cls, name: str) -> str:
        if (problem := problem_with(name)) is not None:
            raise ValueError(problem)
        return name

    @model_validator(mode="after")
    def _order_is_an_arima_order(self) -> Self:
        if self.order is not None and (min(self.order) < 0 or self.order[1] > 2 or max(self.order) > 8):
            raise ValueError(f"order {self.order}; give (p, d, q) with p and q of 0 to 8 and d of 0 to 2")
        return self

    @model_validator(mode="after")
    def _peak_steps_fill_a_step(self) -> Self:
        if self.peak_step_s is not None:
            inside = self.step_s / self.peak_step_s
            if inside < 1 or abs(inside - round(inside)) > 1e-6:
                raise ValueError(f"peak_step_s={self.peak_step_s:g} must divide step_s={self.step_s:g}")
        return self

    @property
    def upper_quantile(self) -> float:
        """The quantile forecasts carry, also where the program does not use it."""
        return 0.9 if self.peak_quantile is None else self.peak_quantile

    def forecaster(self) -> Forecaster:
        settings = MethodSettings(
            season_s=self.season_s,
            level_steps=self.level_steps,
            order=self.order,
            fourier_pairs=self.fourier_pairs,
            refit_s=self.refit_s,
            fit_window_s=self.fit_window_s,
        )
        return CalibratedForecaster(
            method=method(self.method, settings),
            instead=(SeasonalNaive(season_s=self.season_s, level_steps=self.level_steps),),
            last_resort=LastLevel(level_steps=self.level_steps),
            calibration=Calibration(window_s=self.calibration_window_s or 3 * self.season_s, levels=self.levels),
        )

"""Parameters of the policies, as a scenario file gives them: strict, with the paper's values as defaults."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from controller.forecasts.arima import Arima
from controller.forecasts.forecast import Calibration, Forecaster
from controller.forecasts.seasonal import LastLevel, SeasonalNaive
from controller.program.ilp import SolverSettings

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Quantile = Annotated[float, Field(gt=0, lt=1)]


class Parameters(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ForecastParameters(Parameters):
    """What forecasts demand. Times are of the run: a run compressed to minutes compresses them too.

    `method`: `arima` is ARIMA of `order`, the paper's; `arima-fourier` is ARIMA(2, 0, 1) with `fourier_pairs` daily
    terms on logs, the best single method measured on public traces; `seasonal-naive` and `last-level` need no fit.
    `step_s` is the forecast's grid and must be a multiple of the history's bin; `peak_quantile` is the quantile of
    the next period's peak that the program must serve, null for the paper's rule: the peak of the mean.
    Left out, `refit_s` is half a season, `fit_window_s` three seasons (seven with Fourier terms, which gain by it where
    the paper's ARIMA only takes longer), and `calibration_window_s` three seasons.
    """

    method: Literal["arima", "arima-fourier", "seasonal-naive", "last-level"] = "arima"
    step_s: Seconds = 900.0
    season_s: Seconds = 24 * 3600.0
    peak_quantile: Quantile | None = 0.9
    order: tuple[int, int, int] | None = None
    fourier_pairs: Annotated[int, Field(ge=1, le=24)] = 4
    refit_s: Seconds | None = None
    fit_window_s: Seconds | None = None
    calibration_window_s: Seconds | None = None
    level_steps: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _order_is_an_arima_order(self) -> Self:
        if self.order is not None and (min(self.order) < 0 or self.order[1] > 2 or max(self.order) > 8):
            raise ValueError(f"order {self.order}; give (p, d, q) with p and q of 0 to 8 and d of 0 to 2")
        return self

    @property
    def upper_quantile(self) -> float:
        """The quantile forecasts carry, also where the program does not use it."""
        return 0.9 if self.peak_quantile is None else self.peak_quantile

    def forecaster(self) -> Forecaster:
        calibration = Calibration(window_s=self.calibration_window_s or 3 * self.season_s)
        if self.method == "last-level":
            return LastLevel(level_steps=self.level_steps, calibration=calibration)
        if self.method == "seasonal-naive":
            return SeasonalNaive(season_s=self.season_s, level_steps=self.level_steps, calibration=calibration)
        with_seasons = self.method == "arima-fourier"
        return Arima(
            order=self.order or ((2, 0, 1) if with_seasons else (3, 1, 2)),
            fourier_pairs=self.fourier_pairs if with_seasons else 0,
            logs=with_seasons,
            season_s=self.season_s,
            refit_s=self.refit_s or self.season_s / 2,
            fit_window_s=self.fit_window_s or (7 if with_seasons else 3) * self.season_s,
            level_steps=self.level_steps,
            calibration=calibration,
            name=self.method,
        )


class SolverParameters(Parameters):
    """When HiGHS may stop: at this relative gap, or this many seconds."""

    gap: Annotated[float, Field(ge=0, lt=1)] = 0.005
    time_limit_s: Seconds = 60.0

    def settings(self) -> SolverSettings:
        return SolverSettings(gap=self.gap, time_limit_s=self.time_limit_s)


class StaticParameters(Parameters):
    """`counts` by placement, written model@region/gpu_type; placements left out have `servers_per_pool` on the
    cheapest GPU type of their pool, and where that is null too, as many servers as stand at the first decision.
    """

    counts: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    servers_per_pool: Annotated[int, Field(ge=0)] | None = None
    interval_s: Seconds = 60.0


class Thresholds(Parameters):
    """Utilisation above which a pool gains a server and below which it loses one.

    A cooldown is the time since the pool's last change before it may gain or lose one (again).
    """

    scale_out_above: Annotated[float, Field(gt=0)] = 0.70
    scale_in_below: Annotated[float, Field(ge=0)] = 0.30
    cooldown_out_s: Annotated[float, Field(ge=0)] = 15.0
    cooldown_in_s: Annotated[float, Field(ge=0)] = 15.0

    @model_validator(mode="after")
    def _in_lies_below_out(self) -> Self:
        if not self.scale_in_below < self.scale_out_above:
            raise ValueError(
                f"scale_in_below={self.scale_in_below} must be below scale_out_above={self.scale_out_above}"
            )
        return self


class ReactiveParameters(Parameters):
    """`preset`: `paper` is 0.70 / 0.30 with a cooldown of 15 s, `code` the released simulator's 0.50 / 0.25 with 65 s
    and 155 s; a threshold or cooldown given beside it wins.
    """

    preset: Literal["paper", "code"] = "paper"
    scale_out_above: Annotated[float, Field(gt=0)] | None = None
    scale_in_below: Annotated[float, Field(ge=0)] | None = None
    cooldown_out_s: Annotated[float, Field(ge=0)] | None = None
    cooldown_in_s: Annotated[float, Field(ge=0)] | None = None
    interval_s: Seconds = 15.0

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        self.thresholds()
        return self

    def thresholds(self) -> Thresholds:
        given = {name: getattr(self, name) for name in Thresholds.model_fields if getattr(self, name) is not None}
        return Thresholds(**{**_PRESETS[self.preset], **given})


_PRESETS: dict[str, dict[str, float]] = {
    "paper": {"scale_out_above": 0.70, "scale_in_below": 0.30, "cooldown_out_s": 15.0, "cooldown_in_s": 15.0},
    "code": {"scale_out_above": 0.50, "scale_in_below": 0.25, "cooldown_out_s": 65.0, "cooldown_in_s": 155.0},
}


class LongTermParameters(Parameters):
    """LT-I: a program every `period_s`; in between, every `interval_s`, the fleet is brought to its answer.

    `epsilon`: the share of a region's demand that must be served in the region. `niw_share` of the NIW load over the
    last `niw_window_s` is added to each model's demand.
    """

    period_s: Seconds = 3600.0
    interval_s: Seconds = 60.0
    epsilon: Share = 0.8
    niw_share: Annotated[float, Field(ge=0)] = 0.10
    niw_window_s: Seconds = 3600.0
    forecast: ForecastParameters = ForecastParameters()
    solver: SolverParameters = SolverParameters()

    @model_validator(mode="after")
    def _steps_fill_the_period(self) -> Self:
        steps = self.period_s / self.forecast.step_s
        if steps < 1 or abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"period_s={self.period_s:g} must be a multiple of forecast.step_s={self.forecast.step_s:g}"
            )
        if self.interval_s > self.period_s:
            raise ValueError(f"interval_s={self.interval_s:g} must not exceed period_s={self.period_s:g}")
        return self


class StepwiseParameters(LongTermParameters):
    """LT-U: the program's answer is a budget, approached one server at a time as utilisation passes the thresholds."""

    thresholds: Thresholds = Thresholds()


class AdaptiveParameters(StepwiseParameters):
    """LT-UA: in the last `late_window_s` of a period, where the load of the last `observed_window_s` is at least
    `beyond_above` times the forecast, thresholds act beyond the budget upwards; at most `beyond_below` times it,
    downwards.
    """

    late_window_s: Seconds = 1200.0
    observed_window_s: Seconds = 60.0
    beyond_above: Annotated[float, Field(gt=1)] = 5.0
    beyond_below: Annotated[float, Field(gt=0, lt=1)] = 0.5

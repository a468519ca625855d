"""Parameters of the policies, as a scenario file gives them: strict, with the paper's values as defaults."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from controller.forecasts.parameters import ForecastParameters
from controller.parameter_types import Parameters, Seconds, Share
from controller.program.ilp import SolverSettings


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

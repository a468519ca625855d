"""Parameters of `mpc` and `oracle`. One is a choice: the budget. The others say in which time the run lives."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from controller.parameter_types import Parameters, Seconds


class MpcParameters(Parameters):
    """`budget`: the share of interactive requests that may miss their SLO.

    Times are of the run; a run compressed to minutes compresses them too. `step_s`: the grid of demand, a
    multiple of the history's bin. `season_s`: after which demand repeats. The forecast is refitted every `refit_s` on
    the last `fit_window_s`. `horizon_s`: how long a plan stands about, where holding is weighed against starting.
    `distance_price`: a second of round trip for all that one server serves costs so many times that server.
    `most_asleep`: sleeping servers of a placement, null for as many as demand has needed within a season, 0 for none.
    `niw_margin_s`: NIW is planned to be done so long before its deadline.
    """

    budget: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    interval_s: Seconds = 60.0
    step_s: Seconds = 60.0
    season_s: Seconds = 24 * 3600.0
    refit_s: Seconds = 3600.0
    fit_window_s: Seconds = 7 * 24 * 3600.0
    horizon_s: Seconds = 900.0
    distance_price: Annotated[float, Field(ge=0)] = 1.0
    most_asleep: Annotated[int, Field(ge=0)] | None = None
    niw_margin_s: Seconds = 600.0
    solver_time_limit_s: Seconds = 5.0

    @model_validator(mode="after")
    def _times_are_in_order(self) -> Self:
        if self.refit_s < self.step_s or self.fit_window_s < self.refit_s:
            raise ValueError(
                f"step_s={self.step_s:g}, refit_s={self.refit_s:g}, fit_window_s={self.fit_window_s:g}; "
                "give step_s <= refit_s <= fit_window_s"
            )
        return self

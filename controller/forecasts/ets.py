"""Exponential smoothing, ETS(A, Ad, A): a level, a damped trend and a season, each drawn towards what came last.

Holt and Winters' method with damped trend (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed.,
sections 8.3 to 8.7). Smoothing parameters are fitted by statsmodels; forecasts from all origins are one pass of the
recursion with the parameters held.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from controller.forecasts.calibration import normal_quantile
from controller.forecasts.forecast import Origins, Past, Paths
from controller.forecasts.scale import Scale
from controller.history import Series

_START = {"smoothing_level": 0.8, "smoothing_trend": 0.1, "smoothing_seasonal": 0.05, "damping_trend": 0.9}
"""Where the search begins. statsmodels' own search for a beginning takes half of a fit and ends hardly lower."""
_SEASONS = 2
"""Fewer do not tell a season from what happened once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtsPaths:
    """Smoothing parameters and the states before step `from_step` of the grid; `season[k]` is of step from_step + k."""

    alpha: float
    beta: float
    gamma: float
    phi: float
    level: float
    trend: float
    season: tuple[float, ...]
    sigma: float
    scale: Scale
    from_step: int
    caveat: str = ""
    warnings: tuple[str, ...] = ()

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        begin = self.from_step - past.first_step
        levels, trends, seasons = self._states(self.scale.to_model(past.values[begin:]))
        answer = np.full((len(origins), steps), np.nan)
        m = len(self.season)
        usable = origins >= begin + m
        at = origins[usable] - begin
        damped = np.cumsum(self.phi ** np.arange(1, steps + 1))
        season = seasons[at[:, None] + np.arange(steps)[None, :] % m]
        answer[usable] = self.scale.from_model(levels[at][:, None] + trends[at][:, None] * damped[None, :] + season)
        return answer

    def _states(self, y: Series) -> tuple[Series, Series, Series]:
        """Level and trend before each value and after the last, shape (n + 1,), and the season in force for each step,
        shape (n + season,).
        """
        n = len(y)
        levels, trends = np.empty(n + 1), np.empty(n + 1)
        season = [*self.season, *(0.0 for _ in range(n))]
        level, trend, m = self.level, self.trend, len(self.season)
        alpha, beta, gamma, phi = self.alpha, self.beta, self.gamma, self.phi
        for t, value in enumerate(y.tolist()):
            levels[t], trends[t] = level, trend
            ahead = level + phi * trend
            new = alpha * (value - season[t]) + (1 - alpha) * ahead
            season[t + m] = gamma * (value - ahead) + (1 - gamma) * season[t]
            trend = beta * (new - level) + (1 - beta) * phi * trend
            level = new
        levels[n], trends[n] = level, trend
        return levels, trends, np.array(season)

    def spread(self, past: Past, path: Series, level: float) -> Series:  # noqa: ARG002 - the fit knows
        """Gaussian quantile with the variance of ETS(A, Ad, A) (FPP3, section 8.7)."""
        j = np.arange(1, len(path))
        c = self.alpha * (1 + self.beta * np.cumsum(self.phi**j)) + self.gamma * (j % len(self.season) == 0)
        sd = self.sigma * np.sqrt(1 + np.concatenate(([0.0], np.cumsum(np.square(c)))))
        return self.scale.from_model(self.scale.to_model(path) + normal_quantile(level) * sd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ets:
    """Estimator: ETS(A, Ad, A), with `logs` on logarithms, where season and errors grow with demand."""

    logs: bool = True
    name: str = "ets"

    def least_steps(self, season_steps: int) -> int:
        return _SEASONS * max(2, season_steps)

    def fit(self, known: Past, season_steps: int) -> EtsPaths | str:
        """The model, or in words why there is none."""
        scale = Scale.of(known.values, logs=self.logs)
        if scale is None:
            return "the history is constant"
        if season_steps < 2:
            return f"a season of {season_steps} steps has no shape"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = ExponentialSmoothing(
                    scale.to_model(known.values),
                    trend="add",
                    damped_trend=True,
                    seasonal="add",
                    seasonal_periods=season_steps,
                    initialization_method="heuristic",
                ).fit(start_params=_start(), use_brute=False)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                return f"the fit failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        said = tuple(sorted({str(w.message).splitlines()[0] for w in caught}))
        if not result.mle_retvals.success:
            return "the fit did not converge" + (f" ({'; '.join(said)})" if said else "")
        found = result.params
        return EtsPaths(
            alpha=float(found["smoothing_level"]),
            beta=float(found["smoothing_trend"]),
            gamma=float(found["smoothing_seasonal"]),
            phi=float(found["damping_trend"]),
            level=float(found["initial_level"]),
            trend=float(found["initial_trend"]),
            season=tuple(np.asarray(found["initial_seasons"]).tolist()),
            sigma=float(np.sqrt(result.sse / len(known.values))),
            scale=scale,
            from_step=known.first_step,
            warnings=said,
        )


def _start() -> Series:
    return np.array(list(_START.values()))

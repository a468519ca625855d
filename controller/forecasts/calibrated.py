"""A forecaster of any method: calibrated, and with named methods to fall back on."""

from dataclasses import dataclass, field, replace

from controller.forecasts.calibration import DEFAULT_CALIBRATION, Calibration, calibrated_forecast
from controller.forecasts.forecast import Method, NotForecastable, Past
from controller.forecasts.seasonal import LastLevel, SeasonalNaive
from controller.types import Forecast

_EXPLODED = 5.0
"""A prediction above this many times the largest value ever seen is no forecast, and no quantile is above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedForecaster:
    """Forecaster: `method`, else the first of `instead` that can answer, else the last level, which always can.

    A method is passed over, by name, on too little history, a fit that fails or does not converge, and a prediction
    that is not finite or has exploded.
    """

    method: Method
    instead: tuple[Method, ...] = field(default_factory=lambda: (SeasonalNaive(),))
    last_resort: LastLevel = field(default_factory=LastLevel)
    calibration: Calibration = DEFAULT_CALIBRATION

    @property
    def name(self) -> str:
        return self.method.name

    def forecast(self, past: Past, *, steps: int, upper_quantile: float, skip: int = 0) -> Forecast:
        methods = [self.method]
        methods += [other for other in (*self.instead, self.last_resort) if other.name not in {m.name for m in methods}]
        because = ""
        for position, method in enumerate(methods):
            try:
                answer = calibrated_forecast(
                    method.model(past),
                    past,
                    steps=steps,
                    skip=skip,
                    upper_quantile=upper_quantile,
                    calibration=self.calibration,
                    method=self.name,
                    fell_back_because=f"{because}; {method.name} instead" if because else "",
                )
                _must_not_have_exploded(answer, past)
            except NotForecastable as why:
                if position == len(methods) - 1:
                    raise
                because = "; ".join(filter(None, (because, f"{method.name}: {why}")))
            else:
                return _cut(answer, past)
        raise AssertionError("the last resort answers for any past")


def _must_not_have_exploded(answer: Forecast, past: Past) -> None:
    largest = float(past.values.max(initial=0.0))
    if answer.peak_mean_tokens_per_s > _EXPLODED * largest:
        raise NotForecastable(
            f"its prediction of {answer.peak_mean_tokens_per_s:.3g} tokens/s exploded, "
            f"the most ever seen is {largest:.3g}"
        )


def _cut(answer: Forecast, past: Past) -> Forecast:
    """Quantiles no higher than what counts as exploded, by name: errors are ratios, so where next to nothing was
    forecast and something came they are huge, and multiply what is forecast when that is much."""
    most = _EXPLODED * float(max(past.values.max(initial=0.0), past.highest.max(initial=0.0)))
    highest = max(
        answer.peak_upper_tokens_per_s, *(max(q.peak_tokens_per_s, *q.path_tokens_per_s) for q in answer.quantiles)
    )
    if most <= 0 or highest <= most:
        return answer
    cut = f"its quantiles, up to {highest:.3g} tokens/s, cut at {most:.3g}: {_EXPLODED:g} times the most ever seen"
    return replace(
        answer,
        upper_tokens_per_s=tuple(min(value, most) for value in answer.upper_tokens_per_s),
        quantiles=tuple(
            replace(
                q,
                path_tokens_per_s=tuple(min(value, most) for value in q.path_tokens_per_s),
                peak_tokens_per_s=min(q.peak_tokens_per_s, most),
            )
            for q in answer.quantiles
        ),
        fell_back_because="; ".join(filter(None, (answer.fell_back_because, cut))),
    )

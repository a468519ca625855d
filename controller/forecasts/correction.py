"""A forecast corrected by what has arrived since it was made: its shape kept, its level moved part of the way."""

from dataclasses import replace

import numpy as np

from controller.history import Series
from controller.types import Forecast, ForecastQuantile

_LARGEST_CORRECTION = 4.0
"""What arrived over what was forecast counts as at most this much, and at least its inverse."""
TRUST_AFTER_S = 600.0
WINDOW_S = 1200.0
"""Of these and their multiples, the best on eight of nine public and synthetic series (docs/forecasts.md)."""


def corrected(
    forecast: Forecast,
    arrived: Series,
    *,
    arrived_step_s: float,
    trust_after_s: float = TRUST_AFTER_S,
    window_s: float = WINDOW_S,
) -> Forecast:
    """`forecast` from the step in progress on, times `live_factor`, which says what the arguments are.

    Where nothing has arrived yet, or all steps have passed, the forecast comes back as it was given.
    """
    factor = live_factor(
        forecast, arrived, arrived_step_s=arrived_step_s, trust_after_s=trust_after_s, window_s=window_s
    )
    done = int(len(arrived) * arrived_step_s / forecast.step_s + 1e-9)
    if not len(arrived) or done >= len(forecast.mean_tokens_per_s):
        return forecast
    return scaled(forecast, factor, from_step=done)


def live_factor(
    forecast: Forecast,
    arrived: Series,
    *,
    arrived_step_s: float,
    trust_after_s: float = TRUST_AFTER_S,
    window_s: float = WINDOW_S,
) -> float:
    """The shrunken ratio of what came to what was forecast.

    `arrived`: mean tokens/s in steps of `arrived_step_s` seconds, the first of which begins at `forecast.from_s`; its
    end is now. Its last `window_s` count, since the level is what it is now, and what came after the last step not.
    With r the tokens that came over those forecast for that time, held within 1/4..4, and T its length in seconds:

        r ^ w,    w = T / (T + trust_after_s)

    the credibility of an observed log ratio against one of 0 (Buhlmann, ASTIN Bulletin 4:199, 1967): at 0 s nothing is
    corrected, after `trust_after_s` half of it. Raises ValueError for seconds that are not above 0.
    """
    if not (arrived_step_s > 0 and trust_after_s > 0 and window_s > 0):
        given = f"arrived_step_s={arrived_step_s:g}, trust_after_s={trust_after_s:g}, window_s={window_s:g}"
        raise ValueError(f"{given}; all must be above 0")
    middles_s = (np.arange(len(arrived)) + 0.5) * arrived_step_s
    inside = middles_s < len(forecast.mean_tokens_per_s) * forecast.step_s
    recent = slice(-max(1, round(window_s / arrived_step_s)), None)
    came, at_s = arrived[inside][recent], middles_s[inside][recent]
    expected = np.array(forecast.mean_tokens_per_s)[(at_s / forecast.step_s).astype(np.int64)]
    return level_factor(float(came.sum()), float(expected.sum()), len(came) * arrived_step_s, trust_after_s)


def scaled(forecast: Forecast, factor: float, *, from_step: int = 0) -> Forecast:
    """The steps of `forecast` from `from_step` on, times `factor`."""
    return replace(
        forecast,
        from_s=forecast.from_s + from_step * forecast.step_s,
        mean_tokens_per_s=_scaled(forecast.mean_tokens_per_s, from_step, factor),
        upper_tokens_per_s=_scaled(forecast.upper_tokens_per_s, from_step, factor),
        quantiles=tuple(_quantile(each, forecast, from_step, factor) for each in forecast.quantiles),
    )


def level_factor(came: float, expected: float, over_s: float, trust_after_s: float) -> float:
    """r ^ w for `came` against `expected` tokens (or tokens/s) over `over_s` seconds; 1 where nothing was expected."""
    if not expected > 0:
        return 1.0
    ratio = min(max(came / expected, 1 / _LARGEST_CORRECTION), _LARGEST_CORRECTION)
    return float(ratio ** (over_s / (over_s + trust_after_s)))


def _quantile(quantile: ForecastQuantile, forecast: Forecast, done: int, factor: float) -> ForecastQuantile:
    # The quantile of the peak is that of the whole time: it falls with the highest mean of what is left of it.
    left = max(forecast.mean_tokens_per_s[done:])
    share = left / forecast.peak_mean_tokens_per_s if forecast.peak_mean_tokens_per_s > 0 else 1.0
    return replace(
        quantile,
        path_tokens_per_s=_scaled(quantile.path_tokens_per_s, done, factor),
        peak_tokens_per_s=quantile.peak_tokens_per_s * share * factor,
    )


def _scaled(path: tuple[float, ...], done: int, factor: float) -> tuple[float, ...]:
    return tuple(value * factor for value in path[done:])

"""ARIMA forecasts: parameters fitted now and then by statsmodels, everything between by the model's own recursion.

The parameters are fitted on history cut at the last multiple of `refit_s`; from the cut on, and for the repeated
forecasts that calibrate the upper quantile, the residual recursion of the ARMA equations runs with the parameters held
(Box, Jenkins and Reinsel, Time Series Analysis, chapter 5). So hourly forecasts of many series cost milliseconds,
and the answer depends on the past alone.
"""

import hashlib
import warnings
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from statsmodels.tsa.arima.model import ARIMA
from threadpoolctl import ThreadpoolController

from controller.forecasts.forecast import (
    DEFAULT_CALIBRATION,
    Calibration,
    NotForecastable,
    Origins,
    Past,
    Paths,
    calibrated_forecast,
    normal_quantile,
)
from controller.forecasts.seasonal import SeasonalNaive
from controller.history import Series
from controller.types import Forecast

_EXPLODED = 5.0
"""A prediction above this many times the largest value ever seen is no forecast."""
_LEAST_STEPS = 32
"""Fewer points do not pin down six parameters."""
_BLAS = ThreadpoolController()
"""Fits multiply matrices of a few rows: BLAS threads that wait for each other make them ten times slower."""
_KEPT_FITS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ArimaFit:
    """Parameters of y = trend + seasonal terms + ARIMA noise, on values scaled (and logged, where asked for).

    `beta`: intercept (only without differencing), then the cosines and sines of each Fourier pair. `ar`, `ma`: phi and
    theta in statsmodels' signs. `sigma`: standard deviation of one step's surprise, in the transformed scale.
    """

    ar: tuple[float, ...]
    ma: tuple[float, ...]
    beta: tuple[float, ...]
    sigma: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArimaPaths:
    """Forecasts of a fitted model from any origin; `first_step` numbers `values[0]` on the grid from time 0."""

    fit: ArimaFit
    d: int
    logs: bool
    season_steps: float
    fourier_pairs: int
    first_step: int

    def paths(self, values: Series, origins: Origins, steps: int) -> Paths:
        n, d = len(values), self.d
        regression = self._regression(np.arange(n + steps))
        noise = transformed(values, self.fit.scale, self.logs) - regression[:n]
        w = np.diff(noise, n=d)
        phi, theta = np.array(self.fit.ar), np.array(self.fit.ma)
        p, q = len(phi), len(theta)
        # Surprises e: theta(B) e = phi(B) w, with values before the start taken as 0.
        e = lfilter(np.concatenate(([1.0], -phi)), np.concatenate(([1.0], theta)), w) if len(w) else w
        answer = np.full((len(origins), steps), np.nan)
        usable = origins >= max(p, q) + d + 1
        at = origins[usable] - d
        ahead_w = np.zeros((len(at), p + steps))
        ahead_e = np.zeros((len(at), q + steps))
        for lag in range(p):
            ahead_w[:, lag] = w[at - p + lag]
        for lag in range(q):
            ahead_e[:, lag] = e[at - q + lag]
        for h in range(steps):
            ahead_w[:, p + h] = ahead_w[:, h : h + p] @ phi[::-1] + ahead_e[:, h : h + q] @ theta[::-1]
        ahead = ahead_w[:, p:]
        for order in range(d, 0, -1):
            last = np.diff(noise, n=order - 1)[origins[usable] - order]
            ahead = last[:, None] + np.cumsum(ahead, axis=1)
        ahead = ahead + regression[origins[usable][:, None] + np.arange(steps)[None, :]]
        answer[usable] = restored(ahead, self.fit.scale, self.logs)
        return answer

    def spread(self, values: Series, path: Series, upper_quantile: float) -> Series:  # noqa: ARG002 - the fit knows
        """Gaussian quantile with the variance sigma^2 (psi_0^2 + ... + psi_h-1^2) of the psi weights."""
        steps = len(path)
        impulse = np.zeros(steps)
        impulse[0] = 1.0
        psi = lfilter(np.concatenate(([1.0], self.fit.ma)), np.concatenate(([1.0], -np.array(self.fit.ar))), impulse)
        for _ in range(self.d):
            psi = np.cumsum(psi)
        sd = self.fit.sigma * np.sqrt(np.cumsum(np.square(psi)))
        shifted = transformed(path, self.fit.scale, self.logs) + normal_quantile(upper_quantile) * sd
        return restored(shifted, self.fit.scale, self.logs)

    def _regression(self, steps: npt.NDArray[np.int64]) -> Series:
        design = fourier_design(self.first_step + steps, self.season_steps, self.fourier_pairs, self.d == 0)
        return np.asarray(design @ np.array(self.fit.beta)) if design.shape[1] else np.zeros(len(steps))


def transformed(values: Series, scale: float, logs: bool) -> Series:
    """To the model's scale: values / scale, or log(values / scale + 1 %) so that empty steps stay finite."""
    return np.log(values / scale + 0.01) if logs else values / scale


def restored(values: Paths, scale: float, logs: bool) -> Paths:
    """Back to tokens/s, never negative: the inverse of `transformed`. Overflow becomes infinity, which is noticed."""
    with np.errstate(over="ignore"):
        plain = (np.exp(values) - 0.01) if logs else values
    return np.asarray(np.where(np.isnan(plain), np.nan, np.maximum(plain, 0.0)) * scale)


def fourier_design(steps: npt.NDArray[np.int64], season_steps: float, pairs: int, intercept: bool) -> Paths:
    """Columns of the regression: 1 (with `intercept`), then cos and sin of each harmonic; shape (steps, columns)."""
    angle = 2 * np.pi * steps / season_steps
    columns = [np.ones(len(steps))] if intercept else []
    for harmonic in range(1, pairs + 1):
        columns += [np.cos(harmonic * angle), np.sin(harmonic * angle)]
    return np.stack(columns, axis=1) if columns else np.empty((len(steps), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arima:
    """Forecaster: ARIMA(p, d, q), by default the paper's (3, 1, 2), with optional seasonal terms and logs.

    Falls back to the level-adjusted seasonal naive, by name, on too little history, a fit that fails or does not
    converge, and a prediction that is not finite or has exploded. Fits are remembered by the bytes they were made
    from, which changes the speed of an answer and never the answer.
    """

    order: tuple[int, int, int] = (3, 1, 2)
    fourier_pairs: int = 0
    logs: bool = False
    season_s: float = 24 * 3600.0
    refit_s: float = 12 * 3600.0
    fit_window_s: float = 3 * 24 * 3600.0
    level_steps: int = 4
    calibration: Calibration = DEFAULT_CALIBRATION
    name: str = "arima"
    _fits: dict[bytes, "ArimaFit | str"] = field(default_factory=dict, repr=False, compare=False)

    def forecast(self, past: Past, *, steps: int, upper_quantile: float) -> Forecast:
        try:
            model = self._fitted(past)
            answer = calibrated_forecast(
                model, past, steps=steps, upper_quantile=upper_quantile, calibration=self.calibration, method=self.name
            )
            largest = float(past.values.max())
            if answer.peak_mean_tokens_per_s > _EXPLODED * largest:
                raise NotForecastable(
                    f"its prediction of {answer.peak_mean_tokens_per_s:.3g} tokens/s exploded, "
                    f"the most ever seen is {largest:.3g}"
                )
            return answer
        except NotForecastable as why:
            naive = SeasonalNaive(season_s=self.season_s, level_steps=self.level_steps, calibration=self.calibration)
            return naive.standing_in(
                past, steps=steps, upper_quantile=upper_quantile, method=self.name, because=f"{self.name}: {why}"
            )

    def _fitted(self, past: Past) -> ArimaPaths:
        """The model with the parameters of the last refit. Raises NotForecastable with the reason."""
        last_step = round(past.until_s / past.step_s)
        refit_steps = max(1, round(self.refit_s / past.step_s))
        after_cut = min(last_step % refit_steps, len(past.values))
        cut = len(past.values) - after_cut
        known = past.values[max(0, cut - round(self.fit_window_s / past.step_s)) : cut]
        season_steps = self.season_s / past.step_s
        # Seasonal terms fitted on part of a season would extrapolate the rest of it.
        least = max(_LEAST_STEPS, round(season_steps) if self.fourier_pairs else 0)
        if len(known) < least:
            raise NotForecastable(
                f"too little history: {len(known)} steps of {past.step_s:g} s at the last fit, {least} wanted"
            )
        first = last_step - after_cut - len(known)
        key = hashlib.blake2b(
            known.tobytes() + repr((first % max(1, round(season_steps)), past.step_s)).encode()
        ).digest()
        if key not in self._fits:
            while len(self._fits) >= _KEPT_FITS:
                del self._fits[next(iter(self._fits))]
            self._fits[key] = fit_arima(
                known,
                order=self.order,
                logs=self.logs,
                design=fourier_design(
                    np.arange(first, first + len(known)), season_steps, self.fourier_pairs, self.order[1] == 0
                ),
            )
        fit = self._fits[key]
        if isinstance(fit, str):
            raise NotForecastable(fit)
        return ArimaPaths(
            fit=fit,
            d=self.order[1],
            logs=self.logs,
            season_steps=season_steps,
            fourier_pairs=self.fourier_pairs,
            first_step=last_step - len(past.values),
        )


def fit_arima(values: Series, *, order: tuple[int, int, int], logs: bool, design: Paths) -> ArimaFit | str:
    """Fitted parameters, or in words why there are none. `values` tokens/s, shape (n,); `design` shape (n, columns).

    In two steps: seasonal terms by least squares, then the noise by maximum likelihood. All at once takes ten times
    as long, often does not converge, and forecasts no better.
    """
    scale = float(values.mean())
    if not scale > 0 or float(np.ptp(values)) < 1e-9 * scale:
        return "the history is constant"
    y = transformed(values, scale, logs)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    with warnings.catch_warnings(record=True) as caught, _BLAS.limit(limits=1):
        warnings.simplefilter("always")
        try:
            result = ARIMA(y - design @ beta, order=order, trend="n").fit(
                method_kwargs={"maxiter": 200, "disp": 0}, low_memory=True, cov_type="none"
            )
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            return f"the fit failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if not result.mle_retvals.get("converged", True):
        said = sorted({str(w.message).splitlines()[0] for w in caught})
        return "the fit did not converge" + (f" ({'; '.join(said)})" if said else "")
    params = np.asarray(result.params, dtype=float)
    p, q = order[0], order[2]
    if not (np.isfinite(params).all() and np.isfinite(beta).all()):
        return "the fit gave parameters that are not finite"
    return ArimaFit(
        beta=tuple(beta.tolist()),
        ar=tuple(params[:p].tolist()),
        ma=tuple(params[p : p + q].tolist()),
        sigma=float(np.sqrt(params[-1])),
        scale=scale,
    )

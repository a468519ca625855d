"""ARIMA with optional seasonal terms and logs: forecasts from any origin by the model's own recursion.

With the parameters held, the residual recursion of the ARMA equations gives the forecasts from all origins at once
(Box, Jenkins and Reinsel, Time Series Analysis, chapter 5); how the parameters are found is in `arima_fit.py`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from controller.forecasts.arima_fit import NoFit, conditional_fit, likelihood_fit
from controller.forecasts.calibration import normal_quantile
from controller.forecasts.forecast import Origins, Past, Paths
from controller.forecasts.scale import Scale
from controller.history import Series

_LEAST_STEPS = 32
"""Fewer points do not pin down six parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArimaPaths:
    """y = seasonal terms + ARIMA(p, d, q) noise, on scaled values.

    `beta`: intercept (only without differencing), then the cosines and sines of each Fourier pair, the season beginning
    at time 0. `ar`, `ma`: phi and theta in statsmodels' signs. `sigma`: standard deviation of one step's surprise.
    """

    ar: tuple[float, ...]
    d: int
    ma: tuple[float, ...]
    beta: tuple[float, ...]
    sigma: float
    scale: Scale
    season_steps: int
    fourier_pairs: int
    caveat: str = ""
    warnings: tuple[str, ...] = ()

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        n, d = len(past.values), self.d
        regression = self._regression(past.first_step + np.arange(n + steps))
        noise = self.scale.to_model(past.values) - regression[:n]
        w = np.diff(noise, n=d)
        phi, theta = np.array(self.ar), np.array(self.ma)
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
        answer[usable] = self.scale.from_model(ahead)
        return answer

    def spread(self, past: Past, path: Series, level: float) -> Series:  # noqa: ARG002 - the fit knows
        """Gaussian quantile with the variance sigma^2 (psi_0^2 + ... + psi_h-1^2) of the psi weights."""
        impulse = np.zeros(len(path))
        impulse[0] = 1.0
        psi = lfilter(np.concatenate(([1.0], self.ma)), np.concatenate(([1.0], -np.array(self.ar))), impulse)
        for _ in range(self.d):
            psi = np.cumsum(psi)
        sd = self.sigma * np.sqrt(np.cumsum(np.square(psi)))
        return self.scale.from_model(self.scale.to_model(path) + normal_quantile(level) * sd)

    def _regression(self, steps: npt.NDArray[np.int64]) -> Series:
        design = fourier_design(steps, self.season_steps, self.fourier_pairs, self.d == 0)
        return np.asarray(design @ np.array(self.beta)) if design.shape[1] else np.zeros(len(steps))


def fourier_design(steps: npt.NDArray[np.int64], season_steps: float, pairs: int, intercept: bool) -> Paths:
    """Columns of the regression: 1 (with `intercept`), then cos and sin of each harmonic; shape (steps, columns)."""
    angle = 2 * np.pi * steps / season_steps
    columns = [np.ones(len(steps))] if intercept else []
    for harmonic in range(1, pairs + 1):
        columns += [np.cos(harmonic * angle), np.sin(harmonic * angle)]
    return np.stack(columns, axis=1) if columns else np.empty((len(steps), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arima:
    """Estimator: ARIMA(p, d, q), by default the paper's (3, 1, 2), with optional Fourier terms of the season and logs.

    In two steps: seasonal terms by least squares, then the noise. All at once takes ten times as long, often does not
    converge, and forecasts no better. `by`: maximum likelihood (statsmodels), or conditional least squares, which
    takes milliseconds.
    """

    order: tuple[int, int, int] = (3, 1, 2)
    fourier_pairs: int = 0
    logs: bool = False
    by: Literal["likelihood", "conditional"] = "likelihood"
    name: str = "arima"

    def least_steps(self, season_steps: int) -> int:
        # Seasonal terms fitted on part of a season would extrapolate the rest of it.
        return max(_LEAST_STEPS, season_steps if self.fourier_pairs else 0)

    def fit(self, known: Past, season_steps: int) -> ArimaPaths | str:
        """The model, or in words why there is none."""
        scale = Scale.of(known.values, logs=self.logs)
        if scale is None:
            return "the history is constant"
        p, d, q = self.order
        y = scale.to_model(known.values)
        steps = known.first_step + np.arange(len(y))
        design = fourier_design(steps, season_steps, self.fourier_pairs, d == 0)
        # Rounded, since the last digits depend on how the arrays lie in memory.
        beta = np.linalg.lstsq(design, y, rcond=None)[0].round(9)
        noise = y - design @ beta
        if self.by == "likelihood":
            found = likelihood_fit(noise, order=self.order)
        else:
            found = conditional_fit(np.diff(noise, n=d), p=p, q=q)
        if isinstance(found, NoFit):
            return found.why
        return ArimaPaths(
            ar=found.ar,
            d=d,
            ma=found.ma,
            beta=tuple(beta.tolist()),
            sigma=found.sigma,
            scale=scale,
            season_steps=season_steps,
            fourier_pairs=self.fourier_pairs,
            warnings=found.warnings,
        )

"""The parameters of ARMA noise: by conditional least squares, or by maximum likelihood.

Conditional least squares (Box, Jenkins and Reinsel, Time Series Analysis, section 7.1) takes one pass of a filter per
evaluation where the likelihood takes a Kalman filter: a tenth of the time, and forecasts as good. Both begin from the
history that they are given and from no earlier fit, so that the answer is the same whoever asked before.
"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from scipy.signal import lfilter
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.statespace.tools import constrain_stationary_univariate, unconstrain_stationary_univariate

from controller.history import Series

_FLAT = 1e-6
"""Relative change that ends a search: on the ridge of parameters that cancel, all forecast alike."""
_SAME = 1e-6
_DECIMALS = 6
_MOST_EVALUATIONS = 600
_LONG_AR = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmaFit:
    """phi(B) w = theta(B) e in statsmodels' signs; `sigma`: standard deviation of e."""

    ar: tuple[float, ...]
    ma: tuple[float, ...]
    sigma: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """Why there are no parameters, in words."""

    why: str


def conditional_fit(w: Series, *, p: int, q: int) -> ArmaFit | NoFit:
    """ARMA(p, q) of `w`, shape (n,), by least squares of the residuals, values before the first taken as 0.

    The parameters are searched where the process is stationary and invertible (Monahan, Biometrika 71:403, 1984). The
    sum has several minima: the lowest counts that is reached from the regression of Hannan and Rissanen (Biometrika
    69:81, 1982) and from fixed beginnings.
    """
    if len(w) <= 2 * (p + q) + _LONG_AR:
        return NoFit(why=f"{len(w)} values do not determine an ARMA({p}, {q})")
    if p + q == 0:
        return ArmaFit(ar=(), ma=(), sigma=float(np.sqrt(np.mean(np.square(w)))))

    def coefficients(x: Series) -> tuple[Series, Series]:
        return constrain_stationary_univariate(x[:p]), -constrain_stationary_univariate(x[p:])

    def residuals(x: Series) -> Series:
        phi, theta = coefficients(x)
        return np.asarray(lfilter(np.concatenate(([1.0], -phi)), np.concatenate(([1.0], theta)), w)[p:])

    reached = []
    for phi, theta in (_hannan_rissanen(w, p, q), *_fixed_starts(p, q)):
        start = np.concatenate((unconstrain_stationary_univariate(phi), unconstrain_stationary_univariate(-theta)))
        try:
            # Not "lm": MINPACK's last digits depend on how its arrays lie in memory, and the ridge of parameters that
            # cancel makes them the first.
            found = least_squares(residuals, start, method="dogbox", max_nfev=_MOST_EVALUATIONS, ftol=_FLAT, xtol=_FLAT)
        except ValueError as error:
            return NoFit(why=f"the fit failed: {error}")
        if found.status > 0 and np.isfinite(found.x).all() and np.isfinite(found.cost):
            reached.append(found)
    if not reached:
        return NoFit(why=f"the fit did not converge ({_MOST_EVALUATIONS} evaluations from each beginning)")
    lowest = min(float(found.cost) for found in reached)
    # Sums differ in their last digits from one run to the next: of minima as low as one another the first is taken.
    best = next(found for found in reached if found.cost <= lowest * (1 + _SAME))
    phi, theta = coefficients(best.x)
    return _fit(phi, theta, float(np.sqrt(2 * best.cost / (len(w) - p))))


def likelihood_fit(noise: Series, *, order: tuple[int, int, int]) -> ArmaFit | NoFit:
    """ARIMA of `noise`, shape (n,), without constant, by maximum likelihood as statsmodels finds it.

    Where that does not converge from its own beginning it is tried once more from the least-squares fit. What
    statsmodels warns of is carried in the answer.
    """
    p, d, q = order
    found = _likelihood(noise, order, None)
    if isinstance(found, NoFit):
        start = conditional_fit(np.diff(noise, n=d), p=p, q=q)
        if isinstance(start, ArmaFit) and isinstance(again := _likelihood(noise, order, start), ArmaFit):
            return replace(again, warnings=(*again.warnings, f"{found.why}; it did from the least-squares fit"))
    return found


def _likelihood(noise: Series, order: tuple[int, int, int], start: ArmaFit | None) -> ArmaFit | NoFit:
    p, _, q = order
    given = {} if start is None else {"start_params": [*start.ar, *start.ma, start.sigma**2]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = ARIMA(noise, order=order, trend="n").fit(
                **given, method_kwargs={"maxiter": 200, "disp": 0}, low_memory=True, cov_type="none"
            )
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            first_line = (str(error).splitlines() or [""])[0]
            return NoFit(why=f"the fit failed: {type(error).__name__}: {first_line}")
    said = tuple(sorted({str(w.message).splitlines()[0] for w in caught}))
    if not result.mle_retvals.get("converged", True):
        return NoFit(why="the fit did not converge" + (f" ({'; '.join(said)})" if said else ""))
    params = np.asarray(result.params, dtype=float)
    if not np.isfinite(params).all():
        return NoFit(why="the fit gave parameters that are not finite")
    return _fit(params[:p], params[p : p + q], float(np.sqrt(params[-1])), said)


def _fit(phi: Series, theta: Series, sigma: float, said: tuple[str, ...] = ()) -> ArmaFit:
    """Rounded: the last digits of a search depend on how arrays lie in memory, and equal histories are told alike."""
    return ArmaFit(
        ar=tuple(phi.round(_DECIMALS).tolist()),
        ma=tuple(theta.round(_DECIMALS).tolist()),
        sigma=round(sigma, _DECIMALS),
        warnings=said,
    )


def _hannan_rissanen(w: Series, p: int, q: int) -> tuple[Series, Series]:
    """Starting values: surprises of a long autoregression, then a regression on lags of values and surprises."""
    surprises = w[_LONG_AR:] - (long := _lags(w, _LONG_AR)) @ np.linalg.lstsq(long, w[_LONG_AR:], rcond=None)[0]
    most = max(p, q)
    columns = np.hstack([_lags(w[_LONG_AR:], most)[:, :p], _lags(surprises, most)[:, :q]])
    both = np.linalg.lstsq(columns, w[_LONG_AR + most :], rcond=None)[0]
    # Rounded, since the last digits depend on how the arrays lie in memory, and a search would carry them on.
    return _stationary(both[:p].round(_DECIMALS)), -_stationary(-both[p:].round(_DECIMALS))


def _fixed_starts(p: int, q: int) -> list[tuple[Series, Series]]:
    """A slow process under noise: large first terms of opposite sign; of one kind of term alone, nothing known."""
    return [(np.eye(1, p)[0] * 0.9, np.eye(1, q)[0] * -0.6)] if p and q else [(np.zeros(p), np.zeros(q))]


def _lags(values: Series, count: int) -> Series:
    """Column k holds the value k + 1 steps earlier; shape (len(values) - count, count)."""
    return np.lib.stride_tricks.sliding_window_view(values, count)[:-1, ::-1]


def _stationary(phi: npt.NDArray[np.floating[Any]]) -> Series:
    """`phi` drawn towards 0 (phi_k c^k, which moves all roots outwards by 1/c) until the process is stationary."""
    powers = np.arange(1, len(phi) + 1)
    while len(phi) and np.abs(np.roots(np.concatenate(([1.0], -phi)))).max(initial=0.0) > 0.98:
        phi = phi * 0.9**powers
    return np.asarray(phi, dtype=np.float64)

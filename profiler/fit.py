"""From samples of iterations to a step-time model: non-negative least squares on relative residuals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares, nnls

from profiler.profile import Domain, FitQuality, StepSample
from profiler.step_time import StepTimeModel

Array = npt.NDArray[np.float64]

# A relative residual well above this counts by its size and not by its square: a point that something else on the
# machine disturbed must not bend the fit.
OUTLIER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeFit:
    """`request_overhead_s`: what a request costs at the client outside of iterations."""

    step_time: StepTimeModel
    request_overhead_s: float
    quality: FitQuality
    domain: Domain


@dataclass(frozen=True, slots=True)
class _Points:
    """One row per point: medians over its repeats. Composition of one iteration, how many, seconds over all."""

    is_prefill: Array
    prefill_tokens: Array
    prefill_pairs: Array
    decode_seqs: Array
    kv_tokens: Array
    steps: Array
    observed_s: Array

    @property
    def tokens(self) -> Array:
        return self.prefill_tokens + self.decode_seqs


def fit_step_time(samples: Sequence[StepSample]) -> StepTimeFit:
    """Fit the coefficients of `StepTimeModel` to the medians of `samples`.

    For a given number of tokens at which computing overtakes reading the weights, the model is linear in its
    coefficients: non-negative least squares (Lawson and Hanson, 1974) answers exactly. Every such number between two
    points is tried, the best is refined on the model itself, with outliers damped.
    Raises ValueError without at least 4 prefill and 4 decode points.
    """
    points = _medians(samples)
    prefill = points.is_prefill > 0
    if prefill.sum() < 4 or (~prefill).sum() < 4:
        raise ValueError(
            f"{int(prefill.sum())} prefill and {int((~prefill).sum())} decode points; a fit wants 4 of each:"
            " widen the sweep"
        )
    crossovers = np.unique(points.tokens)
    starts = [_linear_fit(points, crossover) for crossover in crossovers]
    start = min(starts, key=lambda x: _cost(x, points))
    # Steps in units of the start itself; a coefficient that starts at 0 may still leave it.
    scale = np.maximum(start, 1e-3 * np.abs(starts).max(axis=0))
    scale[scale == 0] = 1.0
    refined = least_squares(
        lambda x: _relative_residuals(x * scale, points),
        start / scale,
        bounds=(0, np.inf),
        loss="soft_l1",
        f_scale=OUTLIER,
        xtol=1e-12,
        ftol=1e-12,
    )
    best = min(refined.x * scale, start, key=lambda x: _cost(x, points))
    errors = np.abs(_relative_residuals(best, points))
    request_overhead_s, *coefficients = (float(value) for value in best)
    names = ("overhead_s", "weights_s", "per_token_s", "per_sequence_s", "per_kv_token_s", "per_prefill_pair_s")
    return StepTimeFit(
        step_time=StepTimeModel(**dict(zip(names, coefficients, strict=True))),
        request_overhead_s=request_overhead_s,
        quality=FitQuality(
            mape=float(errors.mean()),
            mape_prefill=float(errors[prefill].mean()),
            mape_decode=float(errors[~prefill].mean()),
            max_ape=float(errors.max()),
            n_points=len(errors),
            n_samples=len(samples),
        ),
        domain=Domain(
            prefill_tokens=_range(points.prefill_tokens),
            prefill_pairs=_range(points.prefill_pairs),
            decode_seqs=_range(points.decode_seqs),
            kv_tokens=_range(points.kv_tokens),
        ),
    )


def _medians(samples: Sequence[StepSample]) -> _Points:
    repeats: dict[str, list[StepSample]] = {}
    for sample in samples:
        repeats.setdefault(sample.point, []).append(sample)

    def median(name: str) -> Array:
        return np.array([np.median([getattr(sample, name) for sample in group]) for group in repeats.values()])

    # Repeats of a decode point may differ in steps: the median is of seconds per step.
    step_s = np.array([np.median([s.observed_s / s.steps for s in group]) for group in repeats.values()])
    steps = median("steps")
    return _Points(
        np.array([float(group[0].kind == "prefill") for group in repeats.values()]),
        median("prefill_tokens"),
        median("prefill_pairs"),
        median("decode_seqs"),
        median("kv_tokens"),
        steps,
        step_s * steps,
    )


def _relative_residuals(x: Array, points: _Points) -> Array:
    """(predicted - observed) / observed; x: request overhead, then the coefficients in the order of StepTimeModel."""
    request_s, overhead_s, weights_s, token_s, sequence_s, kv_s, pair_s = x
    step_s = (
        overhead_s
        + np.maximum(weights_s, token_s * points.tokens)
        + sequence_s * points.decode_seqs
        + kv_s * points.kv_tokens
        + pair_s * points.prefill_pairs
    )
    return np.asarray((points.steps * step_s + request_s * points.is_prefill) / points.observed_s - 1.0)


def _cost(x: Array, points: _Points) -> float:
    """The soft L1 loss that scipy minimises: squares for small residuals, absolute values for large ones."""
    scaled = _relative_residuals(x, points) / OUTLIER
    return float(np.sum(np.sqrt(1.0 + scaled * scaled) - 1.0))


def _linear_fit(points: _Points, crossover_tokens: float) -> Array:
    """Coefficients when points of more than `crossover_tokens` compute and the others read weights."""
    computes = points.tokens > crossover_tokens
    columns = np.column_stack(
        [
            points.is_prefill / points.steps,
            np.ones_like(points.steps),
            ~computes,
            computes * points.tokens,
            points.decode_seqs,
            points.kv_tokens,
            points.prefill_pairs,
        ]
    )
    relative = columns * (points.steps / points.observed_s)[:, None]
    widths = np.linalg.norm(relative, axis=0)
    widths[widths == 0] = 1.0
    solution, _ = nnls(relative / widths, np.ones(len(points.steps)))
    return np.asarray(solution / widths)


def _range(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())

"""From samples of iterations to a step-time model: non-negative least squares on relative residuals.

For given starts of its slopes the model is linear in its coefficients, so non-negative least squares (Lawson and
Hanson, Solving Least Squares Problems, 1974) answers exactly; convex and monotone come with the signs. Slopes are
offered at starts all over the measured range; those that the samples want get a weight, and neighbours that together
stand for one bend between them are merged into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from profiler.fit_quality import errors_of, fit_quality
from profiler.point_medians import Array, PointMedians, point_medians
from profiler.profile_parts import Domain, Errors, FitQuality, StepSample
from profiler.step_time import StepTimeModel, prefill_pairs

# A relative residual well above this counts by its size and not by its square: a point that something else on the
# machine disturbed must not bend the fit.
OUTLIER = 0.1
# A point counts less by its own noise, as in weighted least squares, but not below this: models err too.
MODEL_ERROR = 0.02
FEWEST_POINTS = 4
_REWEIGHTINGS = 12
# A merge of two slopes saves a coefficient; it may cost this much of the fit.
_MERGE_COST = 1.02
# Starts of slopes are tried this many to a doubling of tokens.
_STARTS_PER_OCTAVE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeFit:
    """`request_overhead_s`: what a request costs at the client outside of iterations."""

    step_time: StepTimeModel
    request_overhead_s: float
    quality: FitQuality
    domain: Domain
    leave_one_out: dict[str, float]
    """Relative error (signed) at each point by a fit to all others."""


@dataclass(frozen=True, slots=True)
class _Solution:
    """Coefficients of the columns that `_columns` makes for `starts`; `weights` (0..1) damp the rows of outliers."""

    starts: Array
    coefficients: Array
    weights: Array
    cost: float


def fit_step_time(samples: Sequence[StepSample]) -> StepTimeFit:
    """Fit `StepTimeModel` to the medians of those `samples` that are not held out; the others judge it.

    Raises ValueError without at least 4 points of each of prefill (mixed ones count) and decode.
    """
    points = point_medians([sample for sample in samples if not sample.held_out])
    decode = int((points.kinds == "decode").sum())
    if decode < FEWEST_POINTS or len(points) - decode < FEWEST_POINTS:
        raise ValueError(
            f"{len(points) - decode} prefill and {decode} decode points; a fit wants {FEWEST_POINTS} of each:"
            " widen the sweep, or give it more time"
        )
    best = _merged(_solve(points, _possible_starts(points.tokens)), points)
    step_time, request_overhead_s = _model(best, points)
    held_out = point_medians([sample for sample in samples if sample.held_out])
    left_out = _leave_one_out(best, points)
    tokens = points.prefill_tokens
    return StepTimeFit(
        step_time=step_time,
        request_overhead_s=request_overhead_s,
        quality=fit_quality(
            points,
            points.predicted_s(step_time, request_overhead_s),
            left_out,
            held_out=prediction_errors(held_out, step_time, request_overhead_s),
            n_samples=len(samples),
        ),
        domain=Domain(
            prefill_tokens=_range(tokens),
            # All iterations of a sample are alike but for their pairs, which grow from chunk to chunk.
            prefill_pairs=_range(np.array(list(map(prefill_pairs, tokens, (points.steps - 1) * tokens)))),
            decode_seqs=_range(points.decode_seqs),
            kv_tokens=_range(points.kv_tokens),
        ),
        leave_one_out=dict(zip(points.names.tolist(), left_out.tolist(), strict=True)),
    )


def prediction_errors(points: PointMedians, step_time: StepTimeModel, request_overhead_s: float) -> Errors | None:
    """Errors of a model at `points`; None without any."""
    if not len(points):
        return None
    return errors_of(points.predicted_s(step_time, request_overhead_s) / points.observed_s - 1.0)


def _possible_starts(tokens: Array) -> Array:
    """Token counts at which a slope may begin: 0, and a geometric row up to half of the most measured.

    Beyond that a slope would hang on the last points alone, and reach past them.
    """
    most = tokens.max() / 2
    octaves = max(0, int(np.log2(most / 4) * _STARTS_PER_OCTAVE)) if most > 4 else 0
    return np.array([0.0, *(4 * 2 ** (i / _STARTS_PER_OCTAVE) for i in range(octaves + 1))])


def _columns(points: PointMedians, starts: Array) -> Array:
    """What each coefficient multiplies in the seconds of one iteration: (points, 6 + starts)."""
    # Without mixed samples the overhead of a prompt cannot be told from that of its request.
    mixed = float((points.kinds == "mixed").any())
    return np.column_stack(
        [
            points.timed_at_client / points.steps,
            np.ones(len(points)),
            mixed * (points.prefill_tokens > 0),
            points.decode_seqs,
            points.kv_tokens,
            points.prefill_pairs,
            np.maximum(0.0, points.tokens[:, None] - starts[None, :]),
        ]
    )


def _solve(points: PointMedians, starts: Array, weights: Array | None = None) -> _Solution:
    """Coefficients of least soft L1 loss of the relative residuals, by reweighted non-negative least squares."""
    relative = _columns(points, starts) * (points.steps / points.observed_s)[:, None]
    widths = np.linalg.norm(relative, axis=0)
    widths[widths == 0] = 1.0
    relative /= widths
    weights = np.ones(len(points)) if weights is None else weights
    certainty = 1.0 / (1.0 + (np.nan_to_num(points.noise) / MODEL_ERROR) ** 2)
    for _ in range(_REWEIGHTINGS):
        root = np.sqrt(weights * certainty)
        scaled, _ = nnls(relative * root[:, None], root, maxiter=50 * relative.shape[1])
        before, weights = weights, 1.0 / np.sqrt(1.0 + ((relative @ scaled - 1.0) / OUTLIER) ** 2)
        if np.abs(weights - before).max() < 1e-6:
            break
    loss = np.sqrt(1.0 + ((relative @ scaled - 1.0) / OUTLIER) ** 2) - 1.0
    return _Solution(starts, scaled / widths, weights, float((certainty * loss).sum()))


def _merged(solution: _Solution, points: PointMedians) -> _Solution:
    """Fewer slopes for hardly more loss.

    Two slopes a at s and b at t make beyond t the line that one slope a + b makes from (a s + b t) / (a + b) on: the
    bend of a roofline that lies between two starts. Slopes without a weight go.
    """
    floor = 1e-12 * len(points)
    slopes = solution.coefficients[-len(solution.starts) :]
    kept = solution.starts[slopes > 0]
    best = _solve(points, kept)
    merged = True
    while merged and len(best.starts) > 1:
        slopes = best.coefficients[-len(best.starts) :]
        merged = False
        candidates = []
        for i in range(len(slopes) - 1):
            total = slopes[i] + slopes[i + 1]
            if total > 0:
                middle = (slopes[i] * best.starts[i] + slopes[i + 1] * best.starts[i + 1]) / total
                starts = np.concatenate([best.starts[:i], [middle], best.starts[i + 2 :]])
            else:
                starts = np.delete(best.starts, i)
            candidates.append(_solve(points, np.unique(starts)))
        cheapest = min(candidates, key=lambda candidate: candidate.cost)
        if cheapest.cost <= _MERGE_COST * best.cost + floor:
            best, merged = cheapest, True
    return best


def _model(solution: _Solution, points: PointMedians) -> tuple[StepTimeModel, float]:
    request_s, overhead_s, prefill_s, sequence_s, kv_s, pair_s, *slopes = (float(x) for x in solution.coefficients)
    bends = [(float(start), slope) for start, slope in zip(solution.starts, slopes, strict=True) if slope > 0]
    mixed = bool((points.kinds == "mixed").any())
    return StepTimeModel(
        overhead_s=overhead_s,
        slopes=tuple(bends),
        per_sequence_s=sequence_s,
        per_kv_token_s=kv_s,
        per_prefill_pair_s=pair_s,
        prefill_overhead_s=prefill_s if mixed else 0.0,
    ), request_s


def _leave_one_out(solution: _Solution, points: PointMedians) -> Array:
    """Signed relative error at each point by a fit to the others, with the slopes' starts of the whole fit."""
    errors = np.zeros(len(points))
    everything: npt.NDArray[np.bool_] = np.ones(len(points), dtype=bool)
    for row in range(len(points)):
        kept = everything.copy()
        kept[row] = False
        others, left_out = points.take(kept), points.take(~kept)
        step_time, request_s = _model(_solve(others, solution.starts, solution.weights[kept]), others)
        errors[row] = (left_out.predicted_s(step_time, request_s) / left_out.observed_s)[0] - 1.0
    return errors


def _range(values: Array) -> tuple[float, float]:
    return float(values.min()), float(values.max())

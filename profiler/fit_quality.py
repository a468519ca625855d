"""How well a model predicts: errors over points, as a whole and by part of the domain."""

import numpy as np
import numpy.typing as npt

from profiler.point_medians import Array, PointMedians
from profiler.profile_parts import Errors, FitQuality


def errors_of(relative: Array) -> Errors:
    """Mean, median and largest of the absolute values of signed relative errors; one at least."""
    absolute = np.abs(relative)
    return Errors(
        mape=float(absolute.mean()),
        median_ape=float(np.median(absolute)),
        max_ape=float(absolute.max()),
        n=len(absolute),
    )


def fit_quality(
    points: PointMedians, predicted_s: Array, leave_one_out: Array, *, held_out: Errors | None, n_samples: int
) -> FitQuality:
    """Quality of a fit that says `predicted_s` at the `points` it was made from."""
    relative = predicted_s / points.observed_s - 1.0
    repeated = ~np.isnan(points.noise)
    return FitQuality(
        residuals=errors_of(relative),
        leave_one_out=errors_of(leave_one_out),
        held_out=held_out,
        regions={name: errors_of(relative[rows]) for name, rows in _regions(points).items()},
        noise=float(points.noise[repeated].mean()) if repeated.any() else None,
        n_samples=n_samples,
    )


def _regions(points: PointMedians) -> dict[str, npt.NDArray[np.bool_]]:
    """Rows of the lower and the upper half of each kind: by tokens of a prompt, by sequences of a decode."""
    found = {}
    for kind in ("prefill", "mixed", "decode"):
        of_kind = points.kinds == kind
        if not of_kind.any():
            continue
        size = points.decode_seqs if kind == "decode" else points.prefill_tokens * points.steps
        unit = "sequences" if kind == "decode" else "prompt tokens"
        middle = float(np.median(size[of_kind]))
        for rows in (of_kind & (size <= middle), of_kind & (size > middle)):
            if rows.any():
                found[f"{kind}, {size[rows].min():.0f}-{size[rows].max():.0f} {unit}"] = rows
    return found

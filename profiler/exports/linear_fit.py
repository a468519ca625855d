"""Coefficients for consumers whose model of time is a sum of a few terms."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from profiler.fit_quality import errors_of
from profiler.profile_parts import Errors


def fit_linear(columns: Sequence[Sequence[float]], values: Sequence[float]) -> tuple[list[float], Errors]:
    """Non-negative coefficients of `columns` (one sequence per term) of least relative squares, and their errors.

    `values` must be positive. The relative error is that of the sum at each value.
    """
    observed = np.asarray(values, dtype=np.float64)
    relative = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns]) / observed[:, None]
    widths = np.linalg.norm(relative, axis=0)
    widths[widths == 0] = 1.0
    scaled, _ = nnls(relative / widths, np.ones(len(observed)))
    coefficients = scaled / widths
    return [float(value) for value in coefficients], errors_of(relative @ coefficients - 1.0)


def in_words(errors: Errors) -> str:
    """For a note: how far off the coefficients are on their grid."""
    return f"mean error {errors.mape:.1%}, largest {errors.max_ape:.1%} on {errors.n} points"

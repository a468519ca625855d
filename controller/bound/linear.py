"""Linear programs, solved by HiGHS on one thread: the same program gives the same answer."""

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import scipy.sparse as sp

from controller.bound.need import Values


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProgram:
    """min cost x with lower <= x <= upper and row_lower <= rows x <= row_upper; `rows` is sparse (rows, columns)."""

    cost: Values
    lower: Values
    upper: Values
    rows: Any
    row_lower: Values
    row_upper: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAnswer:
    """`termination` is HiGHS' model status in words. The rest is meaningful for "Optimal" alone.

    `x` has shape (columns,), `price` (rows,): what the objective gains per unit that the row's bound rises.
    """

    termination: str
    objective: float
    x: Values
    price: Values

    @property
    def optimal(self) -> bool:
        return self.termination == "Optimal"


def solve(program: LinearProgram, *, time_limit_s: float) -> LinearAnswer:
    """Solve it, or say in `termination` why not."""
    model, rows = highspy.HighsLp(), sp.csc_array(program.rows)
    model.num_row_, model.num_col_ = rows.shape
    model.col_cost_, model.col_lower_, model.col_upper_ = program.cost, program.lower, program.upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = rows.indptr
    model.a_matrix_.index_ = rows.indices
    model.a_matrix_.value_ = rows.data
    highs: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("time_limit", time_limit_s)
    highs.passModel(model)
    highs.run()
    solution = highs.getSolution()
    return LinearAnswer(
        termination=str(highs.modelStatusToString(highs.getModelStatus())),
        objective=float(highs.getInfo().objective_function_value),
        x=np.asarray(solution.col_value, dtype=np.float64),
        price=np.asarray(solution.row_dual, dtype=np.float64),
    )

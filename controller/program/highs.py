"""HiGHS through PuLP, with what PuLP leaves out: a plan to start from, and what the solver proved."""

from dataclasses import dataclass

import highspy
import numpy as np
import pulp


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a solve ended. `objective` of the solution found, None without one; `bound`: no solution costs less, None
    where the solver proved nothing. `termination`: PuLP's `sol_status` in words (its `status` says optimal at a time
    limit too). `finished`: not cut off by the time limit.
    """

    objective: float | None
    bound: float | None
    termination: str
    finished: bool
    infeasible: bool
    variables: int
    constraints: int


class StartedHiGHS(pulp.HiGHS):  # type: ignore[misc]
    """PuLP's HiGHS, started from the values that the variables hold, so that it can only do better; and handed the
    model in one piece, which is three times faster for thousands of columns.
    """

    def buildSolverModel(self, lp: pulp.LpProblem) -> None:
        variables, constraints = lp.variables(), list(lp._constraints.values())
        for index, part in enumerate(variables):
            part.index = index
        for index, part in enumerate(constraints):
            part.index = index
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = len(variables), len(constraints)
        model.col_cost_ = np.array([lp.objective.get(variable, 0.0) for variable in variables])
        model.col_lower_ = np.array([_or(variable.lowBound, -highspy.kHighsInf) for variable in variables])
        model.col_upper_ = np.array([_or(variable.upBound, highspy.kHighsInf) for variable in variables])
        if any(variable.cat == pulp.LpInteger for variable in variables):
            whole, any_number = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
            model.integrality_ = [whole if variable.cat == pulp.LpInteger else any_number for variable in variables]
        model.row_lower_ = np.array([_or(row.getLb(), -highspy.kHighsInf) for row in constraints])
        model.row_upper_ = np.array([_or(row.getUb(), highspy.kHighsInf) for row in constraints])
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.cumsum([0, *(len(row.expr) for row in constraints)], dtype=np.int32)
        model.a_matrix_.index_ = np.array([v.index for row in constraints for v in row.expr], dtype=np.int32)
        model.a_matrix_.value_ = np.array([c for row in constraints for c in row.expr.values()], dtype=np.float64)
        lp.solverModel.passModel(model)
        values = [variable.varValue for variable in variables]
        if any(value is not None for value in values):
            given = np.array([i for i, value in enumerate(values) if value is not None], dtype=np.int32)
            start = np.array([value for value in values if value is not None], dtype=np.float64)
            lp.solverModel.setSolution(len(given), given, start)

    def findSolutionValues(self, lp: pulp.LpProblem) -> tuple[int, int]:
        try:
            status, solution_status = super().findSolutionValues(lp)
        except KeyError:  # of the limits PuLP does not know that of nodes; the values it has taken by then
            found = np.isfinite(lp.solverModel.getObjectiveValue())
            return pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible if found else pulp.LpSolutionNoSolutionFound
        return int(status), int(solution_status)

    def actualSolve(self, lp: pulp.LpProblem) -> int:
        self.createAndConfigureSolver(lp)
        self.buildSolverModel(lp)
        self.callSolver(lp)
        status, solution_status = self.findSolutionValues(lp)
        lp.assignStatus(status, solution_status)
        return int(status)


class Stopwatch:
    """Wall-clock seconds since it was made, by PuLP's clock. Decisions are told the time; what may be measured here is
    a solver's use of it.
    """

    def __init__(self) -> None:
        self._clock = pulp.LpProblem("clock")
        self._passed_s = 0.0
        self._clock.startClock()

    def seconds(self) -> float:
        self._clock.stopClock()
        self._passed_s += float(self._clock.solutionTime)
        self._clock.startClock()
        return self._passed_s


def run(
    lp: pulp.LpProblem,
    *,
    whole: bool,
    gap: float = 0.0,
    gap_abs: float | None = None,
    time_limit_s: float | None = None,
    most_nodes: int | None = None,
) -> Ending:
    """Solve in place; `whole`: it has integer variables. It ends within either gap, relative or in the unit of the
    objective, or after so many nodes. One thread and a fixed seed: the same program gives the same answer, unless time
    runs out.
    """
    options = {"threads": 1, "gapRel": gap, "gapAbs": gap_abs, "timeLimit": time_limit_s, "random_seed": 0}
    if most_nodes is not None:
        options["mip_max_nodes"] = most_nodes
    lp.solve(StartedHiGHS(msg=False, **options))
    info, finished = lp.solverModel.getInfo(), lp.sol_status == pulp.LpSolutionOptimal
    found = finished or lp.sol_status == pulp.LpSolutionIntegerFeasible
    bound = float(info.mip_dual_bound) if whole else float(info.objective_function_value) if finished else np.inf
    return Ending(
        objective=float(info.objective_function_value) if found else None,
        bound=bound if abs(bound) < 1e20 else None,
        termination=str(pulp.LpSolution[lp.sol_status]),
        finished=finished,
        infeasible=lp.sol_status == pulp.LpSolutionInfeasible,
        variables=int(lp.solverModel.getNumCol()),
        constraints=int(lp.solverModel.getNumRow()),
    )


def relative_gap(cost: float, bound: float) -> float:
    """Relative to the cost: 0 where nothing costs anything, and where rounding puts the bound above the cost."""
    return max(0.0, cost - bound) / cost if cost > 0 else 0.0


def _or(bound: float | None, otherwise: float) -> float:
    return otherwise if bound is None else bound

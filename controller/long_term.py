"""The long-term half of LT-I, LT-U and LT-UA: once a period, forecast, solve, and remember the answer as a budget."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.forecasts.forecast import Forecaster
from controller.parameters import LongTermParameters
from controller.program.demand import demand_of_period, forecasts
from controller.program.ilp import ScalingProblem, solve
from controller.thresholds import in_demand
from controller.types import Memory, Observation, Placement, SolveReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The counts to reach, in `memory.budget`; `solve` when chosen just now; `source` names them in reasons."""

    memory: Memory
    solve: SolveReport | None
    source: str


def budget_for(seen: Observation, parameters: LongTermParameters, forecaster: Forecaster) -> Budget:
    """The standing budget while it lasts, else a new one from forecast and program.

    Periods begin at multiples of `period_s`. Before the first whole step of history nothing is forecast: the counts
    that stand are the budget until there is one.
    """
    memory = previous_memory(seen)
    # As in next_multiple: a decision a little early for the period's end already belongs to the next one.
    now_s = seen.at_s + 0.01 * parameters.interval_s
    if memory.budget and now_s < memory.budget_until_s:
        return Budget(memory=memory, solve=None, source="of the last program")
    if not _has_history(seen, parameters.forecast.step_s):
        standing = MappingProxyType(PlanDraft(seen).counts)
        until_s = next_multiple(seen.at_s, parameters.forecast.step_s)
        held = replace(memory, budget=standing, budget_until_s=until_s)
        return Budget(memory=held, solve=None, source="standing, no history yet")
    from_s = float(now_s // parameters.period_s) * parameters.period_s
    until_s = from_s + parameters.period_s
    given = forecasts(
        seen.demand,
        forecaster,
        step_s=parameters.forecast.step_s,
        from_s=from_s,
        until_s=until_s,
        upper_quantile=parameters.forecast.upper_quantile,
        peak_step_s=parameters.forecast.peak_step_s,
        processes=parameters.forecast.processes,
        trust_after_s=parameters.forecast.trust_after_s,
    )
    demand = demand_of_period(
        seen.demand,
        given,
        peak_of_upper=parameters.forecast.peak_quantile is not None,
        niw_share=parameters.niw_share,
        niw_window_s=parameters.niw_window_s,
    )
    solution = solve(
        ScalingProblem(
            limits=seen.limits,
            standing={p: state.active for p, state in seen.placements.items()},
            demand=demand,
            epsilon=parameters.epsilon,
            period_s=parameters.period_s,
        ),
        parameters.solver.settings(),
    )
    chosen = replace(
        memory,
        budget=MappingProxyType(dict(solution.counts)),
        budget_until_s=until_s,
        forecasts=MappingProxyType(given),
    )
    return Budget(memory=chosen, solve=solution.report, source=f"of the program for {from_s:g} s to {until_s:g} s")


def one_where_asked(draft: PlanDraft, budget: Mapping[Placement, int]) -> dict[Placement, int]:
    """The budget, with one server for each silo that it leaves without although it is in demand: one that stands where
    there is one, else on the GPU type cheapest for the work.
    """
    wanted = dict(budget)
    for silo, placements in draft.silos.items():
        if not any(wanted.get(p, 0) for p in placements) and in_demand(draft, silo):
            wanted[max(placements, key=lambda p: min(1, draft.counts[p]))] = 1
    return wanted


def next_decision_s(seen: Observation, interval_s: float, budget_until_s: float) -> float:
    """The next multiple of the interval, or the end of the budget where that comes first."""
    then_s = next_multiple(seen.at_s, interval_s)
    return min(then_s, budget_until_s) if budget_until_s > seen.at_s + 0.01 * interval_s else then_s


def _has_history(seen: Observation, step_s: float) -> bool:
    return any(len(seen.demand.resampled(key, step_s)) > 0 for key in seen.demand.interactive)

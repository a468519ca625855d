"""The bound of perfect foresight of a scenario: its trace, fleet and start state, with theta before any margin."""

from collections.abc import Mapping
from dataclasses import replace

from controller.bound.foresight import least_gpu_hours
from controller.bound.problem import ForesightProblem
from controller.bound.whole_demand import whole_demand
from controller.types import FleetLimits, Placement
from results.bound import BoundRecord, bound_record
from testbed.scenario import Scenario, ScenarioError
from workloads.trace import Trace

DEFAULT_BUDGET = 0.01


def gpu_hours_bound(
    scenario: Scenario,
    limits: FleetLimits,
    trace: Trace,
    *,
    violated_share: float = DEFAULT_BUDGET,
    epsilon: float = 0.0,
    niw: bool = True,
    step_s: float | None = None,
) -> BoundRecord:
    """The least GPU-hours of `scenario` on `trace`, where `limits` are what its policies plan with.

    Policies plan with a share `capacity.utilisation` of theta; the bound takes the whole of it. By default no
    request need be served in its region: the router may send any of them anywhere. `step_s` is `demand_bin_s` of the
    scenario where it is left out. Raises ScenarioError for a trace without requests, or a fleet beyond what the bound
    counts.
    """
    if not len(trace):
        raise ScenarioError(f"{scenario.name}: no request in its workload, so no bound; raise its rate")
    problem = ForesightProblem(
        demand=whole_demand(trace, step_s=step_s or scenario.demand_bin_s, niw=niw),
        limits=without_margin(limits, scenario.capacity.utilisation),
        violated_share=violated_share,
        epsilon=epsilon,
        initial=start_state(scenario),
    )
    try:
        found = least_gpu_hours(problem)
    except ValueError as error:
        raise ScenarioError(str(error)) from error
    planned = {key: capacity.theta_tokens_per_s for key, capacity in limits.capacity.items()}
    return bound_record(problem, found, planned, niw=niw)


def without_margin(limits: FleetLimits, utilisation: float) -> FleetLimits:
    """`limits` with theta as a server sustains it, of which policies plan with `utilisation`."""
    return replace(
        limits,
        capacity={
            key: replace(capacity, theta_tokens_per_s=capacity.theta_tokens_per_s / utilisation)
            for key, capacity in limits.capacity.items()
        },
    )


def start_state(scenario: Scenario) -> Mapping[Placement, int]:
    """Servers READY at time 0, by placement."""
    return {Placement(*key): count for key, count in scenario.initial_counts().items()}

"""One run of a fluid study: a policy on tokens/s per bin, without requests; seconds instead of minutes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from controller.bound.foresight import least_gpu_hours
from controller.bound.problem import ForesightProblem, WholeDemand
from controller.catalogue import make_policy
from controller.fluid.load import FluidLoad
from controller.fluid.study import run_fluid
from controller.history import Series
from controller.policies.oracle import TrueFuture
from controller.types import FleetLimits, Pool
from results.provenance import checkout_commit
from results.study_record import RunBound, StudyRun
from testbed.capacities import ModelCapacity, capacities, fleet_limits, load_profiles
from testbed.offered_load import LengthMix
from testbed.run_bound import start_state
from testbed.scenario import Scenario
from testbed.study_fluid_trace import SUFFIX, RateTrace
from testbed.study_load import load_of, trace_path
from testbed.study_runs import PlannedRun
from workloads.demand import demand_series

_BOUNDS: dict[str, RunBound] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidSetting:
    """What all policies of a fluid workload share."""

    load: FluidLoad
    limits: FleetLimits
    drain_s: float


def do_fluid(planned: PlannedRun, study_folder: Path, missed: float) -> StudyRun:
    """Run it and record it in its folder. `missed` of the run is the mean share over models of violated bins.

    Raises ScenarioError for a scenario that cannot be run.
    """
    folder = study_folder / planned.folder
    scenario = Scenario.model_validate(yaml.safe_load(planned.text))
    setting = fluid_setting(scenario, folder)
    policy = make_policy(
        planned.catalogue_name,
        scenario.policies[planned.catalogue_name],
        future=TrueFuture(bin_s=setting.load.bin_s, interactive=setting.load.interactive),
    )
    found = run_fluid(policy, setting.load, setting.limits, start_state(scenario), drain_s=setting.drain_s)
    prices = {capacity.usd_per_gpu_h for capacity in setting.limits.capacity.values()}
    run = StudyRun(
        **planned.identity(checkout_commit()),
        requests=0,
        missed=found.violated_share,
        gpu_hours=found.gpu_h,
        wasted_gpu_hours=found.wasted_gpu_h,
        sleeping_server_hours=found.sleeping_server_h,
        usd=found.gpu_h * prices.pop() if len(prices) == 1 else None,
        starts=found.starts,
        stops=found.stops,
        slo_met={},
        ttft_p95_s={},
        bound=_bound(scenario, setting, planned, missed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenario.yaml").write_text(planned.text, encoding="utf-8")
    run.write(folder)
    return run


def fluid_setting(scenario: Scenario, folder: Path) -> FluidSetting:
    """The load, limits and drain time of a scenario that lies, or will, in `folder`.

    A server drains for as long as a request takes at theta.
    """
    load, mix = _load(scenario, folder)
    found = capacities(scenario, load_profiles(scenario), mix)
    return FluidSetting(load=load, limits=fleet_limits(scenario, found), drain_s=_service_s(found))


def _load(scenario: Scenario, folder: Path) -> tuple[FluidLoad, Mapping[str, LengthMix]]:
    trace = scenario.workload.trace
    if trace is not None and trace.suffix == SUFFIX:
        rates = RateTrace.read(trace_path(folder, trace))
        before = round(scenario.workload.history_h * 3600.0 / rates.bin_s)
        return (
            FluidLoad(
                bin_s=rates.bin_s,
                interactive={pool: series[before:] for pool, series in rates.interactive.items()},
                niw={pool: series[before:] for pool, series in rates.niw.items()},
                interactive_before={pool: series[:before] for pool, series in rates.interactive.items()},
                niw_before={pool: series[:before] for pool, series in rates.niw.items()},
            ),
            rates.mix,
        )
    offered, bin_s = load_of(scenario, folder), scenario.demand_bin_s
    bins = int(offered.trace.horizon_s / bin_s)
    keys = [(model, region) for model in scenario.models for region in scenario.regions]
    series = demand_series(offered.trace, bin_s, 0.0, bins * bin_s, pools=keys)

    def by_pool(given: Mapping[tuple[str, str], Series]) -> dict[Pool, Series]:
        return {Pool(*key): np.asarray(values) for key, values in given.items()}

    return (
        FluidLoad(
            bin_s=bin_s,
            interactive=by_pool(series.interactive),
            niw=by_pool(series.niw),
            interactive_before=by_pool(offered.interactive_before),
            niw_before=by_pool(offered.niw_before),
        ),
        offered.mix,
    )


def _service_s(found: Mapping[tuple[str, str], ModelCapacity]) -> float:
    # Little's law: requests in flight over requests per second.
    times_s = [each.theta.concurrency / each.theta.requests_per_s for each in found.values()]
    return sum(times_s) / len(times_s)


def _bound(scenario: Scenario, setting: FluidSetting, planned: PlannedRun, missed: float) -> RunBound:
    """Of each workload and seed once per process. NIW is left out: it lives in the valleys of what is asked at once."""
    key = f"{planned.workload} {planned.seed} {missed}"
    if key not in _BOUNDS:
        problem = ForesightProblem(
            demand=WholeDemand(step_s=setting.load.bin_s, interactive=setting.load.interactive, waiting={}),
            limits=setting.limits,
            violated_share=missed,
            epsilon=0.0,
            initial=start_state(scenario),
        )
        bound = least_gpu_hours(problem)
        _BOUNDS[key] = RunBound(
            missed=missed, lower_gpu_hours=bound.lower_gpu_hours, plan_gpu_hours=bound.plan_gpu_hours
        )
    return _BOUNDS[key]

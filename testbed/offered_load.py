"""A scenario's workload: what will be asked, and what was seen before it began."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from controller.history import Key, Series
from controller.policies.oracle import TrueFuture
from controller.types import Pool
from testbed.bundled_yaml import is_there
from testbed.scenario import Scenario, ScenarioError
from testbed.strict import nearest
from workloads.demand import demand_series
from workloads.request import Tier
from workloads.synthesis import synthesise
from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.transforms import split_history


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthMix:
    """Means and coefficients of variation of one model's prompt and output tokens, and the tiers it is asked in."""

    prompt_mean: float
    prompt_cv: float
    output_mean: float
    output_cv: float
    tiers: frozenset[Tier]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedLoad:
    """The trace to replay, and tokens/s per bin before time 0 by (model, region of origin); `output_before`: the output
    tokens of the interactive ones."""

    trace: Trace
    mix: Mapping[str, LengthMix]
    interactive_before: Mapping[Key, Series] = field(default_factory=lambda: MappingProxyType({}))
    output_before: Mapping[Key, Series] = field(default_factory=lambda: MappingProxyType({}))
    niw_before: Mapping[Key, Series] = field(default_factory=lambda: MappingProxyType({}))


def offered_load(scenario: Scenario, scenario_path: Path) -> OfferedLoad:
    """The same scenario and seed give the same load. Raises ScenarioError for a trace that does not fit."""
    if scenario.workload.trace is not None:
        return load_from_file(scenario, scenario_path.parent / scenario.workload.trace)
    workload = scenario.workload.synthetic
    assert workload is not None, "a workload is synthetic or a trace"
    trace = synthesise(workload, scenario.seed)
    _check_bins(scenario, workload.seconds(scenario.workload.history_h))
    if scenario.workload.history_h == 0:
        return OfferedLoad(trace=trace, mix=length_mixes(trace))
    return _after(synthesise(workload, scenario.seed, from_h=-scenario.workload.history_h, to_h=0.0), trace, scenario)


def true_future(load: OfferedLoad, scenario: Scenario) -> TrueFuture:
    """What the oracle is told: the demand of the whole run, all tokens of a request at its arrival."""
    bin_s = scenario.demand_bin_s
    keys = [(model, region) for model in scenario.models for region in scenario.regions]
    bins = int(load.trace.horizon_s / bin_s + 1e-9)
    series = demand_series(load.trace, bin_s, 0.0, bins * bin_s, pools=keys)
    return TrueFuture(bin_s=bin_s, interactive={Pool(*key): values for key, values in series.interactive.items()})


def _after(history: Trace, trace: Trace, scenario: Scenario) -> OfferedLoad:
    """The load of `trace`, before which `history` was seen."""
    keys = [(model, region) for model in scenario.models for region in scenario.regions]
    before = demand_series(history, scenario.demand_bin_s, 0.0, history.horizon_s, pools=keys)
    # The mix comes from the past where there is one: what a controller could have known.
    return OfferedLoad(
        trace=trace,
        interactive_before=before.interactive,
        output_before=before.interactive_output,
        niw_before=before.niw,
        mix={**length_mixes(trace), **length_mixes(history)},
    )


def _check_bins(scenario: Scenario, history_s: float) -> None:
    if abs(history_s / scenario.demand_bin_s - round(history_s / scenario.demand_bin_s)) > 1e-6:
        raise ScenarioError(
            f"workload.history_h covers {history_s:g} s, which is no multiple of demand_bin_s {scenario.demand_bin_s:g}"
        )


def load_from_file(scenario: Scenario, path: Path) -> OfferedLoad:
    """The load of a scenario whose trace lies at `path`. Raises ScenarioError for one that does not fit."""
    if not is_there(path):
        raise ScenarioError(f"workload.trace: no file {path}; make one with `testbed trace make`")
    try:
        trace = Trace.read(path)
    except TraceError as error:
        raise ScenarioError(f"workload.trace: {error}") from error
    for column, known in (("model", scenario.models), ("region", scenario.regions)):
        for name in trace.labels(column).names:
            if name not in known:
                raise ScenarioError(f"workload.trace {path.name}: no {column} {name!r} here{nearest(name, known)}")
    history_s = 3600.0 * scenario.workload.history_h
    if not history_s:
        return OfferedLoad(trace=trace, mix=length_mixes(trace))
    if history_s >= trace.horizon_s:
        raise ScenarioError(
            f"workload.history_h {scenario.workload.history_h:g} leaves nothing to run of {path.name}, which covers "
            f"{trace.horizon_s / 3600:g} h; take fewer hours"
        )
    _check_bins(scenario, history_s)
    history, run = split_history(trace, history_s)
    if not len(history) or not len(run):
        raise ScenarioError(f"workload.trace {path.name}: no request before or after its first {history_s / 3600:g} h")
    return _after(history, run, scenario)


def length_mixes(trace: Trace) -> dict[str, LengthMix]:
    """The mix of every model of a trace."""
    models, tiers = trace.labels("model"), trace.labels("tier")
    prompt, output = trace.numbers("prompt_tokens"), trace.numbers("output_tokens")
    mixes = {}
    for name in models.names:
        rows = models.rows(name)
        mixes[name] = LengthMix(
            prompt_mean=float(np.mean(prompt[rows])),
            prompt_cv=float(np.std(prompt[rows]) / np.mean(prompt[rows])),
            output_mean=float(np.mean(output[rows])),
            output_cv=float(np.std(output[rows]) / np.mean(output[rows])),
            tiers=frozenset(Tier(tiers.names[code]) for code in np.unique(tiers.codes[rows])),
        )
    return mixes

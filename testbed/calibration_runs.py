"""The real runs of a calibration: a scenario at given loads, several times, each a run folder."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape

from testbed.bad_input import BadInput
from testbed.capacities import ModelCapacity, capacities, load_profiles, strictest_slo
from testbed.offered_load import LengthMix, OfferedLoad, offered_load
from testbed.progress import show_progress
from testbed.run import prepare, run_experiment
from testbed.scenario import Mode, Scenario
from testbed.scenario_file import load_scenario
from workloads.slo import Slo

# Lengths within so much of one another are the same mix: those that were measured were drawn.
_SAME_MIX = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRuns:
    """What to run: the scenario with its overrides in `mode`, at each of `loads` (shares of what the initial servers
    sustain; empty: as it is), `repeats` times, one load after the other. `policies` empty: all."""

    scenario: str
    overrides: tuple[str, ...]
    mode: Mode
    loads: tuple[float, ...]
    repeats: int
    policies: tuple[str, ...]

    def run(self, out: Path, console: Console) -> list[Path]:
        """Run folders below `out`. Raises RunFailed; an interruption is raised as KeyboardInterrupt."""
        # Every scenario is checked before the first server starts.
        scenarios = [load_scenario(self.scenario, given) for given in self._overrides()]
        prepared = [prepare(scenario, path, self.policies) for scenario, path in scenarios]
        folders = []
        for repeat in range(1, self.repeats + 1):
            for number, experiment in enumerate(prepared, start=1):
                scenario = experiment.setting.scenario
                folder = out / f"real-{number}-{repeat}"
                requests = len(experiment.setting.load.trace)
                told = f"{scenario.mode.value}  {requests:,} requests  → {folder}"
                console.print(f"[bold]{escape(scenario.name)}[/]  {escape(told)}")
                outcome = run_experiment(experiment, folder, partial(show_progress, console=console), page=False)
                if outcome.interrupted:
                    raise KeyboardInterrupt
                folders.append(folder)
        return folders

    def _overrides(self) -> list[tuple[str, ...]]:
        given = (*self.overrides, f"mode={self.mode.value}")
        if not self.loads:
            return [given]
        scenario, path = load_scenario(self.scenario, given)
        synthetic = scenario.workload.synthetic
        if synthetic is None:
            raise BadInput("--loads: the workload is a trace, whose rate is its own; leave --loads out")
        load = offered_load(scenario, path)
        now = busiest_load(scenario, load)
        return [
            (
                *given,
                f'name="{scenario.name} at {share:.0%} of capacity"',
                f"workload.synthetic.mean_requests_per_s={synthetic.mean_requests_per_s * share / now:.6g}",
            )
            for share in self.loads
        ]


def busiest_load(scenario: Scenario, load: OfferedLoad) -> float:
    """Requests/s offered over requests/s that the initial servers sustain, of the busiest model."""
    found = capacities(scenario, load_profiles(scenario), load.mix)
    sustained: dict[str, float] = {}
    for (model, _, gpu_type), count in scenario.initial_counts().items():
        if (model, gpu_type) in found:
            slo = strictest_slo(scenario.slos(), load.mix[model].tiers)
            one_per_s = sustained_requests_per_s(found[model, gpu_type], load.mix[model], slo)
            sustained[model] = sustained.get(model, 0.0) + count * one_per_s
    models = load.trace.labels("model")
    shares = []
    for name in models.names:
        if not sustained.get(name):
            raise BadInput(f"--loads: {name} has no initial server; give it one, or leave --loads out")
        offered_per_s = float(np.count_nonzero(models.rows(name))) / load.trace.horizon_s
        shares.append(offered_per_s / sustained[name])
    return max(shares)


def sustained_requests_per_s(capacity: ModelCapacity, mix: LengthMix, slo: Slo) -> float:
    """What one server sustains within `slo`: as its profile measured it at about this mix, else by the model of its
    step times. What is measured goes first: the model is what a calibration puts to the test."""
    for measured in capacity.profile.theta:
        same_slo = (measured.slo.ttft_s, measured.slo.tpot_s) == (slo.ttft_s, slo.tpot_s)
        pairs = (
            (measured.prompt_tokens_mean, mix.prompt_mean),
            (measured.output_tokens_mean, mix.output_mean),
            (measured.prompt_cv, mix.prompt_cv),
            (measured.output_cv, mix.output_cv),
        )
        if same_slo and all(math.isclose(*pair, rel_tol=_SAME_MIX) for pair in pairs):
            return measured.requests_per_s
    return capacity.theta.requests_per_s

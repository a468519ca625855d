"""What is compared: policies of run folders, and those of them that ran under the same conditions."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.comparison import SeedGroup
from results.comparison_quantities import PolicyResult
from results.run_folder import RunFolder
from testbed.bad_input import BadInput
from testbed.strict import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One policy of a run folder, where it is called `catalogue_name`.

    `case` is its workload in a study, "" outside one; `policy` its name there; `setting` its knob or parameters.
    `conditions` are the keys of its scenario that runs to be compared have in common, by dotted name.
    """

    folder: RunFolder
    case: str
    policy: str
    catalogue_name: str
    setting: str
    seed: int
    result: PolicyResult
    conditions: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """What a baseline may call it."""
        path = self.folder.path
        return {self.policy, path.resolve().name, str(path), str(path.resolve())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Runs under the same conditions, in the order given."""

    name: str
    runs: tuple[ComparedRun, ...]

    def labelled(self) -> dict[str, list[ComparedRun]]:
        """A policy with one setting over its seeds; one that comes twice with a seed stands twice, named by folder.

        By the folder's whole path where two folders have the same name.
        """
        grouped: dict[tuple[str, str, int], list[ComparedRun]] = {}
        times: Counter[tuple[str, str, int]] = Counter()
        for run in self.runs:
            time = times[run.policy, run.setting, run.seed]
            times[run.policy, run.setting, run.seed] += 1
            grouped.setdefault((run.policy, run.setting, time), []).append(run)
        policies = Counter(policy for policy, _ in {key[:2] for key in grouped})
        settings = Counter(key[:2] for key in grouped)
        labels = []
        for (policy, setting, _), runs in grouped.items():
            label = f"{policy} {setting}".rstrip() if policies[policy] > 1 else policy
            if settings[policy, setting] > 1:
                label = f"{policy} ({runs[0].folder.path.resolve().name})"
            labels.append(label)
        times_said = Counter(labels)
        return {
            label if times_said[label] == 1 else f"{runs[0].policy} ({runs[0].folder.path})": runs
            for label, runs in zip(labels, grouped.values(), strict=True)
        }

    def groups(self, baseline: str | None = None) -> list[SeedGroup]:
        """What is compared, the baseline first: a label, a policy or a run folder. Raises BadInput for none."""
        labelled = self.labelled()
        order = list(labelled)
        if baseline is not None:
            wanted = {baseline, str(Path(baseline).resolve())}
            first = next(
                (label for label, runs in labelled.items() if any(wanted & {label, *run.names} for run in runs)), None
            )
            if first is None:
                where = f" in {self.name}" if self.name else ""
                raise BadInput(f"--baseline {baseline}: not compared{where}{nearest(baseline, order)}")
            order.sort(key=lambda label: label != first)
        return [SeedGroup(label=label, by_seed={run.seed: run.result for run in labelled[label]}) for label in order]

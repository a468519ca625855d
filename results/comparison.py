"""Policies side by side as rows of text, for the terminal and for a page alike."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from results.arrays import Floats
from results.bootstrap import change_interval
from results.comparison_quantities import PolicyResult, Quantity, quantities
from results.quantities import signed_percent, signed_points
from results.summary import RunSummary

NONE = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of one policy: the mean over its seeds, None and "–" where there is none.

    `change` is against the first policy, "" where there is nothing to compare (also when either has not finished: less
    time costs less); `interval` its 95 % confidence interval over seeds, "" of a single seed. `better` says whether the
    change is for the better, None where it is neither, where the interval holds both, or where no seed is shared.
    """

    text: str
    value: float | None = None
    change: str = ""
    interval: str = ""
    better: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One quantity over all policies, in the order of `Comparison.policies`."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Quantities as rows, policies as columns; the first policy is the base of every change; `seeds` of each."""

    policies: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    rows: tuple[ComparisonRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedGroup:
    """One policy's results on workloads that differ only in their seed, by seed."""

    label: str
    by_seed: Mapping[int, PolicyResult]

    @property
    def finished(self) -> bool:
        return all(result.finished for result in self.by_seed.values())

    def values(self, quantity: Quantity) -> dict[int, float]:
        """By seed, where there is one."""
        taken = {seed: quantity.take(result) for seed, result in self.by_seed.items()}
        return {seed: value for seed, value in taken.items() if value is not None}


def compare(summary: RunSummary) -> Comparison:
    """The policies of one run; the shorter list of quantities."""
    groups = [
        SeedGroup(label=name, by_seed={summary.seed: PolicyResult(summary=policy, bound=summary.bound)})
        for name, policy in summary.policies.items()
    ]
    return compare_groups(groups, brief=True)


def compare_groups(groups: Sequence[SeedGroup], *, brief: bool = False) -> Comparison:
    """All groups against the first of them."""
    listed = quantities([result for group in groups for result in group.by_seed.values()])
    return Comparison(
        policies=tuple(group.label for group in groups),
        seeds=tuple(tuple(group.by_seed) for group in groups),
        rows=tuple(
            ComparisonRow(label=quantity.label, cells=tuple(_cell(quantity, group, groups[0]) for group in groups))
            for quantity in listed
            if quantity.brief or not brief
        ),
    )


def _cell(quantity: Quantity, group: SeedGroup, base: SeedGroup) -> Cell:
    ours = group.values(quantity)
    if not ours:
        return Cell(text=NONE)
    mean = _mean(ours.values())
    plain = Cell(text=quantity.show(mean), value=mean)
    theirs = base.values(quantity)
    comparable = base.finished and group.finished and theirs and quantity.less_is_better is not None
    if group is base or not comparable:
        return plain
    shared = [seed for seed in ours if seed in theirs]
    mine = _column([ours[seed] for seed in shared] if shared else list(ours.values()))
    other = _column([theirs[seed] for seed in shared] if shared else list(theirs.values()))
    if not quantity.in_points and not other.any():
        return plain
    step = _difference if quantity.in_points else _ratio
    change = float(step(_column([_mean(mine)]), _column([_mean(other)]))[0])
    interval = change_interval(mine, other, step, paired=bool(shared))
    signed = signed_points if quantity.in_points else signed_percent
    unclear = not shared or (interval is not None and interval[0] <= 0 <= interval[1])
    return Cell(
        text=plain.text,
        value=mean,
        change=signed(change),
        interval="" if interval is None else " to ".join(signed(end).rpartition(" ")[0] for end in interval),
        better=None if unclear or signed(change).startswith("±") else (change < 0) == quantity.less_is_better,
    )


def _column(values: Sequence[float]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _mean(values: Iterable[float]) -> float:
    """One value stays what it is, to the last digit."""
    listed = [float(value) for value in values]
    return sum(listed) / len(listed)


def _ratio(ours: Floats, base: Floats) -> Floats:
    """nan where the base is 0."""
    return np.divide(ours, base, out=np.full_like(base, np.nan), where=base != 0) - 1


def _difference(ours: Floats, base: Floats) -> Floats:
    return ours - base

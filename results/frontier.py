"""Fair comparison of policies that each have a knob: GPU-hours against the share of requests that missed their SLO.

A policy's settings are points (missed, GPU-hours). Its frontier is their lower convex hull, falling: between two
settings lies what running one of them for a part of the time and the other for the rest would give. Every policy is
so given the best that its knob, turned in hindsight, could have attained.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Measures = Mapping[str, float]

# GPU-hours within this share of another's count as equal: less than a seed changes.
EQUAL = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A policy at one value of its knob, mean over `seeds` runs: `measures` by name, among them missed and gpu_hours.

    `missed` is a share 0..1 of the interactive requests.
    """

    value: float | None
    seeds: int
    measures: Measures

    @property
    def missed(self) -> float:
        return self.measures["missed"]

    @property
    def gpu_hours(self) -> float:
        return self.measures["gpu_hours"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """A policy at an attainment, or as near to it as it comes.

    interpolated: along its frontier, between two settings. cheapest: no setting that misses more costs less, so this is
    its cheapest one. nearest: nothing that it was tried with attains it, so this is the setting that misses least.
    """

    how: Literal["interpolated", "cheapest", "nearest"]
    values: tuple[float | None, ...]
    measures: Measures

    @property
    def attained(self) -> bool:
        return self.how != "nearest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The settings of one policy by rising `missed`, and those of them on its lower convex hull."""

    policy: str
    settings: tuple[Setting, ...]
    hull: tuple[Setting, ...]

    def gpu_hours_at(self, missed: float) -> float | None:
        """The least GPU-hours at which no more than `missed` miss; None where the policy attains that nowhere."""
        found = self.at(missed)
        return found.measures["gpu_hours"] if found.attained else None

    def at(self, missed: float) -> Matched:
        """The policy where a share `missed` misses, or as near as its settings come."""
        first, last = self.hull[0], self.hull[-1]
        if missed < first.missed:
            return Matched(how="nearest", values=(first.value,), measures=first.measures)
        if missed >= last.missed:
            how: Literal["interpolated", "cheapest"] = "interpolated" if missed == last.missed else "cheapest"
            return Matched(how=how, values=(last.value,), measures=last.measures)
        right = next(place for place, setting in enumerate(self.hull) if setting.missed > missed)
        low, high = self.hull[right - 1], self.hull[right]
        share = (missed - low.missed) / (high.missed - low.missed)
        if share == 0:
            return Matched(how="interpolated", values=(low.value,), measures=low.measures)
        between = {
            name: (1 - share) * value + share * high.measures[name]
            for name, value in low.measures.items()
            if name in high.measures
        }
        return Matched(how="interpolated", values=(low.value, high.value), measures=between)


def frontier(policy: str, runs: Iterable[tuple[float | None, Measures]]) -> Frontier:
    """The frontier of a policy's runs, given as (value of the knob, measures); runs of one value are averaged.

    Raises ValueError without any run.
    """
    by_value: dict[float | None, list[Measures]] = {}
    for value, measures in runs:
        by_value.setdefault(value, []).append(measures)
    if not by_value:
        raise ValueError(f"policy {policy} has no run; a frontier needs at least one")
    settings = sorted(
        (Setting(value=value, seeds=len(each), measures=_mean(each)) for value, each in by_value.items()),
        key=lambda setting: (setting.missed, setting.gpu_hours),
    )
    return Frontier(policy=policy, settings=tuple(settings), hull=tuple(_lower_hull(settings)))


def _mean(each: Sequence[Measures]) -> Measures:
    # A measure that a run lacks (no request of a tier completed) is not there: a mean of the others would flatter.
    return {name: sum(m[name] for m in each) / len(each) for name in each[0] if all(name in m for m in each)}


def _lower_hull(settings: Sequence[Setting]) -> list[Setting]:
    """The falling part of the lower convex hull (Andrew's monotone chain), by rising `missed`."""
    hull: list[Setting] = []
    for setting in settings:
        if hull and setting.gpu_hours >= hull[-1].gpu_hours:
            continue  # misses more and costs no less
        while len(hull) >= 2 and _turns_up(hull[-2], hull[-1], setting):
            hull.pop()
        hull.append(setting)
    return hull


def _turns_up(first: Setting, middle: Setting, last: Setting) -> bool:
    """Whether `middle` lies on or above the line from `first` to `last`."""
    ahead = (middle.missed - first.missed) * (last.gpu_hours - first.gpu_hours)
    return ahead <= (last.missed - first.missed) * (middle.gpu_hours - first.gpu_hours)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """One setting of ours against another policy's frontier at the same `missed`.

    `excess` is our GPU-hours over the other's, minus 1: below 0 we lie under its frontier. None where the other attains
    that nowhere: it has no point there to lie under.
    """

    value: float | None
    missed: float
    gpu_hours: float
    excess: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Our frontier against another's: at the attainment of the comparison, and at the worst of our settings."""

    other: str
    at_target: Margin
    worst: Margin

    @property
    def on_or_under(self) -> bool:
        """Whether no setting of ours costs more, by more than EQUAL, than the other does at the same attainment."""
        return self.worst.excess is None or self.worst.excess <= EQUAL


def standing(ours: Frontier, other: Frontier, missed: float) -> Standing:
    """How the settings on our frontier lie to another policy's, and ours at the share `missed`."""
    at = ours.at(missed)
    target = _margin(at.values[0], max(missed, at.measures["missed"]), at.measures["gpu_hours"], other)
    margins = [_margin(each.value, each.missed, each.gpu_hours, other) for each in ours.hull]
    known = [margin for margin in (*margins, target) if margin.excess is not None]
    worst = max(known, key=lambda margin: margin.excess or 0.0) if known else margins[0]
    return Standing(other=other.policy, at_target=target, worst=worst)


def _margin(value: float | None, missed: float, gpu_hours: float, other: Frontier) -> Margin:
    theirs = other.gpu_hours_at(missed)
    excess = None if theirs is None or theirs <= 0 else gpu_hours / theirs - 1
    return Margin(value=value, missed=missed, gpu_hours=gpu_hours, excess=excess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What one policy saves of another's hours at equal or better attainment, against what was claimed.

    `missed` is the share at which they are compared: the target, or the least that `policy` attains where that is more.
    `against_attained`: whether the other attains that share too; where not, it is at the setting that misses least.
    `saved` and `claimed` are shares of the other's hours.
    """

    what: str
    policy: str
    against: str
    missed: float
    against_attained: bool
    saved: float
    claimed: float

    @property
    def holds(self) -> bool:
        return self.saved >= self.claimed


def saving(ours: Frontier, other: Frontier, missed: float, what: str, claimed: float) -> Saving | None:
    """The saving in the measure `what` (gpu_hours, wasted_gpu_hours); None where the other has nothing to save."""
    mine = ours.at(missed)
    shared = max(missed, mine.measures["missed"]) if not mine.attained else missed
    theirs = other.at(shared)
    if theirs.measures[what] <= 0:
        return None
    return Saving(
        what=what,
        policy=ours.policy,
        against=other.policy,
        missed=shared,
        against_attained=theirs.attained,
        saved=1 - mine.measures[what] / theirs.measures[what],
        claimed=claimed,
    )

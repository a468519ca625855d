"""What `hpa` remembers of a silo, as the named numbers that travel in a plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controller.rules.target_tracking import Change, Recommendation
from controller.types import Silo

_NAME = re.compile(r"(?P<silo>.+) (?P<what>recommended|changed) at (?P<at_s>\S+) s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloPast:
    """Recommendations that still hold the silo up, and its changes that still count against the rates."""

    recommendations: tuple[Recommendation, ...] = ()
    changes: tuple[Change, ...] = ()


def numbers_of(silo: Silo, past: SiloPast) -> dict[str, float]:
    """By name: "llama@west recommended at 120.0 s" counts servers, "... changed at ..." those added or removed."""
    recommended = {f"{silo} recommended at {each.at_s!r} s": each.servers for each in past.recommendations}
    changed = {f"{silo} changed at {each.at_s!r} s": float(each.servers) for each in past.changes}
    return {**recommended, **changed}


def pasts_of(numbers: Mapping[str, float]) -> dict[str, SiloPast]:
    """What `numbers_of` made numbers of, by the silo's name; other numbers are left alone."""
    found: dict[str, tuple[list[Recommendation], list[Change]]] = {}
    for name, value in numbers.items():
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        recommendations, changes = found.setdefault(match["silo"], ([], []))
        at_s = float(match["at_s"])
        if match["what"] == "recommended":
            recommendations.append(Recommendation(at_s=at_s, servers=value))
        else:
            changes.append(Change(at_s=at_s, servers=round(value)))
    return {
        silo: SiloPast(recommendations=tuple(recommendations), changes=tuple(changes))
        for silo, (recommendations, changes) in found.items()
    }

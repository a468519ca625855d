"""Calibrations of one thing over and over: each its own profile and runs, so that a machine's changes of pace cancel.

What a profile is off by because the machine has changed since has another sign each time, and vanishes in the mean with
the root of their number. What the emulator itself is off by stays.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.calibration import CalibrationRecord, CaseRecord, Measure
from results.calibration_tables import limit_and_whether_kept
from results.quantities import percent, signed_percent
from results.text_table import NOT_MEASURED, TextTable

# Name, policy, and which of those that share them.
_Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOverRounds:
    """The error of one measure in each calibration; None in one that has none."""

    name: str
    errors: tuple[float | None, ...]
    limit: float

    @property
    def mean(self) -> float | None:
        return float(np.mean(self._known)) if self._known else None

    @property
    def standard_error(self) -> float | None:
        """Of the mean: the standard deviation of the errors over the root of their number; None of fewer than two."""
        return float(np.std(self._known, ddof=1)) / math.sqrt(len(self._known)) if len(self._known) > 1 else None

    @property
    def within(self) -> bool | None:
        """Whether the mean keeps the limit; None without one."""
        return None if self.mean is None else abs(self.mean) <= self.limit

    @property
    def _known(self) -> list[float]:
        return [error for error in self.errors if error is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseOverRounds:
    """A workload under a policy, servers alone: what was asked of it, over all calibrations."""

    name: str
    policy: str
    measures: tuple[MeasureOverRounds, ...]


def over_rounds(calibrations: Sequence[CalibrationRecord]) -> tuple[CaseOverRounds, ...]:
    """Case by case, in the order of the first; a calibration without a case has no error there. Cases of one name under
    one policy (other requests of one scenario) belong together by their order."""
    by_case = [_by_key(calibration) for calibration in calibrations]
    order = dict.fromkeys(key for cases in by_case for key in cases)
    return tuple(_over(key, [cases.get(key) for cases in by_case]) for key in order)


def _by_key(calibration: CalibrationRecord) -> dict[_Key, CaseRecord]:
    seen = Counter[tuple[str, str]]()
    found: dict[_Key, CaseRecord] = {}
    for case in calibration.cases:
        found[case.name, case.policy, seen[case.name, case.policy]] = case
        seen[case.name, case.policy] += 1
    return found


def _over(key: _Key, cases: Sequence[CaseRecord | None]) -> CaseOverRounds:
    found: list[dict[str, Measure]] = [
        {} if case is None else {one.name: one for one in case.servers_alone} for case in cases
    ]
    limits = {name: one.limit for measures in found for name, one in measures.items() if one.limit is not None}
    return CaseOverRounds(
        name=key[0],
        policy=key[1],
        measures=tuple(
            MeasureOverRounds(
                name=name,
                errors=tuple(measures[name].error if name in measures else None for measures in found),
                limit=limit,
            )
            for name, limit in limits.items()
        ),
    )


def rounds_table(case: CaseOverRounds, names: Sequence[str]) -> TextTable:
    """`names` of the calibrations, in their order."""
    return TextTable(
        title=f"{case.name}, {case.policy}",
        columns=("", *names, "mean", "± of the mean", "limit"),
        rows=tuple(
            (
                one.name,
                *(_error(error) for error in one.errors),
                _error(one.mean),
                NOT_MEASURED if one.standard_error is None else percent(one.standard_error),
                limit_and_whether_kept(one.limit, one.within),
            )
            for one in case.measures
        ),
        lead="Servers alone, the error of each calibration. What a machine changes between a profile and its runs has "
        "another sign each time; the mean is what is left for the emulator.",
    )


def _error(error: float | None) -> str:
    return NOT_MEASURED if error is None else signed_percent(error)

"""Recorded decisions as a report wants them; controller.records alone knows how they are written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from controller.records import decode_plans
from controller.types import Forecast, Pool, SolveReport, Step
from results.run_folder_error import RunFolderError

# What decoding raises of a record that is another version's, or damaged.
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision without the demand it saw. `forecasts` holds those that no earlier decision had."""

    at_s: float
    steps: tuple[Step, ...]
    solve: SolveReport | None
    forecasts: Mapping[Pool, Forecast]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLog:
    """The decisions of one policy; `theta_tokens_per_s` by (model, GPU type). `torn` counts lines that a kill cut,
    `unread` records that could not be read, because they are of another version's shape or one before is missing."""

    decisions: tuple[Decision, ...] = ()
    theta_tokens_per_s: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))
    torn: int = 0
    unread: int = 0

    def forecasts(self) -> Iterator[tuple[Pool, Forecast]]:
        """Every forecast once, in the order in which they were made."""
        for decision in self.decisions:
            yield from decision.forecasts.items()

    def forecast_methods(self) -> dict[str, int]:
        """How many forecasts each method made; a fall-back counts with its reason."""
        counts: dict[str, int] = {}
        for _, forecast in self.forecasts():
            because = forecast.fell_back_because
            name = f"{forecast.method} (fell back: {because})" if because else forecast.method
            counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))


def read_decisions(records: Iterable[Mapping[str, Any] | None]) -> DecisionLog:
    """Read what controller.records wrote, one record at a time; None stands for a line that a kill tore.

    From the first record on that cannot be read, what is left is counted in `unread` instead of raised: the rest of a
    report does not need it.
    """
    torn = taken = 0

    def whole() -> Iterator[dict[str, Any]]:
        nonlocal torn, taken
        for record in records:
            if record is None:
                torn += 1
            else:
                taken += 1
                yield dict(record)

    given = whole()
    newest: dict[Pool, Forecast] = {}
    decisions: list[Decision] = []
    theta: dict[tuple[str, str], float] = {}
    try:
        for at_s, limits, plan in decode_plans(given):
            if not decisions:
                theta = {key: c.theta_tokens_per_s for key, c in limits.capacity.items()}
            made = plan.memory.forecasts.items()
            forecasts = {p: f for p, f in made if newest.get(p) is not f and newest.get(p) != f}
            newest.update(forecasts)
            decisions.append(Decision(at_s=at_s, steps=plan.steps, solve=plan.solve, forecasts=forecasts))
    except RunFolderError:  # a ValueError too: of a file that cannot be read at all
        raise
    except UNREADABLE:
        pass
    for _ in given:
        pass
    return DecisionLog(decisions=tuple(decisions), theta_tokens_per_s=theta, torn=torn, unread=taken - len(decisions))

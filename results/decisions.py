"""Recorded decisions as a report wants them; controller.records alone knows how they are written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from controller.records import decode_all
from controller.types import Forecast, Pool, SolveReport, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision without the demand it saw. `forecasts` holds those that no earlier decision had."""

    at_s: float
    steps: tuple[Step, ...]
    solve: SolveReport | None
    forecasts: Mapping[Pool, Forecast]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLog:
    """The decisions of one policy; `theta_tokens_per_s` by (model, GPU type); `unread` counts records that could not
    be read, because they are of another version's shape or one before them is missing."""

    decisions: tuple[Decision, ...] = ()
    theta_tokens_per_s: Mapping[tuple[str, str], float] = field(default_factory=lambda: MappingProxyType({}))
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


def read_decisions(records: Iterable[Mapping[str, Any]]) -> DecisionLog:
    """Read what controller.records wrote.

    Records that it cannot read are counted in `unread` instead of raised: the rest of a report does not need them.
    """
    given = [dict(record) for record in records]
    try:
        pairs = decode_all(given)
    except (KeyError, TypeError, ValueError, AttributeError):
        return DecisionLog(unread=len(given))
    newest: dict[Pool, Forecast] = {}
    decisions = []
    for seen, plan in pairs:
        forecasts = {p: f for p, f in plan.memory.forecasts.items() if newest.get(p) is not f and newest.get(p) != f}
        newest.update(forecasts)
        decisions.append(Decision(at_s=seen.at_s, steps=plan.steps, solve=plan.solve, forecasts=forecasts))
    theta = {key: c.theta_tokens_per_s for key, c in pairs[0][0].limits.capacity.items()} if pairs else {}
    return DecisionLog(decisions=tuple(decisions), theta_tokens_per_s=theta)

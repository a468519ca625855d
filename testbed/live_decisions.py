"""A live view's decision log: what was done last, why, and what the solver said."""

from collections import Counter, deque
from dataclasses import dataclass

from controller.types import Forecast, Pool, ScalingPlan, SolveReport
from testbed.live_events import Decided

LOG_LENGTH = 100
STEPS_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision that changed something or solved a program; `number` counts all of the run's decisions from 1.

    `steps` are the first of them, as (placement, change, reason); `more_steps` are left out. `fell_back`: pools whose
    forecast came from another method than was asked for, with the reason.
    """

    number: int
    at_s: float
    steps: tuple[tuple[str, int, str], ...]
    more_steps: int
    solve: SolveReport | None
    fell_back: tuple[tuple[str, str], ...]


class LiveDecisions:
    """The last LOG_LENGTH decisions worth a line, and how programs ended."""

    def __init__(self) -> None:
        self._log: deque[Decision] = deque(maxlen=LOG_LENGTH)
        self._forecasts: dict[Pool, Forecast] = {}
        self.total = 0
        self.terminations: Counter[str] = Counter()
        self.last_solve: SolveReport | None = None

    def decided(self, event: Decided) -> dict[Pool, Forecast]:
        """Log it; returns the forecasts that are new in it."""
        plan = event.plan
        self.total += 1
        new = {
            pool: forecast
            for pool, forecast in plan.memory.forecasts.items()
            if self._forecasts.get(pool) is not forecast and self._forecasts.get(pool) != forecast
        }
        self._forecasts.update(new)
        if plan.solve is not None:
            self.terminations[plan.solve.termination] += 1
            self.last_solve = plan.solve
        if plan.steps or plan.solve is not None:
            self._log.append(self._entry(event.seen.at_s, plan, new))
        return new

    def log(self) -> tuple[Decision, ...]:
        """Oldest first."""
        return tuple(self._log)

    def _entry(self, at_s: float, plan: ScalingPlan, new: dict[Pool, Forecast]) -> Decision:
        shown = plan.steps[:STEPS_SHOWN]
        return Decision(
            number=self.total,
            at_s=at_s,
            steps=tuple((str(step.placement), step.change, step.reason) for step in shown),
            more_steps=len(plan.steps) - len(shown),
            solve=plan.solve,
            fell_back=tuple((str(pool), f.fell_back_because) for pool, f in new.items() if f.fell_back_because),
        )

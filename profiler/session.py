"""What all phases of a measurement share: the server, the plan, the journal, and the time that is left."""

import secrets
from collections.abc import Callable

from profiler.journal import Journal
from profiler.lifecycle import one_answer
from profiler.plan import MeasurementPlan
from profiler.points import ServerLimits
from profiler.progress import Progress, Tell
from profiler.random_prompts import RandomPrompts
from profiler.target import MeasurementError, Target


class Session:
    """One server, measured from `started_s` on, in the clock `now_s`.

    Whatever is found goes into the journal at once, and each phase first looks there: nothing is measured twice. Time
    that it took before counts.
    """

    def __init__(
        self,
        target: Target,
        limits: ServerLimits,
        plan: MeasurementPlan,
        journal: Journal,
        *,
        now_s: Callable[[], float],
        started_s: float,
        tell: Tell,
    ) -> None:
        self.target = target
        self.limits = limits
        self.plan = plan
        self.journal = journal
        self.now_s = now_s
        # A server that was measured before may still have in its cache what it was asked then.
        self.prompts = RandomPrompts(plan.seed, secrets.randbits(63))
        self._skipped: dict[str, None] = {}
        self._tell = tell
        self._ready_s = now_s()
        self._end_s = max(started_s + plan.budget_s - journal.spent_s, self._ready_s)

    @property
    def measuring_s(self) -> float:
        """Seconds from READY to the end of the budget."""
        return self._end_s - self._ready_s

    def left_s(self, until: float = 1.0) -> float:
        """Seconds until the part `until` (0..1) of the measuring time is over; 0 when it is."""
        return max(0.0, self._ready_s + until * self.measuring_s - self.now_s())

    def say(self, phase: str, what: object) -> None:
        """Tell whoever watches."""
        self._tell(Progress(phase=phase, what=str(what), left_s=self.left_s()))

    def note(self, note: str) -> None:
        """Keep for the profile, and for a session that goes on, what cannot be measured, and why."""
        self.journal.add("note", note=note)

    def skip(self, what: str) -> None:
        """Keep for the profile what this session had no time for; one that goes on may have."""
        self._skipped[what] = None

    async def require_answers(self) -> None:
        """Raise MeasurementError when the server does not answer the shortest prompt: then no point is to blame."""
        fault = await one_answer(self.target, self.prompts)()
        if fault is not None:
            raise MeasurementError(f"the server answers no more: {fault}")

    @property
    def notes(self) -> tuple[str, ...]:
        """All notes so far, each once."""
        return tuple(dict.fromkeys([*(entry["note"] for entry in self.journal.of("note")), *self._skipped]))

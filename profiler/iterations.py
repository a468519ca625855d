"""Samples of iterations: warm-up, a first grid, refinement where the fit errs most, and points held out of it."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from profiler.fit import StepTimeFit, fit_step_time
from profiler.grid import first_grid, random_points
from profiler.plan import UNTIL_GRID, UNTIL_HELD_OUT, UNTIL_REFINED, UNTIL_WARM
from profiler.point_medians import point_medians
from profiler.points import DecodePoint, PrefillPoint, StepPoint, step_point
from profiler.profile_parts import StepSample
from profiler.refinement import Measured, next_points
from profiler.sampling import measure_point
from profiler.session import Session
from profiler.target import MeasurementError

# Warm: this many rounds in a row within this factor of the fastest.
_STABLE_ROUNDS = 4
_STABLE = 1.15
_MOST_WARM_UP_S = 90.0
# Below this many points a grid says too little, whatever it costs.
_FEWEST_POINTS = 14
_BATCH = 4
_MOST_FAULTS = 2
# A point whose repeats scatter gets so many more at a time.
_MORE_REPEATS = 2
_FEWEST_HELD_OUT = 3


class Iterations:
    """The samples of a session, those in its journal first."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._plan = session.plan
        self._limits = session.limits
        recorded = list(session.journal.of("sample"))
        self.samples = [StepSample.model_validate(entry["sample"]) for entry in recorded]
        self._cost_s: dict[str, float] = {entry["sample"]["point"]: entry["cost_s"] for entry in recorded}
        self._prefill_tokens_per_s = math.inf  # nothing is known yet
        self._warm: set[str] = set()
        self._faults: dict[str, int] = {}

    async def measure(self) -> StepTimeFit:
        """Every phase in turn; the fit to all that was not held out, judged by what was.

        Raises MeasurementError when too little could be measured to fit anything.
        """
        await self.warm_up()
        grid = first_grid(self._limits, self._plan.longest_prompt)
        await self._measure("grid", grid, UNTIL_GRID)
        fit = await self._refine()
        await self._hold_out(fit)
        return self._fit()

    async def measure_points(self, points: Iterable[StepPoint]) -> None:
        """These points and no others: those of another server that is to be compared."""
        await self.warm_up()
        await self._measure("the same points", points, 1.0)

    async def measure_fresh(self, count: int, wanted: Callable[[StepPoint], bool]) -> None:
        """`count` random points of those `wanted`, kept as held out: they judge a fit that was made before."""
        await self.warm_up()
        rng = np.random.default_rng([self._plan.seed, 2])
        drawn = random_points(self._limits, 5 * count, rng, self._plan.longest_prompt)
        points = [point for point in drawn if wanted(point)][:count]
        await self._measure("fresh points", points, 1.0, held_out=True)

    async def warm_up(self) -> None:
        """Until the server's pace is steady: in its first half minute it may be 25 times slower."""
        session = self._session
        until_s = session.now_s() + min(_MOST_WARM_UP_S, session.left_s(UNTIL_WARM))
        points: list[StepPoint] = [
            PrefillPoint(prompt_tokens=64),
            DecodePoint(decode_seqs=min(4, self._limits.widest), context_tokens=32),
        ]
        took_s: list[float] = []
        while len(took_s) < _STABLE_ROUNDS or max(took_s[-_STABLE_ROUNDS:]) > _STABLE * min(took_s):
            if took_s and session.now_s() >= until_s:
                break
            session.say("warm-up", f"round {len(took_s) + 1}")
            began_s = session.now_s()
            for point in points:
                if point.fits(self._limits):
                    await measure_point(session.target, session.prompts, point, self._limits, 0)
            took_s.append(session.now_s() - began_s)

    async def _measure(
        self, phase: str, points: Iterable[StepPoint], until: float, *, held_out: bool = False, more: int = 0
    ) -> None:
        """The plan's repeats of every point, and `more` of those that have them, in passes of different order.

        A drift of the machine so falls on all points alike. What the journal has is not measured again. Each shape is
        warmed up before its first repeat. A point that fails is noted and left out, as are the costliest when all
        together would take longer than `until` allows.
        """
        done = self._repeats()
        asked = {point: max(self._plan.repeats, done[str(point)] + more) for point in points}
        wanted = {
            point: repeats
            for point, repeats in asked.items()
            if done[str(point)] < repeats and not self._given_up(point)
        }
        # Cheap ones first: they tell the rate by which the cost of the others is estimated.
        for point in sorted(wanted, key=lambda point: point.prefill_tokens()):
            if str(point) in self._warm:
                continue
            if (wanted[point] + 1) * self._estimated_s(point) > self._session.left_s(until):
                self._leave_out(point, wanted)
                continue
            self._session.say(phase, f"{point}, first time")
            began_s = self._session.now_s()
            if not await self._tried(point, None, held_out):
                del wanted[point]
                continue
            if str(point) in self._faults:
                continue
            took_s = self._session.now_s() - began_s
            self._warm.add(str(point))
            self._cost_s.setdefault(str(point), took_s)
            rate = point.prefill_tokens() / took_s
            known = self._prefill_tokens_per_s
            self._prefill_tokens_per_s = rate if known == math.inf else max(known, rate)
        for turn in range(max(wanted.values(), default=0)):
            # After the first turn: a repeat whose context is cached may cost much less than the first time did.
            while turn and len(wanted) > _FEWEST_POINTS and self._to_come_s(wanted, turn) > self._session.left_s(until):
                self._leave_out(max(wanted, key=self._estimated_s), wanted)
            done = self._repeats()
            due = [point for point, repeats in wanted.items() if done[str(point)] <= turn < repeats]
            order = np.random.default_rng([self._plan.seed, len(self.samples)]).permutation(len(due))
            for position, index in enumerate(order):
                point = due[index]
                self._session.say(phase, f"{point}, repeat {turn + 1} ({position + 1}/{len(due)})")
                if not await self._tried(point, self._repeats()[str(point)], held_out):
                    del wanted[point]

    def _to_come_s(self, wanted: Mapping[StepPoint, int], turn: int) -> float:
        return sum(max(0, repeats - turn) * self._estimated_s(point) for point, repeats in wanted.items())

    async def _tried(self, point: StepPoint, repeat: int | None, held_out: bool) -> bool:
        """Measure once; whether to go on with this point. A repeat of None is not kept."""
        session = self._session
        began_s = session.now_s()
        try:
            sample = await measure_point(session.target, session.prompts, point, self._limits, repeat or 0)
        except MeasurementError as error:
            faults = self._faults[str(point)] = self._faults.get(str(point), 0) + 1
            if faults < _MOST_FAULTS:
                return True  # it may have been the machine
            await session.require_answers()
            kept = self._repeats()[str(point)]
            session.note(f"left out: {point}: {error}" if not kept else f"only {kept} repeats of {point}: {error}")
            return False
        if repeat is not None:
            sample = sample.model_copy(update={"held_out": held_out})
            cost_s = session.now_s() - began_s
            session.journal.add("sample", sample=sample.model_dump(), cost_s=round(cost_s, 4))
            self.samples.append(sample)
            self._cost_s[str(point)] = cost_s
        return True

    def _estimated_s(self, point: StepPoint) -> float:
        """What a repeat of `point` may cost: as before, or its prefill at the best rate seen."""
        return self._cost_s.get(str(point), point.prefill_tokens() / self._prefill_tokens_per_s)

    def _leave_out(self, point: StepPoint, wanted: dict[StepPoint, int]) -> None:
        """No more of this point; noted unless it was measured before and more repeats were wanted."""
        del wanted[point]
        repeats, cost_s = self._repeats()[str(point)], self._estimated_s(point)
        if repeats < self._plan.repeats:
            what = f"only {repeats} repeats of {point}" if repeats else f"left out: {point}"
            self._session.skip(f"{what}: the time was too short for {cost_s:.1f} s each; give it more budget")

    def _given_up(self, point: StepPoint) -> bool:
        return self._faults.get(str(point), 0) >= _MOST_FAULTS or any(
            entry["note"].startswith(f"left out: {point}:") for entry in self._session.journal.of("note")
        )

    def _repeats(self) -> Counter[str]:
        return Counter(sample.point for sample in self.samples)

    async def _refine(self) -> StepTimeFit:
        """New points and more repeats where the fit to the others errs most, until good enough or the time is up."""
        fit = self._fit()
        most = self._plan.most_points - self._plan.held_out
        while fit.quality.leave_one_out and fit.quality.leave_one_out.max_ape > self._plan.error_target:
            room = max(0, most - len(fit.leave_one_out))
            batch = next_points(self._measured(fit), self._limits, _BATCH, room)
            new = [point for point in batch if str(point) not in fit.leave_one_out]
            again = [point for point in batch if str(point) in fit.leave_one_out]
            if self._session.left_s(UNTIL_REFINED) == 0 or not new + again:
                break
            before = len(self.samples)
            await self._measure("refinement", new, UNTIL_REFINED)
            await self._measure("refinement", again, UNTIL_REFINED, more=_MORE_REPEATS)
            if len(self.samples) == before:
                break
            fit = self._fit()
        return fit

    def _fit(self) -> StepTimeFit:
        try:
            return fit_step_time(self.samples)
        except ValueError as error:
            why = f" ({self._session.notes[0]})" if self._session.notes else ""
            raise MeasurementError(f"{error}{why}") from error

    def _measured(self, fit: StepTimeFit) -> list[Measured]:
        medians = point_medians([sample for sample in self.samples if not sample.held_out])
        repeats = self._repeats()
        return [
            Measured(point=step_point(name), error=fit.leave_one_out[name], noise=noise, repeats=repeats[name])
            for name, noise in zip(medians.names.tolist(), medians.noise.tolist(), strict=True)
        ]

    async def _hold_out(self, fit: StepTimeFit) -> None:
        """Points at random within the domain, kept from the fit; fewer when time is short.

        A few are measured even then, in the time of what follows: a fit that nothing judges is worth less than theta
        found in fewer steps.
        """
        rng = np.random.default_rng([self._plan.seed, 1])
        drawn = random_points(self._limits, 3 * self._plan.held_out, rng, self._plan.longest_prompt)
        recorded = {sample.point for sample in self.samples if sample.held_out}
        room_s = self._session.left_s(UNTIL_HELD_OUT)
        chosen: list[StepPoint] = []
        for point in drawn:
            cost_s = (self._plan.repeats + 1) * self._estimated_s(point)
            within = point.prefill_tokens() <= max(fit.domain.kv_tokens[1], fit.domain.prefill_tokens[1])
            affordable = str(point) in recorded or cost_s <= room_s or len(chosen) < _FEWEST_HELD_OUT
            if len(chosen) < self._plan.held_out and str(point) not in fit.leave_one_out and within and affordable:
                chosen.append(point)
                room_s -= cost_s
        until = UNTIL_HELD_OUT if len(chosen) > _FEWEST_HELD_OUT else 1.0
        await self._measure("held-out points", chosen, until, held_out=True)

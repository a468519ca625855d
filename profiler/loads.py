"""A session's loads: closed loops, the search for theta by open ones, and what the GPUs take meanwhile."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from profiler.gpu_meter import EnergyWindow, NvmlMeter
from profiler.load import Load, RequestRow, run_closed_loop, run_open_loop, with_energy
from profiler.plan import UNTIL_LOADS, UNTIL_THETA
from profiler.points import ClosedLoop, OpenLoop
from profiler.profile_parts import LoadPoint, MeasuredTheta, Power
from profiler.session import Session
from profiler.step_time import StepTimeModel, prefill_pairs
from profiler.target import MeasurementError
from profiler.theta_search import search_theta

_IDLE_S = 4.0
# An open loop is counted for so many seconds, and so many requests at least, after the server has filled: requests
# have come and gone for twice as long as one takes.
_OPEN_LOOP_S = 15.0
_FEWEST_REQUESTS = 60
_FILLING_E2E = 2.0
# What a load of its own should last for NVML to tell its energy.
_POWER_S = 5.0
# The first rate tried, as a share of the best that a closed loop completed.
_FIRST_TRY = 0.7
_POWER_PROMPT_TOKENS, _POWER_OUTPUT_TOKENS = 2048, 256


class Loads:
    """The loads of a session, those in its journal first; `meter` None where there is no NVML."""

    def __init__(self, session: Session, meter: NvmlMeter | None) -> None:
        self._session = session
        self._meter = meter

    def recorded(self) -> list[Load]:
        """Every load that was measured, in order."""
        return [_from_journal(entry) for entry in self._session.journal.of("load")]

    async def closed_loops(self, step_time: StepTimeModel) -> list[Load]:
        """1, 4, 16, ... requests in flight, as far as the server holds them and the time allows."""
        session, mix = self._session, self._session.plan.mix
        prompt, output = round(mix.prompt_tokens), round(mix.output_tokens)
        loads: list[Load] = []
        concurrency = 1
        while session.limits.hold(concurrency, prompt + output):
            loop = ClosedLoop(
                concurrency=concurrency,
                prompt_tokens=prompt,
                output_tokens=output,
                requests=max(12, 4 * concurrency),
            )
            if loads and self._recorded(loop) is None and _closed_loop_s(loop, step_time) > session.left_s(UNTIL_LOADS):
                session.skip(f"left out: {loop}: the time was too short; give it more budget")
                break
            try:
                loads.append(await self._load(loop))
            except MeasurementError as error:
                await session.require_answers()
                session.note(f"left out: {error}")
                break
            concurrency *= 4
        if not loads:
            session.note(f"no loads were measured: the server does not answer {prompt} + {output} tokens")
        return loads

    async def theta(self, closed: list[Load]) -> MeasuredTheta | None:
        """The largest open-loop rate within the SLO, found by trying; None when none was."""
        session, mix, slo = self._session, self._session.plan.mix, self._session.plan.slo
        most_per_s = max((load.point.completed_per_s for load in closed), default=0.0)
        if not most_per_s:
            return None

        filling_s = _FILLING_E2E * max(load.point.e2e_s.mean for load in closed if load.point.e2e_s is not None)

        async def try_rate(requests_per_s: float) -> LoadPoint | None:
            counted = max(_FEWEST_REQUESTS, math.ceil(_OPEN_LOOP_S * requests_per_s))
            loop = OpenLoop(
                requests_per_s=float(f"{requests_per_s:.4g}"),
                prompt_tokens=mix.prompt_tokens,
                output_tokens=mix.output_tokens,
                prompt_cv=mix.prompt_cv,
                output_cv=mix.output_cv,
                requests=counted + math.ceil(filling_s * requests_per_s),
                filling_s=filling_s,
            )
            if self._recorded(loop) is None and 1.3 * loop.requests / requests_per_s > session.left_s(UNTIL_THETA):
                return None
            return (await self._load(loop)).point

        try:
            best, missed = await search_theta(try_rate, _FIRST_TRY * most_per_s, slo, session.plan.theta_tries)
        except MeasurementError as error:
            await session.require_answers()
            session.skip(f"theta was not measured: {error}")
            return None
        if best is None or best.requests_per_s is None or best.e2e_s is None:
            session.skip(
                f"theta was not measured: {'the time was too short' if missed is None else 'no rate kept the SLO'}"
            )
            return None
        return MeasuredTheta(
            prompt_tokens_mean=best.prompt_tokens,
            output_tokens_mean=best.output_tokens,
            prompt_cv=mix.prompt_cv,
            output_cv=mix.output_cv,
            slo=slo,
            requests_per_s=best.requests_per_s,
            tokens_per_s=best.requests_per_s * (best.prompt_tokens + best.output_tokens),
            missed_at_requests_per_s=missed,
            n=best.e2e_s.n,
        )

    async def power(self, closed: list[Load], step_time: StepTimeModel) -> Power | None:
        """Watts idle, while only prompts are computed, and while only answers are; None without a meter."""
        meter, session = self._meter, self._session
        if meter is None:
            return None
        idle = next(session.journal.of("idle"), None)
        if idle is None:
            session.say("power", "idle")
            async with EnergyWindow(meter, session.now_s) as window:
                await asyncio.sleep(_IDLE_S)
            session.journal.add("idle", watts=window.energy.mean_w if window.energy else None, cost_s=_IDLE_S)
            idle = next(session.journal.of("idle"))
        widest = max((load.point.concurrency or 1 for load in closed), default=1)
        prompt_tokens = min(_POWER_PROMPT_TOKENS, session.limits.longest_prompt - 1)
        output_tokens = min(_POWER_OUTPUT_TOKENS, session.limits.max_model_len - 16)
        prefill_s = step_time.step_s(prompt_tokens, prefill_pairs(prompt_tokens), 0, 0)
        wave_s = output_tokens * step_time.step_s(0, 0, widest, widest * output_tokens / 2)
        try:
            prefill = await self._load(
                ClosedLoop(
                    concurrency=min(4, widest),
                    prompt_tokens=prompt_tokens,
                    output_tokens=1,
                    requests=max(16, math.ceil(_POWER_S / prefill_s)),
                )
            )
            decode = await self._load(
                ClosedLoop(
                    concurrency=widest,
                    prompt_tokens=16,
                    output_tokens=output_tokens,
                    requests=widest * max(2, math.ceil(_POWER_S / wave_s)),
                )
            )
        except MeasurementError as error:
            await session.require_answers()
            session.skip(f"power under load was not measured: {error}")
            return Power(idle_w=idle["watts"], limit_w=meter.limit_w())
        peaks = [load.point.energy.max_w for load in self.recorded() if load.point.energy is not None]
        return Power(
            idle_w=idle["watts"],
            prefill_w=prefill.point.energy.mean_w if prefill.point.energy else None,
            decode_w=decode.point.energy.mean_w if decode.point.energy else None,
            peak_w=max((peak for peak in peaks if peak is not None), default=None),
            limit_w=meter.limit_w(),
            prompt_token_j=_joules_per_token(prefill, "prompt_tokens"),
            output_token_j=_joules_per_token(decode, "output_tokens"),
        )

    def _recorded(self, loop: ClosedLoop | OpenLoop) -> Load | None:
        """The load as it was measured before, if it was."""
        entries = self._session.journal.of("load")
        return next((_from_journal(entry) for entry in entries if entry["name"] == str(loop)), None)

    async def _load(self, loop: ClosedLoop | OpenLoop) -> Load:
        """The load as recorded, or measured now."""
        recorded = self._recorded(loop)
        if recorded is not None:
            return recorded
        session, plan = self._session, self._session.plan
        session.say("load", loop)
        began_s = session.now_s()
        async with EnergyWindow(self._meter, session.now_s) as window:
            if isinstance(loop, ClosedLoop):
                load = await run_closed_loop(session.target, session.prompts, loop, plan.slo)
            else:
                load = await run_open_loop(
                    session.target, session.prompts, loop, session.limits, session.now_s, plan.seed, plan.slo
                )
        load = with_energy(load, window.energy)
        session.journal.add(
            "load",
            name=str(loop),
            point=load.point.model_dump(),
            rows=[asdict(row) for row in load.rows],
            cost_s=round(session.now_s() - began_s, 4),
        )
        return load


def _from_journal(entry: Mapping[str, Any]) -> Load:
    return Load(point=LoadPoint.model_validate(entry["point"]), rows=tuple(RequestRow(**row) for row in entry["rows"]))


def _closed_loop_s(loop: ClosedLoop, step_time: StepTimeModel) -> float:
    """How long a closed loop may take: its requests in waves, each prefilled in turn and decoded together."""
    kv_tokens = loop.concurrency * (loop.prompt_tokens + loop.output_tokens / 2)
    prefill_s = step_time.step_s(loop.prompt_tokens, prefill_pairs(loop.prompt_tokens), 0, 0)
    decode_s = step_time.step_s(0, 0, loop.concurrency, kv_tokens)
    waves = -(-loop.requests // loop.concurrency)
    return waves * (loop.concurrency * prefill_s + loop.output_tokens * decode_s)


def _joules_per_token(load: Load, tokens: str) -> float | None:
    """Energy of the whole load over its tokens of one kind."""
    total = sum(getattr(row, tokens) for row in load.rows)
    energy = load.point.energy
    return None if energy is None or not total else energy.energy_j / total

"""What a request costs outside of iterations when it is sent to a busy server.

One process takes requests, tokenises, detokenises and streams for all: what arrives waits for it, and what leaves does
too, the longer the more sequences decode. So short requests are sent at random moments while others decode. The
engine's own part of their TTFT is known: with asynchronous scheduling, vLLM's default on GPUs, half an iteration S
until the next begins, one that was put together already, and M, the request's own; without, S/2 + M. The pace of the
others tells S; by how much M is longer is in the step times.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from profiler.plan import UNTIL_CROWDED
from profiler.points import CROWD_REQUESTS, CROWD_TOKENS, CrowdPoint, ServerLimits
from profiler.profile_parts import CrowdedRequest
from profiler.sampling import decoding, whole
from profiler.session import Session
from profiler.step_time import StepTimeModel, prefill_pairs
from profiler.target import MeasurementError

Array = npt.NDArray[np.float64]

_WIDTHS = (1 / 8, 1 / 3, 2 / 3, 1.0)
# A sample costs so much more than the iterations of its sequences: they start one after the other.
_MORE_TIME = 1.3
_FEWEST_REQUESTS = 4
# Of the costs of single requests the middle half is averaged: a pause of the machine is not the server's.
_CUT = 4


def crowd_points(limits: ServerLimits) -> tuple[CrowdPoint, ...]:
    """Crowds of four widths, up to all but one of the sequences that the server holds."""
    fitting = [width for width in range(1, limits.widest) if CrowdPoint(decode_seqs=width).fits(limits)]
    widest = max(fitting, default=0)
    widths = dict.fromkeys(round(share * widest) for share in _WIDTHS)
    return tuple(CrowdPoint(decode_seqs=width) for width in widths if width > 0)


def crowded_overheads_s(
    rows_s: Array, passing_s: Sequence[tuple[float, float]], prompt_adds_s: float, *, async_scheduling: bool
) -> list[float]:
    """Of each request what its TTFT was beyond the engine's part.

    `rows_s`: token times of the sequences that decode (sequences x tokens). `passing_s`: when each request was sent and
    had its only token, in order, which it got together with one of each sequence; those that passed while not all
    decoded are left out. `prompt_adds_s`: by how much its iteration is longer than the others. S is the median over the
    sequences of their pace from the first of these requests to the last: single gaps say little where a busy server
    sends tokens late and several at a time.
    Raises MeasurementError when too few requests passed.
    """
    passed = [
        (token_s - sent_s, at)
        for sent_s, token_s in passing_s
        if sent_s >= rows_s[:, 0].max() and (at := np.abs(rows_s - token_s).argmin(axis=1)).max() < rows_s.shape[1] - 1
    ]
    if len(passed) < _FEWEST_REQUESTS:
        raise MeasurementError(f"{len(passed)} requests passed, and {_FEWEST_REQUESTS} are wanted")
    everywhere, first, last = np.arange(len(rows_s)), passed[0][1], passed[-1][1]
    took_s = rows_s[everywhere, last] - rows_s[everywhere, first] - (len(passed) - 1) * prompt_adds_s
    step_s = float(np.median(took_s / (last - first)))
    engine_s = (2.5 if async_scheduling else 1.5) * step_s + prompt_adds_s
    return [ttft_s - engine_s for ttft_s, _ in passed]


class CrowdedRequests:
    """The samples of a session, those in its journal first. `step_time` tells how long iterations are about."""

    def __init__(self, session: Session, step_time: StepTimeModel, *, async_scheduling: bool) -> None:
        self._session = session
        self._step_time = step_time
        self._async_scheduling = async_scheduling

    async def measure(self) -> tuple[CrowdedRequest, ...]:
        """The plan's repeats at every width, in passes of different order; fewer, or none, when time is short."""
        session, recorded = self._session, self._recorded()
        points = crowd_points(session.limits)
        for repeat in range(session.plan.repeats):
            order = np.random.default_rng([session.plan.seed, 3, repeat]).permutation(len(points))
            due = [points[index] for index in order if (points[index].decode_seqs, repeat) not in recorded]
            if sum(map(self._cost_s, due)) > session.left_s(UNTIL_CROWDED):
                done = f"measured in {repeat} of {session.plan.repeats} repeats only" if repeat else "not measured"
                session.skip(f"request overhead under load was {done}: the time was too short; give it more budget")
                break
            for point in due:
                await self._measure(point, repeat)
        return self._points()

    async def _measure(self, point: CrowdPoint, repeat: int) -> None:
        """Into the journal; or a note why not."""
        session = self._session
        session.say("requests among others", f"{point}, repeat {repeat + 1}")
        began_s = session.now_s()
        try:
            found_s = await self._sample(point, repeat)
        except MeasurementError as error:
            await session.require_answers()
            session.skip(f"only some repeats of {point}: {error}")
            return
        session.journal.add(
            "crowd",
            decode_seqs=point.decode_seqs,
            repeat=repeat,
            overheads_s=found_s,
            cost_s=round(session.now_s() - began_s, 4),
        )

    def _recorded(self) -> dict[tuple[int, int], list[float]]:
        """Costs of single requests by width and repeat."""
        return {
            (entry["decode_seqs"], entry["repeat"]): entry["overheads_s"] for entry in self._session.journal.of("crowd")
        }

    def _points(self) -> tuple[CrowdedRequest, ...]:
        by_width: dict[int, list[float]] = {}
        for (decode_seqs, _), found_s in self._recorded().items():
            by_width.setdefault(decode_seqs, []).extend(found_s)
        return tuple(
            CrowdedRequest(decode_seqs=decode_seqs, overhead_s=_middle_mean(found_s), n=len(found_s))
            for decode_seqs, found_s in sorted(by_width.items())
        )

    def _step_s(self, point: CrowdPoint, prompt_tokens: int = 0) -> float:
        """Of an iteration half-way through the answers."""
        kv_tokens = point.decode_seqs * (point.context_tokens + point.output_tokens() / 2)
        return self._step_time.step_s(prompt_tokens, prefill_pairs(prompt_tokens), point.decode_seqs, kv_tokens)

    def _cost_s(self, point: CrowdPoint) -> float:
        return _MORE_TIME * point.output_tokens() * self._step_s(point)

    async def _sample(self, point: CrowdPoint, repeat: int) -> list[float]:
        session = self._session
        target, prompts = session.target, session.prompts
        rng = np.random.default_rng([session.plan.seed, 4, repeat, point.decode_seqs])
        # Two to four iterations: the moments are spread evenly over an iteration, and come in no order.
        parts = (rng.permutation(CROWD_REQUESTS) + rng.random(CROWD_REQUESTS)) / CROWD_REQUESTS
        waits_s = (rng.integers(2, 4, CROWD_REQUESTS) + parts) * self._step_s(point)
        passing = []
        async with asyncio.TaskGroup() as group:
            tasks = decoding(group, target, prompts, point, point.output_tokens())
            # Served in turn: when this one has its token, those sent before it decode.
            await target.complete(prompts.fresh(CROWD_TOKENS), 1, request_id=prompts.request_id())
            for wait_s in waits_s.tolist():
                await asyncio.sleep(wait_s)
                if any(task.done() for task in tasks):
                    break
                passing.append(await target.complete(prompts.fresh(CROWD_TOKENS), 1, request_id=prompts.request_id()))
        rows_s = np.array([whole(task.result(), point.output_tokens()) for task in tasks])
        passing_s = [(stream.sent_s, float(whole(stream, 1)[0])) for stream in passing]
        prompt_adds_s = self._step_s(point, CROWD_TOKENS) - self._step_s(point)
        return crowded_overheads_s(rows_s, passing_s, prompt_adds_s, async_scheduling=self._async_scheduling)


def _middle_mean(values: Sequence[float]) -> float:
    """The mean without the lowest and the highest quarter."""
    cut = len(values) // _CUT
    return float(np.mean(sorted(values)[cut : len(values) - cut]))

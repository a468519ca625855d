"""Samples of a running server: prefill alone, decode in its steady window, requests under load."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from profiler.profile import LoadPoint, StepSample
from profiler.step_time import prefill_pairs
from profiler.sweep import ClosedLoop, DecodePoint, PrefillPoint, ServerLimits, Sweep

Progress = Callable[[str], None]

# Ids that every vocabulary has, past the special ones at its beginning.
FIRST_TOKEN_ID, LAST_TOKEN_ID = 10, 1000
FEWEST_STEADY_STEPS = 8


class TokenStream(Protocol):
    """An answer as it arrived: one time per token, in the clock of `sent_s`; `error` None when all went well."""

    @property
    def sent_s(self) -> float: ...
    @property
    def first_token_s(self) -> float | None: ...
    @property
    def token_times_s(self) -> tuple[float, ...]: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def error(self) -> str | None: ...


class Target(Protocol):
    """Something to send a prompt of token ids and get token times from."""

    async def complete(
        self, prompt_token_ids: Sequence[int], max_tokens: int, *, request_id: str, priority: int | None = None
    ) -> TokenStream: ...


class MeasurementError(RuntimeError):
    """A point could not be measured; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """`notes` names every point that was left out, and why."""

    samples: tuple[StepSample, ...]
    points: tuple[LoadPoint, ...]
    notes: tuple[str, ...]


class _Prompts:
    """Random prompts, no two alike: a repeated one would be answered from the prefix cache."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._count = 0

    def draw(self, tokens: int) -> tuple[list[int], str]:
        """A prompt of `tokens` ids, and an id for its request."""
        self._count += 1
        ids: list[int] = self._rng.integers(FIRST_TOKEN_ID, LAST_TOKEN_ID, size=tokens).tolist()
        return ids, f"profile-{self._count}"

    def order(self, count: int) -> list[int]:
        order: list[int] = self._rng.permutation(count).tolist()
        return order


async def measure(target: Target, limits: ServerLimits, sweep: Sweep, progress: Progress) -> Measurements:
    """Measure every point of `sweep` that fits; one that fails is noted and left out.

    Raises MeasurementError when no prefill or no decode point is left.
    """
    fitting = sweep.points(limits)
    points = fitting.steps
    prompts = _Prompts(sweep.seed)
    samples: list[StepSample] = []
    notes: list[str] = []
    for repeat in range(-1, sweep.repeats):  # pass -1 warms up
        for position, index in enumerate(prompts.order(len(points))):
            point = points[index]
            progress(f"{'warm-up' if repeat < 0 else f'pass {repeat + 1}'}: {point} ({position + 1}/{len(points)})")
            try:
                if isinstance(point, PrefillPoint):
                    sample = await _prefill_sample(target, prompts, point, limits, max(repeat, 0))
                else:
                    sample = await _decode_sample(target, prompts, point, limits, max(repeat, 0))
            except MeasurementError as error:
                notes.append(f"left out: {point}, pass {repeat + 1}: {error}")
                continue
            if repeat >= 0:
                samples.append(sample)
    for kind in ("prefill", "decode"):
        if not any(sample.kind == kind for sample in samples):
            raise MeasurementError(
                f"no {kind} point could be measured: {notes[0] if notes else 'none fits the server'}"
            )
    load_points = []
    for loop in fitting.loops:
        progress(str(loop))
        load_points.append(await _load_point(target, prompts, loop))
    return Measurements(samples=tuple(samples), points=tuple(load_points), notes=tuple(notes))


def _whole(stream: TokenStream, asked_tokens: int) -> tuple[float, ...]:
    """Token times of an answer that has every token asked for. Raises MeasurementError for any other."""
    if stream.error is not None:
        raise MeasurementError(stream.error)
    if stream.first_token_s is None or len(stream.token_times_s) != asked_tokens:
        raise MeasurementError(f"asked for {asked_tokens} tokens, got {len(stream.token_times_s)}")
    return stream.token_times_s


async def _prefill_sample(
    target: Target, prompts: _Prompts, point: PrefillPoint, limits: ServerLimits, repeat: int
) -> StepSample:
    ids, request_id = prompts.draw(point.prompt_tokens)
    stream = await target.complete(ids, 1, request_id=request_id)
    first_token_s = _whole(stream, 1)[0]
    # A prompt longer than the budget takes several iterations; step_time is affine in what they share out.
    steps = -(-point.prompt_tokens // limits.max_num_batched_tokens)
    return StepSample(
        kind="prefill",
        point=str(point),
        repeat=repeat,
        prefill_tokens=point.prompt_tokens / steps,
        prefill_pairs=prefill_pairs(point.prompt_tokens) / steps,
        decode_seqs=0,
        kv_tokens=0,
        steps=steps,
        observed_s=first_token_s - stream.sent_s,
    )


async def _decode_sample(
    target: Target, prompts: _Prompts, point: DecodePoint, limits: ServerLimits, repeat: int
) -> StepSample:
    times_s = await _together(target, prompts, point)
    try:
        return decode_sample_from(times_s, point, repeat)
    except MeasurementError:
        # Where sequences start slowly, the first may end before the last begins: longer ones overlap.
        longer = replace(point, output_tokens=4 * point.output_tokens)
        if not limits.hold(longer.decode_seqs, longer.context_tokens + longer.output_tokens):
            raise
    return decode_sample_from(await _together(target, prompts, longer), longer, repeat)


async def _together(target: Target, prompts: _Prompts, point: DecodePoint) -> npt.NDArray[np.float64]:
    """Token times, sequences x tokens, of requests sent at the same moment."""
    drawn = [prompts.draw(point.context_tokens) for _ in range(point.decode_seqs)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(target.complete(ids, point.output_tokens, request_id=request_id))
            for ids, request_id in drawn
        ]
    return np.array([_whole(task.result(), point.output_tokens) for task in tasks])


def decode_sample_from(times_s: npt.NDArray[np.float64], point: DecodePoint, repeat: int) -> StepSample:
    """The steady part of `times_s` (sequences x tokens, s): after the last first token, until the first last one.

    The first gap of each sequence is left out. Several tokens may come in one chunk, so a sequence's pace is the
    tokens after its first chunk of the window over the time from that chunk to the last.
    Raises MeasurementError when the window holds too few iterations.
    """
    from_s, until_s = times_s[:, 0].max(), times_s[:, -1].min()
    paces_s, middles, counts = [], [], []
    for row in times_s:
        inside = np.flatnonzero((row > from_s) & (row <= until_s))
        later = inside[row[inside] > row[inside[0]]] if len(inside) else inside
        if len(later) < FEWEST_STEADY_STEPS:
            raise MeasurementError(
                f"the sequences ran together for {len(later)} tokens, and {FEWEST_STEADY_STEPS} are wanted; "
                "raise the sweep's decode_steps"
            )
        paces_s.append((row[later[-1]] - row[inside[0]]) / len(later))
        middles.append((later[0] + later[-1]) / 2)
        counts.append(len(later))
    steps = round(float(np.median(counts)))
    return StepSample(
        kind="decode",
        point=str(point),
        repeat=repeat,
        prefill_tokens=0,
        prefill_pairs=0,
        decode_seqs=point.decode_seqs,
        kv_tokens=point.decode_seqs * point.context_tokens + float(np.sum(middles)),
        steps=steps,
        observed_s=float(np.median(paces_s)) * steps,
    )


async def _load_point(target: Target, prompts: _Prompts, loop: ClosedLoop) -> LoadPoint:
    left = iter(range(loop.requests))
    streams: list[TokenStream] = []

    async def keep_one_in_flight() -> None:
        for _ in left:  # shared by all workers: each request is taken once
            ids, request_id = prompts.draw(loop.prompt_tokens)
            streams.append(await target.complete(ids, loop.output_tokens, request_id=request_id))

    async with asyncio.TaskGroup() as group:
        for _ in range(loop.concurrency):
            group.create_task(keep_one_in_flight())
    whole = [
        (stream.sent_s, stream.token_times_s)
        for stream in streams
        if stream.error is None and len(stream.token_times_s) == loop.output_tokens
    ]
    if not whole:
        raise MeasurementError(f"{loop}: all {len(streams)} requests failed: {streams[0].error or 'too few tokens'}")
    ttft = np.array([times[0] - sent for sent, times in whole])
    tpot = np.array([(times[-1] - times[0]) / (len(times) - 1) for _, times in whole if len(times) > 1])
    e2e = np.array([times[-1] - sent for sent, times in whole])
    elapsed_s = max(times[-1] for _, times in whole) - min(stream.sent_s for stream in streams)
    return LoadPoint(
        concurrency=loop.concurrency,
        prompt_tokens=loop.prompt_tokens,
        output_tokens=loop.output_tokens,
        completed=len(whole),
        failed=len(streams) - len(whole),
        ttft_p50_s=_quantile(ttft, 0.5),
        ttft_p95_s=_quantile(ttft, 0.95),
        tpot_p50_s=_quantile(tpot, 0.5),
        tpot_p95_s=_quantile(tpot, 0.95),
        e2e_p50_s=_quantile(e2e, 0.5),
        e2e_p95_s=_quantile(e2e, 0.95),
        total_tokens_per_s=len(whole) * (loop.prompt_tokens + loop.output_tokens) / elapsed_s,
    )


def _quantile(values: npt.NDArray[np.float64], q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None

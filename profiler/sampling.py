"""From tokens as they arrive to a sample of iterations, for each kind of point."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from profiler.points import MIXED_PROMPTS, CrowdPoint, DecodePoint, MixedPoint, PrefillPoint, ServerLimits, StepPoint
from profiler.profile_parts import StepSample
from profiler.random_prompts import RandomPrompts
from profiler.step_time import prefill_pairs
from profiler.target import MeasurementError, Target, TokenStream

Array = npt.NDArray[np.float64]

FEWEST_STEADY_STEPS = 8
# Where sequences start slowly, the first may end before the last begins: then longer answers are asked for.
_LONGER = 4
# Tokens of the prompt by which a mixed point learns that its sequences decode.
_PROBE_TOKENS = 16


async def measure_point(
    target: Target, prompts: RandomPrompts, point: StepPoint, limits: ServerLimits, repeat: int
) -> StepSample:
    """One sample of `point`. Raises MeasurementError when the server's answers do not give one."""
    match point:
        case PrefillPoint():
            return await _prefill(target, prompts, point, limits, repeat)
        case DecodePoint():
            return await _decode(target, prompts, point, limits, repeat)
        case MixedPoint():
            return await _mixed(target, prompts, point, limits, repeat)


def whole(stream: TokenStream, asked_tokens: int) -> Array:
    """Token times of an answer that has every token asked for. Raises MeasurementError for any other."""
    if stream.error is not None:
        raise MeasurementError(stream.error)
    if len(stream.token_times_s) != asked_tokens:
        raise MeasurementError(f"asked for {asked_tokens} tokens, got {len(stream.token_times_s)}")
    return np.asarray(stream.token_times_s, dtype=np.float64)


async def _prefill(
    target: Target, prompts: RandomPrompts, point: PrefillPoint, limits: ServerLimits, repeat: int
) -> StepSample:
    prompt_tokens = prompts.about(point.prompt_tokens, point.longest_alike(limits))
    stream = await target.complete(prompts.fresh(prompt_tokens), 1, request_id=prompts.request_id())
    steps = point.steps(limits)
    return StepSample(
        kind="prefill",
        point=str(point),
        repeat=repeat,
        # The iterations of one prompt differ; a model that is affine in what they share out sees their mean.
        prefill_tokens=prompt_tokens / steps,
        prefill_pairs=prefill_pairs(prompt_tokens) / steps,
        decode_seqs=0,
        kv_tokens=0,
        steps=steps,
        observed_s=whole(stream, 1)[0] - stream.sent_s,
    )


async def _decode(
    target: Target, prompts: RandomPrompts, point: DecodePoint, limits: ServerLimits, repeat: int
) -> StepSample:
    output_tokens = point.output_tokens(limits)
    times_s = await _together(target, prompts, point, output_tokens)
    try:
        return decode_sample(times_s, point, repeat)
    except MeasurementError:
        output_tokens *= _LONGER
        if not limits.hold(point.decode_seqs, point.context_tokens + output_tokens):
            raise
    return decode_sample(await _together(target, prompts, point, output_tokens), point, repeat)


async def _together(target: Target, prompts: RandomPrompts, point: DecodePoint, output_tokens: int) -> Array:
    """Token times, sequences x tokens, of requests sent at the same moment."""
    async with asyncio.TaskGroup() as group:
        tasks = decoding(group, target, prompts, point, output_tokens)
    return np.array([whole(task.result(), output_tokens) for task in tasks])


def decoding(
    group: asyncio.TaskGroup,
    target: Target,
    prompts: RandomPrompts,
    point: DecodePoint | MixedPoint | CrowdPoint,
    output_tokens: int,
) -> list[asyncio.Task[TokenStream]]:
    """The decoding sequences of a point, sent now; their prompts are the same at every repeat."""
    return [
        group.create_task(
            target.complete(
                prompts.repeated(point.context_tokens, f"{point} {sequence}"),
                output_tokens,
                request_id=prompts.request_id(),
            )
        )
        for sequence in range(point.decode_seqs)
    ]


def decode_sample(times_s: Array, point: DecodePoint, repeat: int) -> StepSample:
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
                f"the sequences ran together for {len(later)} tokens, and {FEWEST_STEADY_STEPS} are wanted"
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


async def _mixed(
    target: Target, prompts: RandomPrompts, point: MixedPoint, limits: ServerLimits, repeat: int
) -> StepSample:
    output_tokens = point.output_tokens(limits)
    async with asyncio.TaskGroup() as group:
        tasks = decoding(group, target, prompts, point, output_tokens)
        # Served in turn: when this one has its token, those sent before it decode.
        await target.complete(prompts.fresh(_PROBE_TOKENS), 1, request_id=prompts.request_id())
        lengths = [prompts.about(point.prompt_tokens, point.longest_alike(limits)) for _ in range(MIXED_PROMPTS)]
        passing = [
            await target.complete(prompts.fresh(length), 1, request_id=prompts.request_id()) for length in lengths
        ]
    rows = [whole(task.result(), output_tokens) for task in tasks]
    passing_s = [(stream.sent_s, whole(stream, 1)[0]) for stream in passing]
    passed = replace(point, prompt_tokens=sorted(lengths)[len(lengths) // 2])
    return mixed_sample(rows, passing_s, passed, limits, repeat).model_copy(update={"point": str(point)})


def mixed_sample(
    rows_s: Sequence[Array],
    passing_s: Sequence[tuple[float, float]],
    point: MixedPoint,
    limits: ServerLimits,
    repeat: int,
) -> StepSample:
    """The iterations in which a prompt passed by, as the decoding sequences (`rows_s`: their token times) saw them.

    `passing_s`: when each prompt was sent and had its first token. That token comes with one of each decoding
    sequence, out of the last of the prompt's iterations; those before it are the gaps before. The median over all
    sequences and prompts is the sample.
    Raises MeasurementError when no prompt passed while the sequences decoded.
    """
    steps = point.steps(limits)
    spans_s, progress = [], []
    for row in rows_s:
        for sent_s, first_token_s in passing_s:
            last = int(np.abs(row - first_token_s).argmin())
            before = last - steps
            # The prompt was sent before its first iteration began, and the sequence must not have ended meanwhile.
            if before >= 0 and last < len(row) - 1 and sent_s <= row[before] < row[last]:
                spans_s.append(row[last] - row[before])
                progress.append((before + last) / 2)
    if not spans_s:
        raise MeasurementError("no prompt passed while the other sequences decoded")
    return StepSample(
        kind="mixed",
        point=str(point),
        repeat=repeat,
        prefill_tokens=point.prompt_tokens / steps,
        prefill_pairs=prefill_pairs(point.prompt_tokens) / steps,
        decode_seqs=point.decode_seqs,
        kv_tokens=point.decode_seqs * (point.context_tokens + float(np.mean(progress))),
        steps=steps,
        observed_s=float(np.median(spans_s)),
    )

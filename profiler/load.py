"""Requests under load, closed or open loop: what each of them took, and what the server did meanwhile."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiler.points import ClosedLoop, OpenLoop, ServerLimits
from profiler.profile_parts import Energy, LatencySlo, LoadPoint, Percentiles
from profiler.random_prompts import RandomPrompts
from profiler.target import MeasurementError, Target, TokenStream

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """One request under load. Times in s; `tpot_s` is (e2e_s - ttft_s) / (output_tokens - 1), None for one token."""

    load: str
    request: int
    prompt_tokens: int
    output_tokens: int
    sent_s: float
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    error: str | None


REQUEST_UNITS = {
    "load": "",
    "request": "",
    "prompt_tokens": "tokens",
    "output_tokens": "tokens",
    "sent_s": "s",
    "ttft_s": "s",
    "tpot_s": "s per token",
    "e2e_s": "s",
    "error": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load as it went: its point, and one row per request in the order of sending."""

    point: LoadPoint
    rows: tuple[RequestRow, ...]


async def run_closed_loop(
    target: Target, prompts: RandomPrompts, loop: ClosedLoop, slo: LatencySlo | None = None
) -> Load:
    """Keep `concurrency` requests in flight until all are sent. Raises MeasurementError when every one failed.

    The steady window begins when every slot has had a first token, and ends when the first slot runs dry.
    """
    left = iter(range(loop.requests))
    streams: list[TokenStream] = []

    async def keep_one_in_flight() -> None:
        for _ in left:  # shared by all slots: each request is taken once
            streams.append(
                await target.complete(
                    prompts.fresh(loop.prompt_tokens), loop.output_tokens, request_id=prompts.request_id()
                )
            )

    async with asyncio.TaskGroup() as group:
        for _ in range(loop.concurrency):
            group.create_task(keep_one_in_flight())
    streams.sort(key=lambda stream: stream.sent_s)
    good = [stream for stream in streams if stream.error is None]
    # The first of each slot, for they are sent at once.
    from_s = max(
        (stream.token_times_s[0] for stream in streams[: loop.concurrency] if stream.error is None), default=0.0
    )
    # When the last request was sent, every slot was busy; the next to end leaves one empty.
    last_sent_s = streams[-1].sent_s
    until_s = min((s.token_times_s[-1] for s in good if s.token_times_s[-1] > last_sent_s), default=last_sent_s)
    lengths = [(loop.prompt_tokens, loop.output_tokens)] * len(streams)
    return _load(str(loop), streams, lengths, from_s, until_s, slo, concurrency=loop.concurrency)


async def run_open_loop(
    target: Target,
    prompts: RandomPrompts,
    loop: OpenLoop,
    limits: ServerLimits,
    now_s: Callable[[], float],
    seed: int,
    slo: LatencySlo | None = None,
) -> Load:
    """Send requests at the times of a Poisson process, whatever becomes of them, and wait for all.

    Requests of the first `filling_s` are sent and not counted. Raises MeasurementError when every one failed.
    """
    # The same arrivals and lengths at every rate, only closer together: rates differ by nothing else. A few hundred
    # gaps are off their mean by several per cent, so they are scaled: the rate is the one that was asked for.
    rng = np.random.default_rng(seed)
    gaps_s = rng.exponential(size=loop.requests)
    gaps_s /= gaps_s[1:].mean() * loop.requests_per_s if loop.requests > 1 else 1.0
    lengths = [
        _fitting(prompt, output, limits)
        for prompt, output in zip(
            _lengths(rng, loop.prompt_tokens, loop.prompt_cv, loop.requests),
            _lengths(rng, loop.output_tokens, loop.output_cv, loop.requests),
            strict=True,
        )
    ]
    # Drawn before the first is sent: a long prompt would delay the one after it.
    ready = [(prompts.fresh(prompt), output) for prompt, output in lengths]
    start_s = now_s()
    due_s = start_s + np.cumsum(gaps_s) - gaps_s[0]
    async with asyncio.TaskGroup() as group:
        tasks = []
        for at_s, (ids, output) in zip(due_s, ready, strict=True):
            await asyncio.sleep(max(0.0, at_s - now_s()))
            tasks.append(group.create_task(target.complete(ids, output, request_id=prompts.request_id())))
    streams = [task.result() for task in tasks]
    from_s = due_s[0] + loop.filling_s
    return _load(str(loop), streams, lengths, from_s, due_s[-1], slo, requests_per_s=loop.requests_per_s)


def _lengths(rng: np.random.Generator, mean: float, cv: float, count: int) -> list[int]:
    """Gamma-distributed lengths of `mean` tokens, 1 at least; all alike for a coefficient of variation of 0."""
    if cv == 0:
        return [max(1, round(mean))] * count
    drawn = rng.gamma(1 / cv**2, mean * cv**2, size=count)
    return [max(1, round(length)) for length in drawn]


def _fitting(prompt_tokens: int, output_tokens: int, limits: ServerLimits) -> tuple[int, int]:
    """Lengths cut to the server's context: the answer keeps half of it at least."""
    context = min(limits.max_model_len, limits.longest_prompt)
    output = min(output_tokens, max(context // 2, context - prompt_tokens))
    return min(prompt_tokens, context - output), output


def _load(
    name: str,
    streams: Sequence[TokenStream],
    lengths: Sequence[tuple[int, int]],
    from_s: float,
    until_s: float,
    slo: LatencySlo | None,
    *,
    concurrency: int | None = None,
    requests_per_s: float | None = None,
) -> Load:
    rows = [
        _row(name, number, stream, prompt, output)
        for number, (stream, (prompt, output)) in enumerate(zip(streams, lengths, strict=True))
    ]
    whole = [(stream, row) for stream, row in zip(streams, rows, strict=True) if row.error is None]
    if not whole:
        raise MeasurementError(f"{name}: all {len(rows)} requests failed: {rows[0].error}")
    # Too short a run has no steady part: then the whole of it counts, ends included.
    counted = [(stream, row) for stream, row in whole if stream.sent_s >= from_s]
    if not counted or until_s <= from_s:
        counted = whole
        from_s = min(stream.sent_s for stream in streams)
        until_s = max(stream.token_times_s[-1] for stream, _ in whole)
    window_s = until_s - from_s
    tokens_out = sum(_within(stream.token_times_s, from_s, until_s) for stream, _ in whole)
    ended = sum(from_s < stream.token_times_s[-1] <= until_s for stream, _ in whole)
    begun = sum(row.prompt_tokens for stream, row in whole if from_s < stream.token_times_s[0] <= until_s)
    attainment = None if slo is None else _attainment(slo, rows, {row.request for _, row in counted})
    point = LoadPoint(
        concurrency=concurrency,
        requests_per_s=requests_per_s,
        prompt_tokens=float(np.mean([prompt for prompt, _ in lengths])),
        output_tokens=float(np.mean([output for _, output in lengths])),
        completed=len(whole),
        failed=len(rows) - len(whole),
        ttft_s=percentiles([row.ttft_s for _, row in counted]),
        tpot_s=percentiles([row.tpot_s for _, row in counted]),
        e2e_s=percentiles([row.e2e_s for _, row in counted]),
        window_s=window_s,
        completed_per_s=ended / window_s,
        prompt_tokens_per_s=begun / window_s,
        output_tokens_per_s=tokens_out / window_s,
        slo=slo,
        slo_attainment=attainment,
        goodput_per_s=None if attainment is None else attainment * ended / window_s,
    )
    return Load(point=point, rows=tuple(rows))


def with_energy(load: Load, energy: Energy | None) -> Load:
    """The load with what its GPUs took meanwhile."""
    return Load(point=load.point.model_copy(update={"energy": energy}), rows=load.rows)


def _row(name: str, number: int, stream: TokenStream, prompt_tokens: int, output_tokens: int) -> RequestRow:
    times = stream.token_times_s
    error = stream.error
    if error is None and len(times) != output_tokens:
        error = f"asked for {output_tokens} tokens, got {len(times)}"
    good = error is None
    return RequestRow(
        load=name,
        request=number,
        prompt_tokens=prompt_tokens,
        output_tokens=len(times),
        sent_s=stream.sent_s,
        ttft_s=times[0] - stream.sent_s if good else None,
        tpot_s=(times[-1] - times[0]) / (len(times) - 1) if good and len(times) > 1 else None,
        e2e_s=times[-1] - stream.sent_s if good else None,
        error=error,
    )


def percentiles(values: Sequence[float | None]) -> Percentiles | None:
    """Percentiles of what is known among `values`; None when nothing is."""
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return None
    p50, p90, p95, p99 = (float(q) for q in np.quantile(known, (0.5, 0.9, 0.95, 0.99)))
    return Percentiles(p50=p50, p90=p90, p95=p95, p99=p99, mean=float(known.mean()), n=len(known))


def _within(times_s: Sequence[float], from_s: float, until_s: float) -> int:
    times = np.asarray(times_s)
    return int(((times > from_s) & (times <= until_s)).sum())


def _attainment(slo: LatencySlo, rows: Sequence[RequestRow], counted: set[int]) -> float:
    """Share of the counted requests, and of all that failed, that met the SLO."""
    judged = [row for row in rows if row.request in counted or row.error is not None]
    return sum(_meets(slo, row) for row in judged) / len(judged)


def _meets(slo: LatencySlo, row: RequestRow) -> bool:
    if row.error is not None:
        return False
    limits = ((row.ttft_s, slo.ttft_s), (row.tpot_s, slo.tpot_s))
    return all(limit is None or value is None or value <= limit for value, limit in limits)

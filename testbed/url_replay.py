"""A trace replayed against a running server, by one process or several, into one table of completions."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results.atomic_file import replace_file
from results.parts import TableWriter, table_batches
from results.recorder import completion_row
from results.schema import COMPLETIONS
from testbed.steady_interpreter import steady_interpreter
from workloads.client import StreamResult
from workloads.clock import RunClock
from workloads.completion import Completion
from workloads.optional_columns import NO_SESSION
from workloads.processes import Start, run_in_processes
from workloads.samples import Samples
from workloads.self_watch import ClientHealth
from workloads.sessions import replay_plan
from workloads.trace import Trace
from workloads.url_replay import ReplayTarget, UrlReplay

# Rows are kept until the end: writing them out in between would hold up the schedule.
ROWS_IN_MEMORY = 1_000_000
TOKEN_TIMES_FILE = "token_times.parquet"
TOKEN_TIMES = pa.schema([("request_id", pa.int64()), ("token_times_s", pa.list_(pa.float64()))])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPart:
    """What one process replays: the rows of `trace_model` (None: all) that fall to `process` of `processes`."""

    trace: Path
    trace_model: str | None
    target: ReplayTarget
    process: int
    processes: int
    folder: Path

    @property
    def own_folder(self) -> Path:
        return self.folder / f"process-{self.process}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCourse:
    """How a process's part went. `end_s` is when its last request ended, `elapsed_s` when it was over."""

    handed_over: int
    retried: int
    end_s: float
    elapsed_s: float
    lateness_s: Samples
    lag_s: Samples
    cpu_s: float
    cpu_share_max: float
    interrupted: bool
    processes: int = 1

    @property
    def health(self) -> ClientHealth:
        return ClientHealth(
            lateness_s=self.lateness_s.quantiles(),
            lag_s=self.lag_s.quantiles(),
            cpu_s=self.cpu_s,
            cpu_share=self.cpu_s / self.processes / self.elapsed_s if self.elapsed_s > 0 else 0.0,
            cpu_share_max=self.cpu_share_max,
        )


def replay_to_url(
    trace: Path, trace_model: str | None, target: ReplayTarget, processes: int, folder: Path
) -> ReplayCourse:
    """Replay and write `folder`/completions.parquet, in the order in which requests ended; with `target.token_times`
    token_times.parquet too. Interrupted, what was done is written.

    Raises ProcessDied; OSError when the folder cannot be written.
    """
    parts = [
        ReplayPart(
            trace=trace,
            trace_model=trace_model,
            target=target,
            process=process,
            processes=processes,
            folder=folder,
        )
        for process in range(processes)
    ]
    courses = run_in_processes(replay_part, parts)
    _merge(folder, [part.own_folder for part in parts])
    return _together(courses)


async def replay_part(part: ReplayPart, start: Start) -> ReplayCourse:
    """One process's part, recorded into a folder of its own."""
    trace = share_of(rows_of_model(Trace.read(part.trace), part.trace_model), part.process, part.processes)
    writer = TableWriter(part.own_folder, COMPLETIONS, ROWS_IN_MEMORY)
    token_times: dict[int, Sequence[float]] = {}
    end_s = 0.0

    def ended(completion: Completion, result: StreamResult | None) -> None:
        nonlocal end_s
        end_s = max(end_s, completion.last_token_s)
        writer.row(completion_row(completion))
        if result is not None and part.target.token_times:
            token_times[completion.request.request_id] = result.token_times_s

    clock = RunClock()
    replay = UrlReplay(replay_plan(trace), part.target, clock, ended)
    interrupted = False
    with steady_interpreter():
        try:
            clock.start(start())
            replay.watch.restart()
            await replay.run()
        except asyncio.CancelledError:
            interrupted = True
        elapsed_s = clock.now_s()
        health = replay.watch.health(replay.replay.report().lateness_s)
    writer.close()
    if part.target.token_times:
        _write_token_times(part.own_folder / TOKEN_TIMES_FILE, token_times)
    return ReplayCourse(
        handed_over=replay.replay.handed_over,
        retried=replay.retried,
        end_s=end_s,
        elapsed_s=elapsed_s,
        lateness_s=replay.replay.lateness_s,
        lag_s=replay.watch.lag_s,
        cpu_s=health.cpu_s,
        cpu_share_max=health.cpu_share_max,
        interrupted=interrupted,
    )


def rows_of_model(trace: Trace, model: str | None) -> Trace:
    """The requests of one model; all of them for None."""
    return (
        trace if model is None else Trace(table=trace.rows(trace.labels("model").rows(model)), metadata=trace.metadata)
    )


def share_of(trace: Trace, process: int, processes: int) -> Trace:
    """Every `processes`-th request; a session stays whole, with the process of its number."""
    falls_to = np.arange(len(trace)) % processes
    if "session" in trace.optional:
        session = trace.numbers("session")
        falls_to = np.where(session == NO_SESSION, falls_to, session % processes)
    return Trace(table=trace.rows(falls_to == process), metadata=trace.metadata)


def _merge(folder: Path, parts: Sequence[Path]) -> None:
    """One table of all parts', in the order of the last token."""
    rows = pa.concat_tables(
        pa.Table.from_batches(table_batches(part, COMPLETIONS), COMPLETIONS.schema) for part in parts
    )
    rows = rows.unify_dictionaries().sort_by([("last_token_s", "ascending"), ("request_id", "ascending")])
    replace_file(folder / f"{COMPLETIONS.name}.parquet", lambda path: pq.write_table(rows, path, compression="zstd"))
    times = [pq.read_table(part / TOKEN_TIMES_FILE) for part in parts if (part / TOKEN_TIMES_FILE).exists()]
    if times:
        joined = pa.concat_tables(times).sort_by("request_id")
        replace_file(folder / TOKEN_TIMES_FILE, lambda path: pq.write_table(joined, path, compression="zstd"))
    for part in parts:
        shutil.rmtree(part)


def _write_token_times(path: Path, token_times: dict[int, Sequence[float]]) -> None:
    ids = pa.array(list(token_times), pa.int64())
    lengths = np.fromiter((len(times) for times in token_times.values()), np.int32, len(token_times))
    flat = np.concatenate([np.asarray(times, np.float64) for times in token_times.values()] or [np.empty(0)])
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int32)))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat))
    pq.write_table(pa.table([ids, lists], schema=TOKEN_TIMES), path, compression="zstd")


def _together(courses: Sequence[ReplayCourse]) -> ReplayCourse:
    """Of all processes: the same clock counts for all, and the busiest of them is the one to look at."""
    lateness_s, lag_s = Samples(), Samples()
    for course in courses:
        lateness_s.extend(course.lateness_s)
        lag_s.extend(course.lag_s)
    return ReplayCourse(
        handed_over=sum(course.handed_over for course in courses),
        retried=sum(course.retried for course in courses),
        end_s=max(course.end_s for course in courses),
        elapsed_s=max(course.elapsed_s for course in courses),
        lateness_s=lateness_s,
        lag_s=lag_s,
        cpu_s=sum(course.cpu_s for course in courses),
        cpu_share_max=max(course.cpu_share_max for course in courses),
        interrupted=any(course.interrupted for course in courses),
        processes=len(courses),
    )

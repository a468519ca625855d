"""Jobs over local processes: each worker does one at a time, and one that dies takes only its job with it."""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Generic, TypeVar

from testbed.bad_input import BadInput, CommandFailed
from workloads.worker_process import begin_worker

Job = TypeVar("Job")
Result = TypeVar("Result")

# An interrupted worker gets this long to stop what it runs.
STOP_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[Job, Result]):
    """A job's end: `result`, or None and `error` in one line."""

    job: Job
    result: Result | None
    error: str = ""


@dataclass(slots=True)
class _Worker(Generic[Job]):
    process: SpawnProcess
    connection: Connection
    job: Job | None = None


def done_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
    started: Callable[[Job], None] = lambda _: None,
) -> Generator[Done[Job, Result]]:
    """Every job's end, as they end; `started` hears of each when it is handed to one of so many `processes`.

    `work` is a module's function. Its errors are the job's; so is the death of its process, which is replaced. Closing
    the generator (Ctrl-C does) stops what is under way. With one process the jobs are done in this one.
    """
    if processes == 1:
        for here in jobs:
            started(here)
            result, error = _answer(work, here)
            yield Done(job=here, result=result, error=error)
        return
    waiting = list(reversed(jobs))
    workers: list[_Worker[Job]] = []
    try:
        while waiting or any(worker.job is not None for worker in workers):
            while waiting and len(workers) < processes:
                workers.append(_begun(work))
            for worker in workers:
                if worker.job is None and waiting:
                    worker.job = waiting.pop()
                    with suppress(OSError):  # a dead one is found below
                        worker.connection.send(worker.job)
                    started(worker.job)
            busy = {worker.connection: worker for worker in workers if worker.job is not None}
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker = busy[connection]
                job, worker.job = worker.job, None
                assert job is not None, "busy"
                try:
                    result, error = connection.recv()
                except (EOFError, OSError):
                    workers.remove(worker)
                    connection.close()
                    worker.process.join(STOP_S)
                    result, error = None, f"its process died (exit code {worker.process.exitcode})"
                yield Done(job=job, result=result, error=error)
    finally:
        for worker in workers:
            worker.connection.close()
            if worker.job is not None:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(STOP_S)
            if worker.process.is_alive():
                worker.process.kill()


def _begun(work: Callable[[Job], Result]) -> _Worker[Job]:
    # Not forked: a copy of a process with threads (Arrow's, BLAS's) may hold their locks for ever.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _serve(connection: Connection, work: Callable[[Job], Result]) -> None:
    begin_worker()  # of a Ctrl-C the parent tells who is at work, with a SIGTERM
    while True:
        try:
            job: Job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = _answer(work, job)
        except KeyboardInterrupt:
            return
        with suppress(OSError):  # nobody is left to hear it
            connection.send(answer)


def _answer(work: Callable[[Job], Result], job: Job) -> tuple[Result | None, str]:
    """What `work` returns, or why it did not: whatever that is, it is this job's alone."""
    try:
        return work(job), ""
    except Exception as error:
        kind = "" if isinstance(error, BadInput | CommandFailed) else f"{type(error).__name__}: "
        return None, kind + " ".join(str(error).split())

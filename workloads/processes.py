"""The same work in several processes that begin at the same moment of one clock."""

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from workloads.real_time_loop import real_time_loop
from workloads.worker_process import begin_worker

Part = TypeVar("Part")
Result = TypeVar("Result")
Start = Callable[[], float]
Work = Callable[[Part, Start], Awaitable[Result]]

# From the moment when all are ready to time 0.
LEAD_S = 0.2


class ProcessDied(RuntimeError):
    """A process ended without its result; one line for the user."""


def run_in_processes(work: Work[Part, Result], parts: Sequence[Part]) -> list[Result]:
    """What `work(part, start)` returns for each part, each in a process with an event loop of its own; one part alone
    runs in this one.

    `work` calls `start` once it is ready: that returns, in every process at once, the time of the loop's clock that is
    to be time 0, a moment ahead. Interrupted (Ctrl-C), `work` is cancelled and is to return what it has.
    Raises ProcessDied when one ends otherwise.
    """
    if len(parts) == 1:
        with asyncio.Runner(loop_factory=real_time_loop) as runner:
            return [runner.run(_alone(work, parts[0]))]
    # Not forked: a copy of a process with threads (Arrow's, BLAS's) may hold their locks for ever.
    context = multiprocessing.get_context("spawn")
    connections: list[Connection] = []
    processes = []
    try:
        for part in parts:
            ours, theirs = context.Pipe()
            process = context.Process(target=_child, args=(theirs, work, part), daemon=True)
            process.start()
            theirs.close()
            connections.append(ours)
            processes.append(process)
        return _conduct(connections)
    finally:
        for connection in connections:
            connection.close()  # who still runs stops
        for process in processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()


async def _alone(work: Work[Part, Result], part: Part) -> Result:
    now_s = asyncio.get_running_loop().time
    return await work(part, lambda: now_s() + LEAD_S)


def _conduct(connections: list[Connection]) -> list[Any]:
    """Wait until all are ready, start them, wait for all results."""
    results: dict[Connection, Any] = {}
    ready_s: list[float] = []
    while len(results) < len(connections):
        try:
            for connection in wait([c for c in connections if c not in results]):
                assert isinstance(connection, Connection)
                message, content = _receive(connection)
                if message == "result":
                    results[connection] = content
                else:
                    ready_s.append(content)
                    if len(ready_s) == len(connections):
                        for each in connections:
                            each.send(max(ready_s) + LEAD_S)
        except KeyboardInterrupt:
            for connection in connections:
                with suppress(OSError):
                    connection.send(None)
    return [results[connection] for connection in connections]


def _receive(connection: Connection) -> tuple[str, Any]:
    try:
        message: tuple[str, Any] = connection.recv()
    except (EOFError, OSError):
        raise ProcessDied("a process of the load generator died; its own message is above") from None
    return message


def _child(connection: Connection, work: Work[Part, Result], part: Part) -> None:
    begin_worker()  # of a Ctrl-C the parent tells, once
    with asyncio.Runner(loop_factory=real_time_loop) as runner:
        result = runner.run(_led(connection, work, part))
    with suppress(OSError):  # nobody is left to hear it
        connection.send(("result", result))


async def _led(connection: Connection, work: Work[Part, Result], part: Part) -> Result:
    """The work, cancelled when the parent says so or is no more."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def start() -> float:
        try:
            connection.send(("ready", loop.time()))
            time_0_s: float | None = connection.recv()
        except (EOFError, OSError):
            time_0_s = None
        if time_0_s is None:
            raise asyncio.CancelledError
        loop.add_reader(connection.fileno(), stop)
        return time_0_s

    def stop() -> None:
        loop.remove_reader(connection.fileno())
        task.cancel()

    return await work(part, start)

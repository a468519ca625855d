"""`Server.begin` for a server whose answer is awaited."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from testbed.server import BreakOff, Ended, Received
from workloads.completion import Completion


def begin_in(
    tasks: asyncio.TaskGroup,
    send: Callable[[], Coroutine[Any, Any, Completion]],
    ended: Ended,
    received: Callable[[], Received],
) -> BreakOff:
    """Await `send` in a task of its own and hand what it returns to `ended`; breaking off cancels the task. `received`
    tells what has come until then."""

    async def to_its_end() -> None:
        ended(await send())

    task = tasks.create_task(to_its_end())

    def break_off() -> Received:
        task.cancel()
        return received()

    return break_off

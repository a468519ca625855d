"""`Server.begin` for a server whose answer is awaited."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from testbed.server import BreakOff, Ended
from workloads.completion import Completion


def begin_in(tasks: asyncio.TaskGroup, send: Callable[[], Coroutine[Any, Any, Completion]], ended: Ended) -> BreakOff:
    """Await `send` in a task of its own and hand what it returns to `ended`; breaking off cancels the task."""

    async def to_its_end() -> None:
        ended(await send())

    return tasks.create_task(to_its_end()).cancel

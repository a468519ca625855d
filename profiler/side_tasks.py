"""Tasks that run beside a body of code and end with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def side_tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup whose tasks the body ends or has ended, and which lets the body's own exception out as it is.

    A bare TaskGroup would wrap it, and whoever waits for it would miss it. A side task that fails does raise a group.
    """
    failed: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        try:
            yield tasks
        except Exception as error:
            failed = error
    if failed is not None:
        raise failed

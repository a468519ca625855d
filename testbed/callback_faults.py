"""Faults in callbacks: requests are served by them, not by tasks, so what one raises has no task to end."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class CallbackFaults:
    """A context manager of the running loop: whatever one of its callbacks raises meanwhile, `first` raises."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[None] = self._loop.create_future()
        self._before: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    def __enter__(self) -> Self:
        self._before = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.set_exception_handler(self._before)

    async def first(self) -> None:
        """Wait, forever unless a callback raises; then raise that."""
        await self._first

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "handle" in context and not self._first.done():
            self._first.set_exception(context["exception"])
        elif self._before is not None:
            self._before(loop, context)
        else:
            loop.default_exception_handler(context)

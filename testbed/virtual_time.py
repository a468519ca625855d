"""An event loop whose clock jumps to the next timer instead of waiting.

`asyncio.sleep`, timeouts and TaskGroups work as ever; only nothing waits. Executor calls run at once, so how fast the
machine computes never changes a result. There are no sockets and no subprocesses in virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from testbed.agenda import Agenda, Timer

T = TypeVar("T")


class VirtualDeadlock(RuntimeError):
    """Every task waits and no timer is set: virtual time has nowhere to go."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Virtual time starts at 0 and moves only when every task waits: `while not done: await sleep(0)` never waits and
    keeps every timer from its turn. Timers of one moment run in the order in which they were set; one that is set for a
    moment that has passed is one of now.

    Raises VirtualDeadlock out of `run_until_complete` when every task waits and no timer is set.
    """

    # Filled by BaseEventLoop: what is to run now.
    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._agenda = Agenda(self._failed)
        # The agenda's own: no call of Python between.
        self.time = self._agenda.time  # type: ignore[method-assign]
        self.call_at = self._agenda.call_at  # type: ignore[method-assign, assignment] # a Timer does for a TimerHandle

    def stop(self) -> None:
        super().stop()
        self._agenda.stopping = True

    def _run_once(self) -> None:
        """One turn of the loop, which BaseEventLoop takes until it is stopped: run what is ready, in order; when
        nothing is, go from one timer to the next until something is."""
        ready, agenda = self._ready, self._agenda
        if not ready and not self._stopping:
            agenda.stopping = False
            agenda.run(ready)
            if not ready and not self._stopping:
                raise VirtualDeadlock(self._describe_deadlock())
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _failed(self, timer: Timer, error: BaseException) -> None:
        self.call_exception_handler({"message": f"in {timer!r}", "exception": error, "handle": timer})

    def _describe_deadlock(self) -> str:
        waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
        named = ", ".join(waiting[:8]) + (", ..." if len(waiting) > 8 else "")
        return f"nothing left to happen at {self.time():.3f} s of virtual time, while these tasks wait: {named}"

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - nothing is to run elsewhere
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Run `func` now, in the loop's own thread: it takes no virtual time. `executor` is not used."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""

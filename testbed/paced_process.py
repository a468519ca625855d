"""A process group that is slowed down, or stands still, by being stopped and continued."""

import asyncio
import signal

from testbed.fault import Fault
from testbed.process_guard import GuardedProcess
from testbed.server_pace import FULL, Afflictions

# Short against an answer, long against what a signal costs.
_PERIOD_S = 0.1


class PacedProcess:
    """While faults slow it down, the group runs for the share of each tenth of a second that the worst of them leaves.

    The task that sees to it is one of `tasks`; it ends with the faults, or with the process.
    """

    def __init__(self, process: GuardedProcess, tasks: asyncio.TaskGroup) -> None:
        self._process = process
        self._tasks = tasks
        self._afflictions = Afflictions()
        self._pacing = False

    def begin(self, fault: Fault) -> None:
        """A fault that slows it down begins; it ends by itself."""
        self._afflictions.begin(fault.factor)
        if fault.for_s is not None:
            asyncio.get_running_loop().call_later(fault.for_s, self._afflictions.end, fault.factor)
        if not self._pacing:
            self._pacing = True
            self._tasks.create_task(self._pace(), name=f"pace of {self._process.pid}")

    async def _pace(self) -> None:
        try:
            while (rate := self._afflictions.rate) < FULL and self._process.exit_code is None:
                self._process.signal_group(signal.SIGSTOP)
                await asyncio.sleep(_PERIOD_S * (1.0 - rate))
                if rate > 0.0 and self._process.exit_code is None:
                    self._process.signal_group(signal.SIGCONT)
                    await asyncio.sleep(_PERIOD_S * rate)
        finally:
            self._pacing = False
            if self._process.exit_code is None:
                self._process.signal_group(signal.SIGCONT)

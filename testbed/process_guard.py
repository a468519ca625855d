"""Starts processes that never outlive the testbed, not even when it is killed with SIGKILL.

Two nets: the leader of each group is killed by the kernel when the testbed dies (`process_leader`), and a watchdog in a
session of its own ends all that is left of the groups (`process_watchdog`), children of the leader included. Should
both be killed at once, `testbed clean` finds what they left by its record (`process_record`).
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed import process_leader, process_watchdog
from testbed.bad_input import CommandFailed
from testbed.process_record import record_folder
from testbed.process_watchdog import group_alive, signal_group
from testbed.server import ServerError
from testbed.temporary_folder import make_temporary_folder
from workloads.api_key import without_keys

_WATCHDOG_EXIT_S = 10.0
_POLL_S = 0.05
# A process that holds a GPU can take a while to go; for ever means that its driver hangs.
_KILL_S = 60.0
# A line to the watchdog is written whole up to here (Linux's PIPE_BUF is 4096 bytes).
_TOLD_BYTES = 3500


class ProcessGuard:
    """One per testbed; a context manager, at whose end whatever still runs is ended."""

    def __init__(self) -> None:
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        self._scratch: Path | None = None

    def __enter__(self) -> Self:
        try:
            self._scratch = make_temporary_folder()
        except OSError as error:
            raise CommandFailed(
                f"cannot make a temporary folder ({error.strerror}); make room, or name another place in TMPDIR"
            ) from error
        records = str(record_folder() or "")
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", process_watchdog.__file__, records, str(self._scratch), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env=without_keys(os.environ),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        watchdog = self._watchdog
        assert watchdog is not None and watchdog.stdin is not None
        if watchdog.poll() is not None:
            # It was killed. Nobody else will end what is left.
            for pgid in self._groups:
                signal_group(pgid, signal.SIGKILL)
        watchdog.stdin.close()
        try:
            watchdog.wait(_WATCHDOG_EXIT_S)
        except subprocess.TimeoutExpired:
            watchdog.kill()
            watchdog.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """A folder for what the processes put down only while they run; it goes with the guard."""
        assert self._scratch is not None
        return self._scratch

    @property
    def watchdog_pid(self) -> int:
        assert self._watchdog is not None
        return self._watchdog.pid

    async def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], log: Path, cwd: Path | None = None, what: str = ""
    ) -> "GuardedProcess":
        """Start `argv` as the leader of a new session, output appended to `log`, input empty, environment only `env`.

        `what` is how it is called in the record; the program's name where left out. Must be called in the main thread
        (the kernel's net is bound to the thread that starts the process).
        Raises ServerError when the watchdog is gone, OSError when the log cannot be written.
        """
        pipe = self._pipe()
        told = json.dumps({"what": what or argv[0], "folder": str(cwd or "")})
        if len(told) > _TOLD_BYTES:
            told = json.dumps({"what": what[:100], "folder": ""})
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", process_leader.__file__, str(os.getpid()), str(pipe), told),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=(pipe,),
            )
        self._groups.add(process.pid)
        return GuardedProcess(process, self)

    def release(self, pgid: int) -> None:
        """The group is gone: its number means nothing any more."""
        if pgid in self._groups:
            self._groups.remove(pgid)
            with suppress(ServerError, BrokenPipeError):  # a watchdog that is gone has nothing to forget
                os.write(self._pipe(), f"-{pgid}\n".encode())

    def _pipe(self) -> int:
        """The pipe to the watchdog. Its lines are short enough to be written whole, whoever writes at the same time."""
        watchdog = self._watchdog
        if watchdog is None or watchdog.stdin is None:
            raise RuntimeError("ProcessGuard: use it as `with ProcessGuard() as guard`")
        if watchdog.poll() is not None:
            raise ServerError(
                f"the watchdog (process {watchdog.pid}) that ends servers with the testbed has been killed; "
                "start the testbed again"
            )
        return watchdog.stdin.fileno()


class GuardedProcess:
    """A process group: its leader, and whatever that started."""

    def __init__(self, process: asyncio.subprocess.Process, guard: ProcessGuard) -> None:
        self._process = process
        self._guard = guard
        self._gone = False

    @property
    def pid(self) -> int:
        """Of the leader, and the number of the group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of the leader: None while it runs, negative when a signal ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Until the leader has ended; its exit code."""
        return await self._process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        signal_group(self.pid, number)

    async def end(self, term_s: float) -> None:
        """SIGTERM to the leader, SIGKILL to the group after `term_s` seconds; returns when nothing of it runs.

        The leader alone gets SIGTERM: a server ends its workers in its own order. Twice is harmless.
        Raises ServerError when something of the group withstands SIGKILL for a minute.
        """
        if self._gone:
            return
        if self.exit_code is None:
            with suppress(TimeoutError, ProcessLookupError):
                # Not the process's own send_signal: it may reap the child, and then nobody learns the exit code.
                os.kill(self.pid, signal.SIGTERM)
                async with asyncio.timeout(term_s):
                    await self.wait()
        try:
            async with asyncio.timeout(_KILL_S):
                await self._kill()
        except TimeoutError:
            raise ServerError(f"process group {self.pid} still runs {_KILL_S:g} s after SIGKILL; see dmesg") from None
        self._gone = True
        self._guard.release(self.pid)

    async def _kill(self) -> None:
        while group_alive(self.pid):
            # Again and again: a group that was forking may have had one more.
            self.signal_group(signal.SIGKILL)
            await asyncio.sleep(_POLL_S)
        await self.wait()

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from testbed.process_guard import ProcessGuard
from testbed.process_watchdog import group_alive, is_recycled, start_ticks
from testbed.server import ServerError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal and /proc are Linux's")

# Forks a child, neither heeding SIGTERM, and writes both process ids to the file it is given.
STUBBORN = """
import os, pathlib, signal, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    file = pathlib.Path(sys.argv[1])
    file.with_suffix(".tmp").write_text(f"{os.getpid()} {child}")
    file.with_suffix(".tmp").rename(file)
threading.Event().wait()
"""
# A testbed that starts a process of two and then waits for what comes.
TESTBED = """
import asyncio, os, sys
from pathlib import Path
from testbed.process_guard import ProcessGuard

async def main(program, pids, log):
    with ProcessGuard() as guard:
        await guard.start([sys.executable, "-c", program, pids], env=dict(os.environ), log=Path(log))
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""
REPOSITORY = Path(__file__).parents[2]


async def until(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 (what other processes do sets no event)
            await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def start_stubborn(guard: ProcessGuard, folder: Path) -> tuple[int, int]:
    file = folder / "pids"
    await guard.start([sys.executable, "-c", STUBBORN, str(file)], env=dict(os.environ), log=folder / "log")
    await until(file.exists, 10)
    leader, child = map(int, file.read_text().split())
    return leader, child


@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_outlives_a_testbed_that_is_killed(tmp_path: Path, fatal: signal.Signals) -> None:
    pids = tmp_path / "pids"
    testbed = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", TESTBED, STUBBORN, str(pids), str(tmp_path / "log")], cwd=REPOSITORY
    )
    try:
        await until(pids.exists, 20)
        leader, child = map(int, pids.read_text().split())
        watchdog = next(p for p in psutil.Process(testbed.pid).children() if p.pid not in (leader, child))
        assert runs(leader) and runs(child)
    finally:
        testbed.send_signal(fatal)
        testbed.wait()
    await until(lambda: not (runs(leader) or runs(child) or runs(watchdog.pid)), 10)


async def test_leaving_the_guard_ends_what_still_runs(tmp_path: Path) -> None:
    with ProcessGuard() as guard:
        leader, child = await start_stubborn(guard, tmp_path)
        watchdog = guard.watchdog_pid
    await until(lambda: not (runs(leader) or runs(child)), 2)
    assert not runs(watchdog)


async def test_ending_a_process_that_ignores_sigterm_kills_its_whole_group(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with ProcessGuard() as guard:
        process = await guard.start(
            [sys.executable, "-c", STUBBORN, str(file)], env=dict(os.environ), log=tmp_path / "log"
        )
        await until(file.exists, 10)
        assert group_alive(process.pid)
        await process.end(term_s=0.2)
        assert process.exit_code == -signal.SIGKILL
        assert not any(runs(int(pid)) for pid in file.read_text().split())
        assert not group_alive(process.pid)
        await process.end(term_s=0.2)


async def test_ending_a_process_reaches_children_whose_leader_has_died(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with ProcessGuard() as guard:
        process = await guard.start(
            [sys.executable, "-c", STUBBORN, str(file)], env=dict(os.environ), log=tmp_path / "log"
        )
        await until(file.exists, 10)
        leader, child = map(int, file.read_text().split())
        os.kill(leader, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        assert runs(child)
        await process.end(term_s=5)
        assert not runs(child)


async def test_a_process_that_heeds_sigterm_is_given_the_time(tmp_path: Path) -> None:
    program = (
        "import signal, sys, threading; signal.signal(15, lambda *_: sys.exit(3)); "
        "print('up', flush=True); threading.Event().wait()"
    )
    log = tmp_path / "log"
    with ProcessGuard() as guard:
        process = await guard.start([sys.executable, "-c", program], env=dict(os.environ), log=log)
        await until(lambda: b"up" in log.read_bytes(), 10)
        await process.end(term_s=10)
    assert process.exit_code == 3


async def test_a_process_sees_only_the_environment_it_is_given_and_no_input(tmp_path: Path) -> None:
    program = "import os, sys; print(sorted(os.environ), repr(sys.stdin.read()), os.getsid(0) == os.getpid())"
    log = tmp_path / "log"
    with ProcessGuard() as guard:
        process = await guard.start([sys.executable, "-c", program], env={"ONLY": "this", "LC_ALL": "C"}, log=log)
        assert await process.wait() == 0
        await process.end(1)
    assert log.read_text() == "['LC_ALL', 'ONLY'] '' True\n"


async def test_a_program_that_is_not_there_says_so_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ProcessGuard() as guard:
        process = await guard.start(["/nowhere/python"], env={}, log=log)
        assert await process.wait() == 127
        await process.end(1)
    assert log.read_text() == "cannot start /nowhere/python: No such file or directory\n"


async def test_with_its_watchdog_gone_a_guard_starts_nothing_and_still_ends_what_runs(tmp_path: Path) -> None:
    with ProcessGuard() as guard:
        leader, child = await start_stubborn(guard, tmp_path)
        os.kill(guard.watchdog_pid, signal.SIGKILL)
        await until(lambda: not runs(guard.watchdog_pid), 5)
        with pytest.raises(ServerError, match=r"the watchdog .* has been killed"):
            await guard.start(["/bin/sleep", "60"], env={}, log=tmp_path / "log2")
    await until(lambda: not (runs(leader) or runs(child)), 5)


def test_a_number_that_another_process_has_now_counts_as_recycled() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert not is_recycled(os.getpid(), ticks)
    assert is_recycled(os.getpid(), ticks - 1)
    assert not is_recycled(2**22 + 1, ticks)

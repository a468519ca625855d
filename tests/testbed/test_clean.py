"""`testbed clean`: what a killed testbed left is ended by its recorded identity, and nothing else is touched."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from testbed import process_watchdog
from testbed.process_guard import ProcessGuard
from testbed.process_record import ProcessRecord, forget_killed_run, record_folder, record_folders, recorded, run_record
from testbed.process_watchdog import start_ticks, this_machine
from testbed.temporary_folder import temporary_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are known by /proc")

Command = Callable[..., tuple[int, str, str]]

REPOSITORY = Path(__file__).parents[2]
NOTHING = "nothing is left of earlier runs on this machine\n"
# A testbed with one server of two processes, neither of which heeds SIGTERM; tells what runs, and waits.
TESTBED = """
import asyncio, os, sys
from pathlib import Path
from testbed.process_guard import ProcessGuard

STUBBORN = '''
import os, pathlib, signal, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    pathlib.Path("pids.new").write_text(f"{os.getpid()} {child}")
    os.rename("pids.new", "pids")
threading.Event().wait()
'''

async def main(folder):
    with ProcessGuard() as guard:
        await guard.start(
            [sys.executable, "-c", STUBBORN], env=dict(os.environ), log=folder / "log", cwd=folder, what="server a/1"
        )
        while not (folder / "pids").exists():
            await asyncio.sleep(0.02)
        print(guard.watchdog_pid, (folder / "pids").read_text(), flush=True)
        await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and temporary files of this test alone."""
    for name, variable in (("state", "XDG_STATE_HOME"), ("runtime", "XDG_RUNTIME_DIR"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def clean(testbed: Command) -> Callable[..., tuple[int, str]]:
    def run(*options: str) -> tuple[int, str]:
        code, out, err = testbed("clean", *options)
        assert err == ""
        return code, out

    return run


def until(condition: Callable[[], bool], within_s: float = 15) -> None:
    pause = threading.Event()
    for _ in range(int(within_s * 50)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {within_s:g} s")


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Running:
    """A testbed in a process of its own, with a server, and what `clean` is to find when it is gone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", TESTBED, str(folder)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.watchdog, self.leader, self.child = map(int, self.process.stdout.readline().split())

    def has_recorded_both(self) -> bool:
        """Whether the watchdog has come to look who belongs to the server."""
        return any(
            {pid for pid, _ in record.members} == {self.leader, self.child}
            for _, record in recorded()
            if record is not None and record.pid == self.leader
        )

    def kill_with_its_watchdog(self) -> None:
        os.kill(self.watchdog, signal.SIGSTOP)
        self.process.kill()
        os.kill(self.watchdog, signal.SIGKILL)
        self.process.wait()
        until(lambda: not runs(self.leader))  # by the kernel; its child has nobody

    def end(self) -> None:
        for pid in (self.process.pid, self.watchdog, self.leader, self.child):
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    testbed = Running(tmp_path / "of-the-testbed")
    yield testbed
    testbed.end()


def test_what_outlived_a_testbed_and_its_watchdog_is_ended_and_its_temporary_files_are_removed(
    running: Running, clean: Any, tmp_path: Path
) -> None:
    until(running.has_recorded_both)
    running.kill_with_its_watchdog()
    assert runs(running.child)
    code, out = clean("--dry-run")
    assert code == 0 and runs(running.child)
    assert f"would end      server a/1 of {running.folder} (processes {running.child})\n" in out
    code, out = clean()
    assert code == 0
    assert f"end      server a/1 of {running.folder} (processes {running.child})\n" in out
    assert not runs(running.child)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert recorded() == []
    assert clean() == (0, NOTHING)


def test_a_testbed_that_ends_by_itself_leaves_nothing_to_clean(running: Running, clean: Any, tmp_path: Path) -> None:
    running.process.terminate()
    running.process.wait()
    until(lambda: not (runs(running.child) or runs(running.watchdog)))
    assert recorded() == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert clean() == (0, NOTHING)


def test_what_belongs_to_a_testbed_that_runs_is_left_alone(running: Running, clean: Any) -> None:
    until(running.has_recorded_both)
    assert clean() == (0, NOTHING)
    assert runs(running.leader) and runs(running.child) and running.process.poll() is None


def write_record(**changes: Any) -> Path:
    """A record of this very process, under a testbed that is gone, changed as told."""
    folder = record_folder()
    assert folder is not None
    ticks = start_ticks(os.getpid())
    record = {"pid": os.getpid(), "start_ticks": ticks, "owner_pid": 2**22 + 1, "owner_start_ticks": 1}
    file = folder / f"{len(list(folder.iterdir()))}.json"
    file.write_text(json.dumps({**record, **this_machine(), "what": "server", **changes}))
    return file


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process group that no testbed started."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_process_that_has_the_number_of_one_that_is_gone_is_not_touched(
    bystander: subprocess.Popen[bytes], clean: Any
) -> None:
    ticks = start_ticks(bystander.pid)
    assert ticks is not None
    write_record(pid=bystander.pid, start_ticks=ticks - 1, members=[(bystander.pid, ticks - 1)])
    code, out = clean()
    assert code == 1, "something is left that a person is to look at"
    assert out.startswith(f"left alone  server (processes {bystander.pid}): none of these was recorded")
    assert bystander.poll() is None


@pytest.mark.parametrize("change", [{"node": "another"}, {"machine_id": "another"}, {"pid_namespace": "pid:[1]"}])
def test_records_of_other_machines_and_containers_are_left_alone(
    bystander: subprocess.Popen[bytes], clean: Any, change: dict[str, str]
) -> None:
    file = write_record(pid=bystander.pid, start_ticks=start_ticks(bystander.pid), **change)
    assert clean() == (0, "left alone  1 records of other machines, containers or versions\n")
    assert file.exists() and bystander.poll() is None
    os.utime(file, (0, 0))  # nobody can want it any more
    assert clean()[0] == 0
    assert not file.exists() and bystander.poll() is None


def test_a_record_of_before_the_last_boot_ends_nothing_and_is_removed(
    bystander: subprocess.Popen[bytes], clean: Any
) -> None:
    file = write_record(pid=bystander.pid, start_ticks=start_ticks(bystander.pid), boot_id="an-earlier-one")
    assert clean() == (0, "remove   1 records\n")
    assert not file.exists() and bystander.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_record_that_cannot_be_read_is_said_and_left(clean: Any, content: str) -> None:
    write_record().write_text(content)
    assert clean() == (0, "left alone  1 records of other machines, containers or versions\n")


def test_a_killed_run_is_named_and_loses_its_unfinished_files_alone(clean: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "static" / "completions.parts").mkdir(parents=True)
    (folder / "static" / "completions.parts" / "part-00000.parquet").touch()
    (folder / "static" / "completions.parts" / ".part-00001.parquet.tmp").touch()
    write_record(what="run", folder=str(folder))
    code, out = clean()
    assert code == 0
    assert f"killed run  {folder}, 1 temporary files: `testbed report` reads it\n" in out
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["part-00000.parquet"]
    assert clean() == (0, NOTHING)


def test_a_run_that_goes_on_is_named_and_left_alone(clean: Any, tmp_path: Path) -> None:
    temporary = tmp_path / "run" / ".manifest.json.tmp"
    temporary.parent.mkdir()
    temporary.touch()
    with run_record(temporary.parent):
        assert clean() == (0, f"going on    {temporary.parent} (process {os.getpid()}): left alone\n")
        assert temporary.exists()
    assert recorded() == []


def test_shared_memory_that_a_killed_server_left_is_removed_once_nobody_maps_it(clean: Any) -> None:
    ours, theirs = (Path("/dev/shm", f"psm_{os.getpid() % 2**28:07x}{number}") for number in (0, 1))
    ours.write_bytes(b"x" * 4096)
    theirs.write_bytes(b"x" * 4096)
    program = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print(flush=True); input()"
    try:
        with subprocess.Popen(
            [sys.executable, "-c", program, str(theirs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as user:
            assert user.stdout is not None
            user.stdout.readline()
            write_record(pid=2**22 + 2, shared_memory=[str(ours), str(theirs)])
            assert clean() == (0, "remove   1 records, 1 files of shared memory\n")
            assert not ours.exists() and theirs.exists()
            user.kill()
    finally:
        ours.unlink(missing_ok=True)
        theirs.unlink(missing_ok=True)


def test_files_that_no_killed_process_leaves_are_never_removed_from_shared_memory(clean: Any) -> None:
    folder = Path("/dev/shm", f"testbed-test-{os.getpid()}")
    folder.mkdir()
    weights, block = folder / "model.safetensors", folder / "psm_00000000"
    directly = folder.with_name(f"{folder.name}.safetensors")
    elsewhere = Path(tempfile.gettempdir(), "psm_00000001")
    files = [weights, block, directly, elsewhere]
    try:
        for file in files:
            file.write_bytes(b"x" * 4096)
        paths = [*map(str, files), f"/dev/shm/../..{elsewhere}"]
        write_record(pid=2**22 + 2, shared_memory=paths)
        assert clean() == (0, "remove   1 records\n")
        assert all(file.exists() for file in files)
    finally:
        directly.unlink(missing_ok=True)
        shutil.rmtree(folder)


# Once it is told to: makes the files that are not there, maps them all, and waits to be killed.
MAPPING = """
import mmap, os, sys, threading, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
mapped = []
for path in sys.argv[2:]:
    with open(path, "a+b") as file:
        file.truncate(4096)
        mapped.append(mmap.mmap(file.fileno(), 4096))
threading.Event().wait()
"""


async def one_recorded(such: Callable[[ProcessRecord], bool]) -> None:
    while not any(such(record) for _, record in recorded() if record):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def map_until_recorded(before: Path, made: Path, log: Path) -> None:
    """Has a process of a testbed map both, kills it once the watchdog has seen that, and ends the testbed."""
    told = log.with_name("told")
    with ProcessGuard() as guard:
        process = await guard.start(
            [sys.executable, "-c", MAPPING, str(told), str(before), str(made)], env=dict(os.environ), log=log
        )
        async with asyncio.timeout(60):
            # What lay there when the watchdog first heard of the process is not the process's.
            await one_recorded(lambda record: record.pid == process.pid)
            told.touch()
            await one_recorded(lambda record: str(made) in record.shared_memory)
        process.signal_group(signal.SIGKILL)
        await process.end(term_s=5)


def test_of_shared_memory_a_watchdog_removes_what_its_group_made_and_not_what_was_there_before(tmp_path: Path) -> None:
    name = f"psm_{os.getpid() % 2**28:07x}"
    before, made = Path("/dev/shm", f"{name}2"), Path("/dev/shm", f"{name}3")
    before.write_bytes(b"x" * 4096)
    try:
        asyncio.run(map_until_recorded(before, made, tmp_path / "log"))
        assert before.exists() and not made.exists()
    finally:
        before.unlink(missing_ok=True)
        made.unlink(missing_ok=True)


def test_lines_that_keep_coming_put_off_no_look_at_the_members_of_a_group(bystander: subprocess.Popen[bytes]) -> None:
    folder = record_folder()
    assert folder is not None
    watchdog = subprocess.Popen(
        [sys.executable, "-I", "-S", process_watchdog.__file__, str(folder), "", str(os.getpid())],
        stdin=subprocess.PIPE,
        bufsize=0,
    )
    assert watchdog.stdin is not None
    told = json.dumps({"what": "server", "folder": ""})
    watchdog.stdin.write(f"+{bystander.pid} {start_ticks(bystander.pid)} {told}\n".encode())

    def looked() -> bool:
        assert watchdog.stdin is not None
        watchdog.stdin.write(b"-4194305\n")  # no group of ours
        return any(record.members for _, record in recorded() if record is not None and record.pid == bystander.pid)

    until(looked)
    watchdog.stdin.close()
    watchdog.wait()


def test_a_testbed_that_was_killed_and_that_nobody_reaps_is_gone(clean: Any, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ticks = start_ticks(ended.pid)
    until(lambda: not runs(ended.pid))
    try:
        assert start_ticks(ended.pid) == ticks, "a zombie"
        with temporary_folder() as folder:
            number, of = os.getpid(), start_ticks(os.getpid())
            left = folder.rename(str(folder).replace(f"-{number}-{of}-", f"-{ended.pid}-{ticks}-"))
        write_record(what="run", folder=str(tmp_path), owner_pid=ended.pid, owner_start_ticks=ticks)
        code, out = clean()
        assert code == 0 and f"killed run  {tmp_path}" in out
        assert recorded() == [] and not left.exists()
    finally:
        ended.wait()


def test_a_temporary_folder_of_another_boot_or_machine_is_left_alone(clean: Any, tmp_path: Path) -> None:
    left = tmp_path / "tmp" / "testbed-00000000-4026531836-4194305-1-abcdefgh"
    left.mkdir()
    assert clean() == (0, NOTHING)
    assert left.exists()
    boot = this_machine()["boot_id"][:8]
    namespace = re.sub(r"\D", "", this_machine()["pid_namespace"])
    left.rename(left.with_name(f"testbed-{boot}-{namespace}-4194305-1-abcdefgh"))
    assert clean() == (0, "remove   1 temporary folders\n")


def test_unfinished_files_of_a_run_that_somebody_goes_on_with_are_left_alone(clean: Any, tmp_path: Path) -> None:
    temporary = tmp_path / "run" / ".manifest.json.tmp"
    temporary.parent.mkdir()
    temporary.touch()
    write_record(what="run", folder=str(temporary.parent))
    with run_record(temporary.parent):
        assert clean()[0] == 0
        assert temporary.exists()
    write_record(what="run", folder=str(temporary.parent))
    write_record(what="run", folder=str(tmp_path / "another"))
    forget_killed_run(temporary.parent)
    assert [record.folder for _, record in recorded() if record is not None] == [str(tmp_path / "another")]


def test_records_go_where_they_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert record_folder() == tmp_path / "state" / "sageserve-testbed" / "processes"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert record_folder() == tmp_path / "runtime" / "sageserve-testbed" / "processes"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    last = record_folder()
    assert last is not None and last.is_relative_to(tmp_path / "tmp")
    assert last in record_folders()


def test_a_place_that_belongs_to_somebody_else_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    write_record()
    assert len(recorded()) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    assert recorded() == []

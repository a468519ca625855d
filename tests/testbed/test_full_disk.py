"""A disk that takes no more ends a run in one line, and what was written before can be read and reported."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results.disk_fault import disk_fault
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder, RunFolder
from testbed import doctor, process_guard
from testbed.bad_input import CommandFailed
from testbed.process_guard import ProcessGuard
from testbed.server_log import exit_words
from workloads.completion import Completion, Outcome

Command = Callable[..., tuple[int, str, str]]

FULL = "disk full: No space left on device"


class Disk:
    """Refuses to take files of a name from the time that it has taken `room` of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._refused, self._room, self._code = "", 0, errno.ENOSPC
        fsync, write_table = os.fsync, pq.write_table

        def refusing_fsync(descriptor: int) -> None:
            self._check(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            fsync(descriptor)

        def refusing_write_table(table: Any, where: Any, **options: Any) -> None:
            self._check(str(where))
            write_table(table, where, **options)

        monkeypatch.setattr(os, "fsync", refusing_fsync)
        monkeypatch.setattr(pq, "write_table", refusing_write_table)

    def refuse(self, name: str, room: int = 0, code: int = errno.ENOSPC) -> None:
        self._refused, self._room, self._code = name, room, code

    def take_all(self) -> None:
        self._refused = ""

    def _check(self, path: str) -> None:
        if self._refused and self._refused in path:
            self._room -= 1
            if self._room < 0:
                raise OSError(self._code, os.strerror(self._code))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    # So small that a run of a second writes many.
    monkeypatch.setitem(RunRecorder.__init__.__kwdefaults__, "part_rows", 50)
    return Disk(monkeypatch)


@pytest.fixture
def scenario(small_scenario: Any) -> str:
    values = small_scenario.values()
    values["workload"]["history_h"] = 0
    values["policies"] = {"reactive": {"interval_s": 5}, "static": {}}
    return str(small_scenario.write(values))


@pytest.mark.parametrize("name", ["scenario.yaml", "trace.parquet", "manifest.json"])
def test_where_not_even_the_folder_can_be_begun_nothing_is_left_of_it(
    testbed: Command, scenario: str, disk: Disk, name: str
) -> None:
    disk.refuse(name)
    code, _, err = testbed("run", scenario, "--out", "run")
    assert (code, err) == (1, f"testbed: {FULL}; nothing was run: make room, or name another --out\n")
    assert not Path("run").exists()


DURING = [
    ("manifest.json", 1),
    ("manifest.json", 2),
    ("part-", 3),
    ("servers.parts", 0),
    ("decisions.jsonl", 0),
]


@pytest.mark.parametrize(("name", "room"), DURING)
def test_a_run_on_a_disk_that_fills_up_ends_in_one_line_and_its_folder_reports(
    testbed: Command, scenario: str, disk: Disk, name: str, room: int
) -> None:
    disk.refuse(name, room)
    code, _, err = testbed("run", scenario, "--out", "run")
    assert (code, err) == (1, f"testbed: {FULL} (what was done: run)\n")
    disk.take_all()
    run = RunFolder.open(Path("run"))
    assert run.manifest.policies["static"].status == "waiting", "nothing goes on after a disk that is full"
    assert (run.manifest.status, run.manifest.error) in (("failed", FULL), ("running", ""))
    code, _, err = testbed("report", "run")
    assert (code, err) == (0, "")
    assert [path for path in Path("run").rglob(".*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["part-", "completions.parquet", "pools.parquet"])
def test_what_was_written_before_is_still_there(testbed: Command, scenario: str, disk: Disk, name: str) -> None:
    assert testbed("run", scenario, "--policy", "reactive", "--out", "whole")[0] == 0
    disk.refuse(name, 10 if name == "part-" else 0)
    assert testbed("run", scenario, "--policy", "reactive", "--out", "run")[0] == 1
    disk.take_all()
    whole, kept = (
        RunFolder.open(Path(name)).policy("reactive").completions(["request_id"])["request_id"].tolist()
        for name in ("whole", "run")
    )
    assert kept and kept == whole[: len(kept)]
    if name != "part-":
        assert kept == whole, "a merge that fails loses nothing"


@pytest.mark.parametrize("name", ["summary.json", "report.html"])
def test_a_report_for_which_there_is_no_room_is_made_later(
    testbed: Command, scenario: str, disk: Disk, name: str
) -> None:
    disk.refuse(name)
    code, _, err = testbed("run", scenario, "--policy", "static", "--out", "run")
    assert (code, err) == (
        1,
        f"testbed: {FULL}; it has no report: make room, then `testbed report run` (what was done: run)\n",
    )
    assert RunFolder.open(Path("run")).manifest.status == "finished"
    disk.take_all()
    assert testbed("report", "run")[0] == 0


@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_otherwise_is_named_as_what_it_is(
    testbed: Command, scenario: str, disk: Disk, code: int
) -> None:
    disk.refuse("part-", 3, code)
    exit_code, _, err = testbed("run", scenario, "--out", "run")
    fault = disk_fault(OSError(code, os.strerror(code)))
    assert fault is not None and os.strerror(code) in fault
    assert (exit_code, err) == (1, f"testbed: {fault} (what was done: run)\n")


def test_an_error_that_is_not_the_disks_is_not_called_so() -> None:
    assert disk_fault(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert disk_fault(PermissionError(errno.EACCES, "no")) is None


def test_who_records_hears_of_a_flush_that_failed_in_another_thread(
    tmp_path: Path, disk: Disk, finished: Callable[[int], Any]
) -> None:
    recorder = RunRecorder(tmp_path / "static", part_rows=1000)
    disk.refuse("part-")
    with recorder.flushed_every(0.01), pytest.raises(OSError, match="No space left"):
        for number in range(1_000_000):
            recorder.completion(finished(number))
    taken = number + 1
    disk.take_all()
    recorder.close()
    rows = PolicyFolder(name="static", path=tmp_path / "static").completions(["request_id"])
    assert rows["request_id"].tolist() == list(range(taken)), "with room again nothing is missing"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare to mount a small file system with")
def test_a_real_file_system_that_is_full(scenario: str, tmp_path: Path) -> None:
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    program = f"""
        mount -t tmpfs -o size=224k tmpfs {small} || exit 77
        {sys.executable} -m testbed run {scenario} --out {small}/run 2> {tmp_path}/err
        code=$?
        cp -r {small}/run {out}
        exit $code
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", program], check=False, capture_output=True, text=True, timeout=120
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    told = (tmp_path / "err").read_text()
    assert done.returncode == 1, told
    assert told.startswith(f"testbed: {FULL}") and told.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
    report = [sys.executable, "-m", "testbed", "report", str(out)]
    reported = subprocess.run(report, check=False, capture_output=True, text=True, timeout=120)
    assert (reported.returncode, reported.stderr) == (0, "")


def test_without_room_for_temporary_files_no_server_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(process_guard, "make_temporary_folder", full)
    with pytest.raises(CommandFailed, match=r"cannot make a temporary folder \(No space left on device\); make room"):
        ProcessGuard().__enter__()


def test_doctor_tells_of_shared_memory_that_is_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def findings() -> doctor.Finding:
        return next(finding for finding in doctor.diagnose(tmp_path) if finding.name == "shared memory")

    monkeypatch.setattr(doctor, "_FREE_SHARED_MEMORY_BYTES", 2**60)
    assert not findings().ok and "testbed clean" in findings().advice
    monkeypatch.setattr(doctor, "_FREE_SHARED_MEMORY_BYTES", 0)
    assert findings().ok


def test_a_server_that_dies_of_a_full_shared_memory_says_so() -> None:
    assert exit_words(-7) == "killed by SIGBUS; is /dev/shm full?"
    assert exit_words(-9) == "killed by SIGKILL"


@pytest.fixture
def finished(make_request: Any) -> Callable[[int], Any]:
    return lambda number: Completion(
        request=make_request(number),
        server_id="s",
        region="west",
        sent_s=0.0,
        first_token_s=1.0,
        last_token_s=2.0,
        output_tokens=50,
        outcome=Outcome.COMPLETED,
        reason="",
    )


async def test_what_could_not_be_flushed_is_written_without_a_further_row(
    tmp_path: Path, disk: Disk, finished: Callable[[int], Any]
) -> None:
    recorder = RunRecorder(tmp_path / "static", part_rows=1000)
    disk.refuse("part-")
    recorder.completion(finished(0))
    with recorder.flushed_every(0.01):
        await asyncio.sleep(0.1)
        disk.take_all()
        await asyncio.sleep(0.3)
        rows = PolicyFolder(name="static", path=tmp_path / "static").completions(["request_id"])
    assert rows["request_id"].tolist() == [0]


async def test_who_records_hears_of_a_row_that_no_table_takes(tmp_path: Path, finished: Callable[[int], Any]) -> None:
    recorder = RunRecorder(tmp_path / "static")
    row = {"at_s": 0.0, "model": "m", "region": "r", "gpu_type": "g", "utilisation": 0.0, "outstanding_tokens": 0}
    row |= {"starting": 0, "draining": 0, "niw_queued": 0}
    recorder.pool_gauge(**row, ready=2**40)
    with recorder.flushed_every(0.01), pytest.raises(pa.ArrowInvalid):
        for _ in range(100):
            await asyncio.sleep(0.01)
            recorder.pool_gauge(**row, ready=1)


async def test_who_records_hears_of_decisions_that_are_not_on_disk(tmp_path: Path, disk: Disk) -> None:
    recorder = RunRecorder(tmp_path / "static")
    disk.refuse("decisions")
    with recorder.flushed_every(0.01), pytest.raises(OSError, match="No space left"):
        for number in range(100):
            await asyncio.sleep(0.01)
            recorder.decision({"number": number})

"""A folder that is gone on with belongs to one process at a time, and to nobody once that one is gone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiler.progress import Tell
from testbed.bad_input import BadInput
from testbed.profile_progress import measured_with_progress
from testbed.sole_writer import sole_writer

Command = Callable[..., tuple[int, str, str]]

HOLD = """
import sys, time
from pathlib import Path
from testbed.sole_writer import sole_writer
with sole_writer(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "held").mkdir()
    return tmp_path / "held" / ".lock"


@pytest.fixture
def holder(lock: Path) -> Any:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_is_at_work_there(holder: "subprocess.Popen[str]", lock: Path) -> None:
    said = rf"^--out x: process {holder.pid} is at work there"
    with pytest.raises(BadInput, match=said), sole_writer(lock, "--out x"):
        pytest.fail("two are at work")


def test_a_killed_process_holds_nobody_up(holder: "subprocess.Popen[str]", lock: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock.exists(), "a kill leaves the file"
    with sole_writer(lock, "it"):
        assert lock.read_text() == str(os.getpid())
    assert not lock.exists()


def test_a_lock_is_gone_after_a_block_that_failed(lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_writer(lock, "it"):
        _ = 1 / 0
    assert not any(lock.parent.iterdir())


def test_a_sweep_beside_another_in_one_folder_is_refused_and_touches_nothing(
    holder: "subprocess.Popen[str]", lock: Path, testbed: Command, small_scenario: Any
) -> None:
    code, _, err = testbed("sweep", str(small_scenario.write()), "--out", str(lock.parent))
    assert code == 2
    assert f"--out {lock.parent}: process {holder.pid} is at work there" in err
    assert list(lock.parent.iterdir()) == [lock]


def test_a_profile_is_not_measured_into_a_work_folder_twice_at_once(tmp_path: Path) -> None:
    async def work(_: Tell) -> None:
        pytest.fail("measured all the same")

    with sole_writer(tmp_path / ".m.work.lock", "the first"), pytest.raises(BadInput, match=r"m\.work: process"):
        measured_with_progress(work, tmp_path / "m.work")

"""What a server's log says about its death."""

import re
import signal
from pathlib import Path

_TAIL_BYTES = 64 * 1024
_TAIL_LINES = 40
# "(EngineCore pid=12) ERROR 11-21 11:50:56 [core.py:845] " before what matters.
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\) *)?((ERROR|WARNING|INFO|CRITICAL) \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?")
_ERROR = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): *\S|: error: \S")
# True, but no reason: the reason stands further up.
_CONSEQUENCE = re.compile(r"Engine core initialization failed|See root cause above|WorkerProc initialization failed")
_VALIDATION = re.compile(r"validation errors? for")


def log_tail(log: Path) -> str:
    """The last lines of a log; "" when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def telling_line(log: Path) -> str:
    """The line that says best why a server died: its last error, not what only followed from it; "" when none is."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4 * _TAIL_BYTES))
            lines = [_PREFIX.sub("", line).strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    causes = [i for i, line in enumerate(lines) if _ERROR.search(line) and not _CONSEQUENCE.search(line)]
    if not causes:
        return next((line for line in reversed(lines) if line), "")[:500]
    at = causes[-1]
    told = lines[at]
    if _VALIDATION.search(told):
        # pydantic's first line names the class only; the fault follows, and then the whole input.
        told = " ".join(lines[at + 1 : at + 3]).partition(" [type=")[0] or told
    return " ".join(told.split())[:500]


def exit_words(exit_code: int) -> str:
    """An exit code in words: "exit code 1", "killed by SIGKILL"."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        return f"killed by signal {-exit_code}"
    # How a process ends that writes shared memory for which there is no room.
    return f"killed by {name}" + ("; is /dev/shm full?" if name == "SIGBUS" else "")

"""A fault that is made to happen to a server."""

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """kill: SIGKILL. hang: SIGSTOP, and SIGCONT after `for_s`. slow: the server runs `factor` times slower for `for_s`.
    fail_start: the next start is killed.
    """

    KILL = "kill"
    HANG = "hang"
    SLOW = "slow"
    FAIL_START = "fail_start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One server is hit at `at_s`. `model`, `region`, `gpu_type`: of which servers, None of any. `draw`, 0 to 1, says
    which of those there are. `factor`: how many times slower it runs for `for_s` seconds (None: for good); infinite
    where it stands still."""

    at_s: float
    kind: FaultKind
    model: str | None
    region: str | None
    gpu_type: str | None
    draw: float
    factor: float
    for_s: float | None

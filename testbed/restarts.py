"""Slots whose server has failed, until it is started again on the same GPUs."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.types import Placement
from testbed.member import Member


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restart:
    """A server to be started at `at_s` on `gpu_indices`, which are kept for it, after `failures` in a row."""

    placement: Placement
    gpu_indices: tuple[int, ...]
    failures: int
    at_s: float


class Restarts:
    """The restarts that are to come; each calls `start` at its time, unless it is dropped before."""

    def __init__(self, start: Callable[[Restart], None]) -> None:
        self._start = start
        self._timers: dict[Restart, asyncio.Handle] = {}

    def add(self, restart: Restart, after_s: float) -> None:
        """It is to happen in `after_s` seconds."""
        self._timers[restart] = asyncio.get_running_loop().call_later(after_s, self._now, restart)

    def drop(self, restart: Restart) -> None:
        """It is no longer wanted: its GPUs are the caller's."""
        self._timers.pop(restart).cancel()

    def of(self, placement: Placement) -> list[Restart]:
        """Those of a placement, soonest first."""
        return sorted((r for r in self._timers if r.placement == placement), key=lambda restart: restart.at_s)

    def __iter__(self) -> Iterator[Restart]:
        return iter(tuple(self._timers))

    def _now(self, restart: Restart) -> None:
        del self._timers[restart]
        self._start(restart)


def failures_in_a_row(member: Member, now_s: float, stable_after_s: float) -> int:
    """With this one, which has just failed; a server that was READY long enough began a new row."""
    stable = member.ready_s is not None and now_s - member.ready_s >= stable_after_s
    return 1 if stable else member.failures + 1

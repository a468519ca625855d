"""Makes the faults of a scenario happen to the servers of a run."""

import asyncio
from collections.abc import Iterable

from results.recorder import RunRecorder
from testbed.fault import Fault, FaultKind
from testbed.fleet import ServerFleet
from testbed.member import Member
from testbed.server import Server, ServerState
from workloads.clock import RunClock

_SERVING = (ServerState.READY, ServerState.DRAINING)
_STANDING = (ServerState.STARTING, *_SERVING, ServerState.SLEEPING)


class FaultInjection:
    """Strikes each fault at its time; every one is recorded, also one that finds nobody to hit.

    Of the servers that it may hit, a fault's own draw says which, in the order of their ids. A kill hits whatever has a
    process, hang and slow what has requests to serve, and the next start of a placement takes a fail_start with it.
    """

    def __init__(self, fleet: ServerFleet, recorder: RunRecorder, clock: RunClock) -> None:
        self._fleet = fleet
        self._recorder = recorder
        self._clock = clock
        self._for_starts: list[Fault] = []
        self._hit_at_s = -1.0
        self._hit: set[str] = set()

    async def strike(self, faults: Iterable[Fault]) -> None:
        """All of them, in order of time, until cancelled: a start may still come."""
        try:
            for fault in faults:
                await self._clock.sleep_until(fault.at_s)
                if fault.kind is FaultKind.FAIL_START:
                    self._for_starts.append(fault)
                else:
                    self._strike(fault)
            await asyncio.Event().wait()
        finally:
            for fault in self._for_starts:  # which found none
                self._record(fault, "")
            self._for_starts.clear()

    def started(self, server: Server) -> None:
        """A server is about to start."""
        for fault in self._for_starts:
            if _matches(fault, server):
                self._for_starts.remove(fault)
                server.inject(fault)
                self._record(fault, server.server_id)
                return

    def _strike(self, fault: Fault) -> None:
        states = _STANDING if fault.kind is FaultKind.KILL else _SERVING
        if fault.at_s != self._hit_at_s:
            self._hit_at_s, self._hit = fault.at_s, set()
        # Several faults of one moment hit several servers: a real one that was killed takes a while to be FAILED.
        hit = _drawn(
            fault,
            [
                member
                for member in self._fleet.members
                if member.server.state in states
                and member.server.server_id not in self._hit
                and _matches(fault, member.server)
            ],
        )
        self._record(fault, hit.server.server_id if hit else "")
        if hit:
            self._hit.add(hit.server.server_id)
            hit.server.inject(fault)

    def _record(self, fault: Fault, server_id: str) -> None:
        self._recorder.fault(
            at_s=self._clock.now_s(),
            kind=fault.kind,
            server_id=server_id,
            factor=fault.factor if fault.kind is FaultKind.SLOW else None,
            for_s=fault.for_s,
        )


def _matches(fault: Fault, server: Server) -> bool:
    spec = server.spec
    return all(
        wanted in (None, given)
        for wanted, given in (
            (fault.model, spec.model),
            (fault.region, spec.region),
            (fault.gpu_type, spec.gpu_type),
        )
    )


def _drawn(fault: Fault, members: list[Member]) -> Member | None:
    ordered = sorted(members, key=lambda member: member.server.server_id)
    return ordered[min(int(fault.draw * len(ordered)), len(ordered) - 1)] if ordered else None

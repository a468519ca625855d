"""Makes the faults of a scenario happen to the servers of a run."""

import asyncio
from collections.abc import Iterable
from itertools import groupby

from results.recorder import RunRecorder
from testbed.fault import Fault, FaultKind
from testbed.fleet import ServerFleet
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

    async def strike(self, faults: Iterable[Fault]) -> None:
        """All of them, in order of time, until cancelled: a start may still come."""
        try:
            for at_s, together in groupby(faults, key=lambda fault: fault.at_s):
                await self._clock.sleep_until(at_s)
                self._strike(together)
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

    def _strike(self, together: Iterable[Fault]) -> None:
        """Faults of one moment, which hit as many servers: a real one that was killed takes a while to be FAILED."""
        hit: list[Server] = []
        for fault in together:
            if fault.kind is FaultKind.FAIL_START:
                self._for_starts.append(fault)
                continue
            states = _STANDING if fault.kind is FaultKind.KILL else _SERVING
            standing = [member.server for member in self._fleet.members if member.server.state in states]
            server = _drawn(fault, [each for each in standing if each not in hit and _matches(fault, each)])
            self._record(fault, server.server_id if server else "")
            if server:
                hit.append(server)
                server.inject(fault)

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


def _drawn(fault: Fault, servers: list[Server]) -> Server | None:
    ordered = sorted(servers, key=lambda server: server.server_id)
    return ordered[min(int(fault.draw * len(ordered)), len(ordered) - 1)] if ordered else None

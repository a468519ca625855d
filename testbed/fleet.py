"""All servers of a run: what they are, what GPUs they hold, and how a plan is carried out."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from controller.types import FleetLimits, Observation, Placement, PlacementState, ScalingPlan
from testbed.demand_meter import DemandMeter
from testbed.gpu_slots import GpuSlots
from testbed.niw_queue import NiwQueue
from testbed.router import Router, Seat
from testbed.server import Server, ServerError, ServerState
from workloads.clock import RunClock

ServerMaker = Callable[[Placement, str, tuple[int, ...]], Server]
"""Makes a server from its placement, its id and the indices of its GPUs."""


class Member:
    """One server of the fleet, from the command to start it until its GPUs are free again."""

    __slots__ = ("begun", "broken_off", "gpu_indices", "placement", "server", "settled", "stop_asked", "task")

    def __init__(self, placement: Placement, server: Server, gpu_indices: tuple[int, ...]) -> None:
        self.placement = placement
        self.server = server
        self.gpu_indices = gpu_indices
        self.stop_asked = asyncio.Event()
        self.settled = False  # its start has come to an end, good or bad
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self.broken_off = False


class ServerFleet(AbstractAsyncContextManager["ServerFleet"]):
    """Starts and stops servers so that their counts become those of the last plan; on exit stops them all.

    Satisfies `controller.types.Fleet`. A plan names absolute counts: STARTING and READY servers are counted, a
    surplus is drained (STARTING ones first, then those with the fewest tokens in flight), and starts that find no
    free GPU wait until a draining server gives its own back. A server that cannot start, or dies, is FAILED and
    gives its GPUs back; the next plan may start another.
    """

    def __init__(
        self,
        *,
        clock: RunClock,
        limits: FleetLimits,
        slots: Mapping[tuple[str, str], GpuSlots],
        make_server: ServerMaker,
        router: Router,
        niw_queue: NiwQueue,
        meter: DemandMeter,
        capacity_tokens: Callable[[Server], float],
        drain_s: float,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._placements = limits.placements()
        self._slots = slots
        self._make_server = make_server
        self._router = router
        self._niw_queue = niw_queue
        self._meter = meter
        self._capacity_tokens = capacity_tokens
        self._drain_s = drain_s
        self._members: list[Member] = []
        self._wanted: Counter[Placement] = Counter()
        self._numbers: Counter[str] = Counter()
        self._previous: ScalingPlan | None = None
        self._tasks = asyncio.TaskGroup()
        self._closing = False
        self._one_settled = asyncio.Event()
        self.failures: list[ServerError] = []

    async def __aenter__(self) -> "ServerFleet":
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        if error is not None:
            self._drain_s = 0.0
        for member in self._members:
            member.stop_asked.set()
            self._hurry(member)
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def tasks(self) -> asyncio.TaskGroup:
        """Where what must live as long as the fleet runs: the watchers of real server processes."""
        return self._tasks

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    async def start_initial(self, counts: Mapping[Placement, int]) -> None:
        """Start these servers and return when all are READY. Raises the first ServerError."""
        self._want(counts)
        starting = self.members
        while not all(member.settled for member in starting):
            await self._one_settled.wait()
            self._one_settled.clear()
            if self.failures:
                raise self.failures[0]

    async def observe(self) -> Observation:
        by_placement: dict[Placement, list[Member]] = {placement: [] for placement in self._placements}
        for member in self._members:
            by_placement[member.placement].append(member)
        seats = {
            id(seat.server): seat
            for pool in {placement.pool for placement in by_placement}
            for seat in self._router.seats(pool)
        }
        return Observation(
            at_s=self._clock.now_s(),
            limits=self._limits,
            placements={
                placement: _state_of(members, [seats[id(m.server)] for m in members if id(m.server) in seats])
                for placement, members in by_placement.items()
            },
            demand=self._meter.history(self._clock.now_s()),
            niw_queued_tokens=self._niw_queue.queued_tokens(),
            previous=self._previous,
        )

    async def apply(self, plan: ScalingPlan) -> None:
        self._previous = plan
        self._want(plan.counts)

    def _want(self, counts: Mapping[Placement, int]) -> None:
        self._wanted = Counter(dict(counts))
        self._reconcile()

    def _reconcile(self) -> None:
        """Stop what is too much, then start what is missing while GPUs are free."""
        if self._closing:
            return
        active: dict[Placement, list[Member]] = {placement: [] for placement in self._placements}
        for member in self._members:
            if _active(member):
                active[member.placement].append(member)
        for placement, members in active.items():
            surplus = len(members) - self._wanted[placement]
            if surplus > 0:
                for member in sorted(members, key=self._stop_order)[:surplus]:
                    self._stop(member)
        for placement, members in active.items():
            for _ in range(self._wanted[placement] - len(members)):
                if not self._start(placement):
                    break

    def _stop_order(self, member: Member) -> tuple[bool, int]:
        """STARTING ones first, then those with the least in flight."""
        ready = member.server.state is ServerState.READY
        seats = self._router.seats(member.placement.pool)
        outstanding = next((seat.outstanding_tokens for seat in seats if seat.server is member.server), 0)
        return (ready, outstanding)

    def _start(self, placement: Placement) -> bool:
        capacity = self._limits.capacity[(placement.model, placement.gpu_type)]
        gpu_indices = self._slots[(placement.region, placement.gpu_type)].take(capacity.gpus)
        if gpu_indices is None:
            return False
        pool = f"{placement.model}-{placement.region}"
        self._numbers[pool] += 1
        server = self._make_server(placement, f"{pool}-{self._numbers[pool]}", gpu_indices)
        member = Member(placement, server, gpu_indices)
        self._members.append(member)
        member.task = self._tasks.create_task(self._live(member), name=f"server {server.server_id}")
        return True

    def _stop(self, member: Member) -> None:
        member.stop_asked.set()
        # From this moment on it gets no more requests, also when its task has not run yet.
        self._router.leave(member.placement.pool, member.server)
        self._hurry(member)

    def _hurry(self, member: Member) -> None:
        """Break off a start that nobody waits for any more."""
        if member.begun and member.task is not None and member.server.state is ServerState.STARTING:
            member.broken_off = True
            member.task.cancel()

    async def _live(self, member: Member) -> None:
        """The whole life of one server. Its GPUs are given back whatever happens."""
        member.begun = True
        try:
            await self._start_and_serve(member)
        except ServerError as error:
            self.failures.append(error)
            self._lose(member)
        finally:
            self._router.leave(member.placement.pool, member.server)
            self._settle(member)
            await self._stop_for_sure(member.server)
            self._members.remove(member)
            slots = self._slots[(member.placement.region, member.placement.gpu_type)]
            slots.give_back(member.gpu_indices, member.server.spec.gpus)
            self._reconcile()

    async def _start_and_serve(self, member: Member) -> None:
        """Returns when the server is asked to stop."""
        try:
            if not member.stop_asked.is_set():
                await member.server.start()
                self._router.join(member.placement.pool, member.server, self._capacity_tokens(member.server))
                self._settle(member)
            await member.stop_asked.wait()
        except asyncio.CancelledError:
            if not member.broken_off or self._closing:
                raise
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()

    async def _stop_for_sure(self, server: Server) -> None:
        """Stop also when cancelled meanwhile: then without waiting for requests any longer."""
        # A cancellation that brought us here is dealt with by stopping. Were it left to stand, Python before 3.11.4
        # would take the end of a timeout in `stop` for it.
        task = asyncio.current_task()
        while task is not None and task.uncancel():
            pass
        try:
            await server.stop(self._drain_s)
        except asyncio.CancelledError:
            await server.stop(0.0)
            raise

    def _settle(self, member: Member) -> None:
        member.settled = True
        self._one_settled.set()

    def server_died(self, server_id: str) -> None:
        """A server has FAILED: it gets no more requests, and its life comes to its end."""
        for member in self._members:
            if member.server.server_id == server_id:
                self._router.leave(member.placement.pool, member.server)
                self._lose(member)

    def _lose(self, member: Member) -> None:
        """A server failed. Nothing starts in its place before the next plan: what fails at once would fail forever."""
        if not member.stop_asked.is_set():
            member.stop_asked.set()
            self._wanted[member.placement] -= 1

    def counts(self) -> dict[tuple[str, ServerState], int]:
        """Servers by (region, state)."""
        return dict(Counter((m.placement.region, m.server.state) for m in self._members))


def _active(member: Member) -> bool:
    return not member.stop_asked.is_set() and member.server.state in (ServerState.STARTING, ServerState.READY)


def _state_of(members: list[Member], seats: list[Seat]) -> PlacementState:
    tokens = sum(seat.outstanding_tokens for seat in seats)
    capacity = sum(seat.capacity_tokens for seat in seats)
    states = [member.server.state for member in members if _active(member)]
    starting = states.count(ServerState.STARTING)
    ready = len(states) - starting
    return PlacementState(
        starting=starting,
        ready=ready,
        draining=len(members) - starting - ready,
        utilisation=tokens / capacity if capacity else 0.0,
        outstanding_tokens=tokens,
    )

"""All servers of a run: what they are, what GPUs they hold, and how a plan is carried out."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import MappingProxyType, TracebackType

from controller.types import Capacity, FleetLimits, Observation, Placement, Role, ScalingPlan
from testbed.demand_meter import DemandMeter
from testbed.fault_parts import RecoveryConfig
from testbed.gpu_slots import GpuSlots
from testbed.member import Member, Order
from testbed.niw_queue import NiwQueue
from testbed.observed import placement_state
from testbed.restarts import Restart, Restarts, failures_in_a_row
from testbed.router import Router
from testbed.server import Server, ServerError, ServerState
from workloads.clock import RunClock

_RECOVERY = RecoveryConfig()

ServerMaker = Callable[[Placement, str, tuple[int, ...], str], Server]
"""Makes a server from its placement, its id, the indices of its GPUs and why it is started ("" where that is plain)."""


class ServerFleet(AbstractAsyncContextManager["ServerFleet"]):
    """Starts, stops, puts to sleep and wakes servers until their counts are those of the last plan; stops all on exit.

    Satisfies `controller.types.Fleet`. A plan names absolute counts of servers that serve now or soon (STARTING, also
    from sleep, and READY), and of servers asleep beside them.

    - A surplus is drained, STARTING ones first, then those with the fewest tokens in flight. It goes to sleep while
      fewer than wanted sleep, and is stopped otherwise; what cannot sleep is stopped, with the reason on record.
    - What is missing is woken, then started. A sleeper wakes on the GPUs it had, once they are free; starts keep off
      the GPUs of sleepers while there are others. What finds no free GPU waits until a server gives its own back.
    - Sleepers beyond those wanted, and beyond what is still missing, are stopped.

    A server that cannot start or wake, or dies, is FAILED. While it is wanted it is started again on its GPUs, as
    `recovery` says; they are given up, and the quota is less, when that fails too often: `given_up` hears the id of
    the last. One that sleeps, or that nobody wants, is gone.

    Of a run that goes on, `previous` is the last plan, and `numbers` are the last that servers had, by what stands
    before them in their ids.
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
        recovery: RecoveryConfig = _RECOVERY,
        given_up: Callable[[str], None] = lambda _: None,
        previous: ScalingPlan | None = None,
        numbers: Mapping[str, int] = MappingProxyType({}),
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
        self._recovery = recovery
        self._given_up = given_up
        self._restarts = Restarts(self._restart)
        self._members: list[Member] = []
        self._wanted: Counter[Placement] = Counter()
        self._wanted_asleep: Counter[Placement] = Counter()
        self._numbers = Counter(numbers)
        self._previous = previous
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
        for restart in self._restarts:
            self._drop(restart)
        for member in self._members:
            member.tell(Order.STOP)
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def tasks(self) -> asyncio.TaskGroup:
        """Where what must live as long as the fleet runs: the watchers of real server processes."""
        return self._tasks

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._members)

    def counts(self) -> dict[tuple[str, ServerState], int]:
        """Servers by (region, state)."""
        return dict(Counter((m.placement.region, m.server.state) for m in self._members))

    @property
    def limits(self) -> FleetLimits:
        """As policies see them."""
        return self._limits

    def move_capacity(self, capacity: Mapping[tuple[str, str], Capacity]) -> None:
        """What a server sustains has changed with the lengths of requests."""
        self._limits = replace(self._limits, capacity=capacity)

    # What a policy sees and says.

    async def start_initial(self, counts: Mapping[Placement, int]) -> None:
        """Start these servers and return when all are READY. Raises the first ServerError."""
        self._want(counts, {})
        starting = self.members
        while not all(member.settled for member in starting):
            await self._one_settled.wait()
            self._one_settled.clear()
            if self.failures:
                raise self.failures[0]

    async def observe(self) -> Observation:
        now_s = self._clock.now_s()
        seats = {
            id(seat.server): seat
            for pool in {placement.pool for placement in self._placements}
            for seat in self._router.seats(pool)
        }
        return Observation(
            at_s=now_s,
            limits=self._limits,
            placements={
                placement: placement_state(
                    members,
                    [seats[id(m.server)] for m in members if id(m.server) in seats],
                    now_s,
                    [restart.at_s + self._capacity(placement).start_s for restart in self._restarts.of(placement)],
                )
                for placement, members in self._by_placement().items()
            },
            demand=self._meter.history(now_s),
            niw_queued_tokens=self._niw_queue.queued_tokens(),
            niw_due=self._niw_queue.due(),
            previous=self._previous,
        )

    async def apply(self, plan: ScalingPlan) -> None:
        self._previous = plan
        self._want(plan.counts, plan.sleeping)

    # From what stands to what is wanted.

    def _want(self, counts: Mapping[Placement, int], asleep: Mapping[Placement, int]) -> None:
        self._wanted, self._wanted_asleep = Counter(dict(counts)), Counter(dict(asleep))
        self._reconcile()

    def _reconcile(self) -> None:
        """One pass over all placements for each kind of step: no start takes GPUs that a sleeper is to wake on."""
        if self._closing:
            return
        for step in (self._retire_surplus, self._wake_missing, self._start_missing, self._stop_spare_sleepers):
            for placement, members in self._by_placement().items():
                step(placement, members)

    def _by_placement(self) -> dict[Placement, list[Member]]:
        by_placement: dict[Placement, list[Member]] = {placement: [] for placement in self._placements}
        for member in self._members:
            by_placement[member.placement].append(member)
        return by_placement

    def _missing(self, placement: Placement, members: list[Member]) -> int:
        """Servers that should serve and do not; below 0, a surplus."""
        serve = sum(member.serves or member.comes_back for member in members)
        return self._wanted[placement] - serve - len(self._restarts.of(placement))

    def _retire_surplus(self, placement: Placement, members: list[Member]) -> None:
        surplus = -self._missing(placement, members)
        if surplus <= 0:
            return
        for restart in self._restarts.of(placement)[-surplus:]:
            self._drop(restart)
            surplus -= 1
        for member in members:
            if surplus and member.comes_back:
                member.comes_back = False
                surplus -= 1
        to_sleep = self._wanted_asleep[placement] - sum(member.sleeps for member in members)
        can_sleep = self._capacity(placement).can_sleep
        for member in sorted((m for m in members if m.serves), key=self._retire_order)[:surplus]:
            if to_sleep > 0 and can_sleep and member.loaded:
                self._retire(member, Order.SLEEP)
                to_sleep -= 1
            else:
                self._retire(member, Order.STOP)

    def _retire_order(self, member: Member) -> tuple[bool, int]:
        """STARTING ones first, then those with the least in flight."""
        ready = member.server.state is ServerState.READY
        seats = self._router.seats(member.placement.pool)
        outstanding = next((seat.outstanding_tokens for seat in seats if seat.server is member.server), 0)
        return (ready, outstanding)

    def _retire(self, member: Member, order: Order) -> None:
        member.tell(order)
        # From this moment on it gets no more requests, also when its task has not run yet.
        self._router.leave(member.placement, member.server)

    def _wake_missing(self, placement: Placement, members: list[Member]) -> None:
        missing = self._missing(placement, members)
        for member in members:
            if missing <= 0:
                return
            if member.sleeps and member.server.state is ServerState.STARTING:
                member.tell(Order.SERVE)  # it wakes up already, only to sleep again
                missing -= 1
            elif member.sleeps and member.wake(self._clock.now_s() + (self._capacity(placement).wake_s or 0.0)):
                missing -= 1

    def _start_missing(self, placement: Placement, members: list[Member]) -> None:
        asleep = sum(member.sleeps and not member.holds_gpus for member in members)
        because = f"GPUs of {asleep} sleeping are taken" if asleep else ""
        for _ in range(self._missing(placement, members)):
            if not self._start(placement, because):
                break

    def _start(self, placement: Placement, because: str) -> bool:
        gpu_indices = self._slots_of(placement).take(self._capacity(placement).gpus)
        if gpu_indices is None:
            return False
        self._begin(placement, gpu_indices, because)
        return True

    def _begin(self, placement: Placement, gpu_indices: tuple[int, ...], because: str, failures: int = 0) -> None:
        """A new server on GPUs that are taken for it."""
        role = "" if placement.role is Role.SHARED else f"-{placement.role.value}"
        silo = f"{placement.model}-{placement.region}{role}"
        self._numbers[silo] += 1
        server = self._make_server(placement, f"{silo}-{self._numbers[silo]}", gpu_indices, because)
        member = Member(
            placement,
            server,
            slots=self._slots_of(placement),
            gpu_indices=gpu_indices,
            ready_at_s=self._clock.now_s() + self._capacity(placement).start_s,
            failures=failures,
        )
        self._members.append(member)
        member.task = self._tasks.create_task(self._live(member), name=f"server {server.server_id}")

    def _stop_spare_sleepers(self, placement: Placement, members: list[Member]) -> None:
        sleepers = [member for member in members if member.sleeps]
        kept = self._wanted_asleep[placement] + max(0, self._missing(placement, members))
        # Those that could not wake now are the least use.
        sleepers.sort(key=lambda member: member.can_wake)
        for member in sleepers[: max(0, len(sleepers) - kept)]:
            self._retire(member, Order.STOP)

    def _capacity(self, placement: Placement) -> Capacity:
        return self._limits.capacity[placement.model, placement.gpu_type]

    def _slots_of(self, placement: Placement) -> GpuSlots:
        return self._slots[placement.region, placement.gpu_type]

    # The life of a server.

    async def _live(self, member: Member) -> None:
        """The whole life of one server. Its GPUs are given back whatever happens."""
        try:
            await member.live(drain_s=self._drain_s, join=lambda: self._join(member), on_asleep=self._reconcile)
        except ServerError as error:
            self.failures.append(error)
            self._lose(member)
        finally:
            self._router.leave(member.placement, member.server)
            self._settle(member)
            try:
                await member.stop_for_sure(self._drain_s)
            finally:
                self._members.remove(member)
                if member.comes_back and not self._closing:
                    self._recover(member)
                else:
                    member.free_gpus()
                self._reconcile()

    def _join(self, member: Member) -> None:
        if member.ready_s is None:
            member.ready_s = self._clock.now_s()
        self._router.join(member.placement, member.server, self._capacity_tokens(member.server))
        self._settle(member)

    def _settle(self, member: Member) -> None:
        member.settled = True
        self._one_settled.set()

    def server_died(self, server_id: str) -> None:
        """A server has FAILED: it gets no more requests, and its life comes to its end."""
        for member in self._members:
            if member.server.server_id == server_id:
                self._router.leave(member.placement, member.server)
                self._lose(member)

    def _lose(self, member: Member) -> None:
        """A server failed. Its GPUs are cleared first; a second telling changes nothing."""
        if member.order is Order.SERVE and member.holds_gpus:
            member.comes_back = True
            again_s = self._recovery.restart_s(self._failures(member)) or 0.0
            member.ready_at_s = self._clock.now_s() + again_s + self._capacity(member.placement).start_s
        member.tell(Order.STOP)

    # What becomes of its slot.

    def _recover(self, member: Member) -> None:
        """Nothing is left of a server that failed and is wanted: start it again later, or give its GPUs up."""
        placement, now_s = member.placement, self._clock.now_s()
        failures = self._failures(member)
        after_s = self._recovery.restart_s(failures)
        if after_s is None:
            self._give_up(placement, member.gpu_indices)
            self._given_up(member.server.server_id)
            return
        restart = Restart(placement=placement, gpu_indices=member.gpu_indices, failures=failures, at_s=now_s + after_s)
        self._restarts.add(restart, after_s)

    def _failures(self, member: Member) -> int:
        return failures_in_a_row(member, self._clock.now_s(), self._recovery.stable_after_s)

    def _restart(self, restart: Restart) -> None:
        because = f"again, after {restart.failures} failure{'s' if restart.failures > 1 else ''}"
        self._begin(restart.placement, restart.gpu_indices, because, restart.failures)

    def _drop(self, restart: Restart) -> None:
        self._restarts.drop(restart)
        gpus = self._capacity(restart.placement).gpus
        self._slots_of(restart.placement).give_back(restart.gpu_indices, gpus)

    def _give_up(self, placement: Placement, gpu_indices: tuple[int, ...]) -> None:
        """The GPUs stay taken for good, and are no part of the quota any more; who sleeps on them could never wake."""
        key = (placement.region, placement.gpu_type)
        # Shares of a GPU, taken away one by one, leave a hair less than is left.
        left = max(0.0, round(self._limits.quota_gpus[key] - self._capacity(placement).gpus, 9))
        self._limits = replace(self._limits, quota_gpus=MappingProxyType({**self._limits.quota_gpus, key: left}))
        self._wanted[placement] -= 1
        for member in self._members:
            on_them = member.placement.region == placement.region and set(member.gpu_indices) & set(gpu_indices)
            if member.sleeps and on_them and not member.can_wake:
                self._retire(member, Order.STOP)

"""One policy's run of a workload, from the first server to the last completion: the same in all three modes."""

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from controller.records import encode
from controller.rules.ordering import request_ranking
from controller.rules.roles import deal_start_state
from controller.types import FleetLimits, Observation, Placement, Policy, Pool
from results.recorder import RunRecorder
from results.schema import GIVEN_UP
from testbed.callback_faults import CallbackFaults
from testbed.capacity_table import CapacityTable
from testbed.demand_meter import DemandMeter
from testbed.fault_injection import FaultInjection
from testbed.fault_schedule import fault_schedule
from testbed.fleet import ServerFleet
from testbed.gauge_record import record_gauges
from testbed.gpu_record import record_gpus
from testbed.live_events import Began, Decided, HandedOver, Listener, Served
from testbed.niw_queue import NiwQueue
from testbed.offered_load import OfferedLoad
from testbed.router import Router
from testbed.scenario import Mode, Scenario
from testbed.server import Server, ServerState
from testbed.server_changes import ServerChanges
from testbed.server_sources import ServerSource
from testbed.starting_point import StartingPoint, first_moment
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.replay import Replay, ReplayReport
from workloads.request import Request, Tier
from workloads.self_watch import ClientHealth, SelfWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every policy of a run shares: the scenario, its workload, its limits, and where servers come from.

    `limits` are those of one shared role; a policy's run has that policy's roles. `capacity_table`, new for each
    policy, follows the length mix; None leaves the capacities as they are. `service_s_per_token`: by model, how long a
    request is in a server at theta for each of its tokens.
    """

    scenario: Scenario
    load: OfferedLoad
    limits: FleetLimits
    capacity_table: Callable[[], CapacityTable] | None
    source: ServerSource
    service_s_per_token: Mapping[str, float]


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a policy's run has come, for whoever shows it. Read at any moment; written by the run alone."""

    policy: str
    horizon_s: float
    offered: int
    now_s: float = 0.0
    arrived: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    niw_queued: int = 0
    replayed: ReplayReport | None = None
    client: ClientHealth | None = None
    servers: dict[tuple[str, ServerState], int] = field(default_factory=dict)

    @property
    def ended(self) -> int:
        return sum(self.outcomes.values())


class PolicyRun:
    """Runs one policy and records it. `run` returns at the end of the run in seconds; every request has ended then.

    When cancelled it stops every server, and what was in flight is recorded as failed. `listener` hears of what happens
    as it happens; None costs nothing. `starting_point`: where a run that was cut off goes on; None of one that begins.
    """

    def __init__(
        self,
        setting: Setting,
        policy: Policy,
        recorder: RunRecorder,
        progress: Progress,
        folder: Path,
        listener: Listener | None = None,
        starting_point: StartingPoint | None = None,
    ) -> None:
        begins = starting_point or first_moment(setting.load.trace)
        scenario, limits = setting.scenario, replace(setting.limits, roles=policy.roles)
        self._setting = setting
        self._policy = policy
        self._recorder = recorder
        self._progress = progress
        self._folder = folder
        self._listener = listener
        self._begins = begins
        self._clock = RunClock()
        self._start_clock()
        self._recorded = None if begins.decided is None else begins.decided[0]
        self._changes = ServerChanges(recorder, self._clock, self._gpus_of, listener)
        self._callbacks = CallbackFaults()
        self._grace: asyncio.Timeout | None = None
        self._watch: SelfWatch | None = None
        self._lateness_told = 0
        preferred = {region: scenario.preferred_regions(region) for region in limits.regions}
        pools = tuple(Pool(model, region) for model in limits.models for region in limits.regions)
        self._meter = DemandMeter(
            pools,
            bin_s=scenario.demand_bin_s,
            interactive_before=setting.load.interactive_before,
            output_before=setting.load.output_before,
            niw_before=setting.load.niw_before,
            slos=scenario.slos(),
        )
        begins.tell(self._meter)
        progress.now_s, progress.arrived = begins.from_s, len(begins.ended) + len(begins.outstanding)
        for completion in begins.ended:
            progress.outcomes[completion.outcome] += 1
        self._router = Router(
            clock=self._clock,
            pools=pools,
            preferred=preferred,
            rules=scenario.router.rules(scenario.seed),
            no_server_timeout_s=scenario.router.no_server_timeout_s,
            request_timeout_s=scenario.request_timeout_s,
            on_end=self._ended,
            on_room=self._has_room,
            why_ending=self._why_ending,
            roles=limits.roles,
            rtt_s=limits.rtt_s,
            tokens_per_s=lambda placement: limits.capacity[placement.model, placement.gpu_type].theta_tokens_per_s,
            ranking=request_ranking(scenario.router.order, scenario.slos()),
            retries=scenario.recovery.request_retries,
            admission=scenario.router.admission(),
        )
        niw_deadline_s = scenario.slos()[Tier.NIW].deadline_s or math.inf
        self._niw_queue = NiwQueue(
            scenario.niw.rules(scenario.router.region_threshold, setting.service_s_per_token, niw_deadline_s),
            deadline_after_s=niw_deadline_s,
            clock=self._clock,
            models=limits.models,
            preferred=preferred,
            utilisation=self._router.niw_utilisation,
            release=self._router.serve,
        )
        self._fleet = ServerFleet(
            clock=self._clock,
            limits=limits,
            slots=setting.source.slots(),
            make_server=self._make_server,
            router=self._router,
            niw_queue=self._niw_queue,
            meter=self._meter,
            capacity_tokens=setting.source.capacity_tokens,
            drain_s=scenario.drain_s,
            recovery=scenario.recovery,
            given_up=self._given_up,
            previous=begins.plan,
            numbers=begins.server_numbers,
        )
        self._faults = FaultInjection(self._fleet, recorder, self._clock)
        self._table = setting.capacity_table() if setting.capacity_table is not None else None
        self._max_queued = scenario.niw.max_queued
        self._mix_until_s = 0.0
        self._replay = Replay(begins.replay.scheduled, self._arrived, self._clock, begins.replay.following)

    async def run(self) -> float:
        """Start the initial servers, replay, decide, and stop everything. Returns the end in seconds.

        Raises ServerError when an initial server does not start.
        """
        with self._callbacks:
            return await self._run()

    async def _run(self) -> float:
        setting, scenario, trace = self._setting, self._setting.scenario, self._setting.load.trace
        async with self._fleet:
            try:
                await self._fleet.start_initial(self._start_state())
            finally:
                self._begin()
            async with asyncio.TaskGroup() as background:
                tasks = [
                    background.create_task(self._decide_forever(), name="controller"),
                    background.create_task(self._niw_queue.promote(), name="NIW queue"),
                    background.create_task(
                        record_gauges(
                            self._fleet,
                            self._niw_queue,
                            self._recorder,
                            self._clock,
                            scenario.gauge_every_s,
                            self._listener,
                            self._sampled,
                        ),
                        name="gauges",
                    ),
                    background.create_task(
                        self._faults.strike(
                            fault
                            for fault in fault_schedule(scenario.faults, trace.horizon_s, scenario.seed)
                            if fault.at_s >= self._begins.from_s
                        ),
                        name="faults",
                    ),
                    background.create_task(
                        record_gpus(
                            setting.source.gpu_indices(),
                            self._recorder,
                            self._clock,
                            scenario.gauge_every_s,
                            self._listener,
                        ),
                        name="GPUs",
                    ),
                    background.create_task(self._callbacks.first(), name="callbacks"),
                ]
                if scenario.mode is not Mode.VIRTUAL:  # there, nothing is ever late
                    self._watch = SelfWatch(self._clock)
                    tasks.append(background.create_task(self._watch.beat(), name="heartbeat"))
                await self._serve_all()
                await self._clock.sleep_until(trace.horizon_s)
                for task in tasks:
                    task.cancel()
            end_s = self._clock.now_s()
            if self._listener is not None:
                self._listener(Served(at_s=end_s))
            return end_s

    def _with_mix(self, seen: Observation) -> Observation:
        """With the limits at the length mix seen lately: the same object until the mix moves."""
        if self._table is None or seen.demand.until_s <= self._mix_until_s:
            return seen
        self._mix_until_s = seen.demand.until_s
        moved = self._table.limits(self._meter.mix(seen.at_s))
        if moved.capacity is self._fleet.limits.capacity:
            return seen
        self._fleet.move_capacity(moved.capacity)
        return replace(seen, limits=self._fleet.limits)

    def _start_state(self) -> Mapping[Placement, int]:
        """The servers that a run begins with; of one that was cut off, those that it wanted last."""
        plan = self._begins.plan
        if plan is not None:
            return plan.counts
        return deal_start_state(self._setting.scenario.initial_counts(), self._policy.roles)

    def _start_clock(self) -> None:
        """Make this moment the run's first."""
        self._clock.start(asyncio.get_running_loop().time() - self._begins.from_s)

    def _begin(self) -> None:
        """Time 0 is when the initial servers are READY; what they did until then lies before it. A run that was cut off
        goes on when they are READY again: meanwhile its time stood still."""
        begins = self._begins
        before_s = self._clock.now_s() - begins.from_s
        self._start_clock()
        self._changes.begin(before_s, begins.from_s, begins.lost)
        if self._listener is not None:
            self._listener(Began(before_s=before_s))
            for completion in begins.ended:
                self._listener(completion)

    async def _serve_all(self) -> None:
        """Replay the workload and wait until every request has ended, `grace_s` after its horizon at most."""
        last_s = self._setting.load.trace.horizon_s + self._setting.scenario.grace_s
        try:
            async with asyncio.timeout_at(self._clock.loop_time(last_s)) as self._grace:
                for lost in self._begins.lost_requests:
                    self._ended(lost)
                for request in self._begins.waiting:
                    self._niw_queue.add(request)
                await self._replay.run()
                await self._niw_queue.emptied()
                await self._router.idle()
        except TimeoutError:
            pass  # who is not done is told so
        finally:
            self._router.cut_off()
            replayed = self._progress.replayed = self._replay.report()
            if self._watch is not None:
                self._progress.client = self._watch.health(replayed.lateness_s)
            # Of an interrupted run, what had not arrived is not recorded; a turn that came too late has had its chance.
            too_late = self._replay.unsent_turns() if self._grace is not None and self._grace.expired() else []
            self._progress.arrived += len(too_late)
            for request in (*self._niw_queue.drain(), *too_late):
                self._router.end_unsent(request)

    def _why_ending(self) -> str:
        """Why a request that is cut off now does not go on."""
        if self._grace is not None and self._grace.expired():
            return f"not done {self._setting.scenario.grace_s:g} s after the end of the workload"
        return "the run was interrupted"

    # Requests.

    def _arrived(self, request: Request) -> None:
        now_s = self._clock.now_s()
        self._meter.arrived(request, now_s)
        self._progress.arrived += 1
        self._progress.now_s = now_s
        if request.tier is not Tier.NIW:
            self._router.serve(request)
        elif self._max_queued is None or self._niw_queue.length_of(request.model) < self._max_queued:
            self._niw_queue.add(request)
        else:
            self._router.refuse(
                request, f"overload: {self._max_queued} requests of {request.model} are in the NIW queue"
            )

    def _has_room(self, pool: Pool) -> None:
        self._niw_queue.offer(pool)

    def _ended(self, completion: Completion) -> None:
        self._meter.ended(completion, self._clock.now_s())
        self._recorder.completion(completion)
        self._progress.outcomes[completion.outcome] += 1
        if self._listener is not None:
            self._listener(completion)
        self._replay.ended(completion.request.request_id)

    # Servers.

    def _make_server(self, placement: Placement, server_id: str, gpu_indices: tuple[int, ...], because: str) -> Server:
        self._changes.made(server_id, placement)
        self._state_changed(server_id, ServerState.STARTING, because)
        server = self._setting.source.make(
            placement,
            server_id,
            gpu_indices,
            clock=self._clock,
            on_change=self._state_changed,
            tasks=self._fleet.tasks,
            folder=self._folder,
        )
        self._faults.started(server)
        return server

    def _given_up(self, server_id: str) -> None:
        """The GPUs of this server, which has failed, are no part of the fleet any more."""
        self._recorder.fault(at_s=self._clock.now_s(), kind=GIVEN_UP, server_id=server_id)

    def _state_changed(self, server_id: str, state: ServerState, reason: str) -> None:
        self._changes.entered(server_id, state, reason)
        self._progress.servers = self._fleet.counts()
        if state is ServerState.FAILED:
            self._fleet.server_died(server_id)

    def _gpus_of(self, placement: Placement) -> float:
        return self._setting.limits.capacity[placement.model, placement.gpu_type].gpus

    # In the background.

    async def _decide_forever(self) -> None:
        """The controller: observe, decide, record, apply, wait for the time the plan names."""
        loop = asyncio.get_running_loop()
        if self._begins.plan is not None:
            await self._clock.sleep_until(self._begins.plan.next_decision_s)
        while True:
            seen = self._with_mix(await self._fleet.observe())
            # In real time a solver must not hold up the load generator; in virtual time this runs at once.
            plan = await loop.run_in_executor(None, self._policy.decide, seen)
            self._recorder.decision(encode(seen, plan, self._recorded))
            self._recorded = seen
            if self._listener is not None:
                self._listener(Decided(seen=seen, plan=plan))
            await self._fleet.apply(plan)
            await self._clock.sleep_until(plan.next_decision_s)

    def _sampled(self, seen: Observation) -> None:
        progress = self._progress
        progress.now_s = seen.at_s
        progress.niw_queued = len(self._niw_queue)
        progress.servers = self._fleet.counts()
        if self._listener is not None and self._watch is not None:
            lateness_s = self._replay.lateness_s.since(self._lateness_told)
            self._lateness_told += len(lateness_s)
            self._listener(HandedOver(at_s=seen.at_s, lateness_s=lateness_s))

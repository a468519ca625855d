"""A server that does what it is told, a fleet of such, and a small experiment on emulated servers."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.rules.niw import NiwRules
from controller.rules.routing import RoutingRules
from controller.types import Capacity, FleetLimits, Placement, Pool, Role, ScalingPlan
from profiler.profile import ServerProfile
from profiler.profile_parts import EngineArgs, KvCache, ProfiledGpu, ProfiledModel, Provenance
from profiler.profile_parts import Lifecycle as LifecycleTimes
from profiler.step_time import StepTimeModel
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from testbed.cli import main
from testbed.demand_meter import DemandMeter
from testbed.fault import Fault
from testbed.fault_parts import RecoveryConfig
from testbed.fleet import ServerFleet
from testbed.gpu_slots import GpuSlots
from testbed.lifecycle import Lifecycle
from testbed.live_snapshot import RunFacts
from testbed.niw_queue import NiwQueue
from testbed.policy_run import PolicyRun, Progress
from testbed.router import Router
from testbed.run import Experiment, prepare
from testbed.scenario_file import load_scenario
from testbed.server import NOTHING, BreakOff, Ended, Received, ServerError, ServerLoad, ServerSpec, ServerState
from testbed.virtual_time import VirtualTimeLoop
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import SAGESERVE_SLOS, Slo

Change = tuple[float, str, ServerState, str]
WEST = Placement("m", "west", "h100")


def _in_virtual_time(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


def _request(
    request_id: int = 0,
    *,
    arrival_s: float = 0.0,
    model: str = "m",
    region: str = "west",
    tier: Tier = Tier.IW_F,
    tokens: int = 100,
) -> Request:
    return Request(
        request_id=request_id,
        arrival_s=arrival_s,
        model=model,
        region=region,
        tier=tier,
        prompt_tokens=tokens // 2,
        output_tokens=tokens - tokens // 2,
    )


@dataclass(eq=False)
class ScriptedServer:
    """Takes `start_s` to start, `serve_s` a request, `stop_s` to stop; `refuses_to_start` says why it cannot start, and
    so with sleeping and waking. It `loses` so many requests, the first that it gets."""

    server_id: str
    clock: RunClock
    on_change: Callable[[str, ServerState, str], None] = lambda *_: None
    placement: Placement = WEST
    gpus: float = 1.0
    start_s: float = 10.0
    serve_s: float = 5.0
    loses: int = 0
    stop_s: float = 2.0
    sleep_s: float = 1.0
    wake_s: float = 3.0
    refuses_to_start: str = ""
    refuses_to_sleep: str = ""
    refuses_to_wake: str = ""
    gpu_indices: tuple[int, ...] = ()
    kv_capacity_tokens: int = 1000
    sent: list[Request] = field(default_factory=list)
    priorities: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spec = ServerSpec(
            model=self.placement.model, region=self.placement.region, gpu_type=self.placement.gpu_type, gpus=self.gpus
        )
        self._lifecycle = Lifecycle(self.server_id, self.on_change)
        self._over = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_flight = 0

    @property
    def state(self) -> ServerState:
        return self._lifecycle.state

    async def start(self) -> None:
        await asyncio.sleep(self.start_s)
        if self.refuses_to_start:
            self._lifecycle.to(ServerState.FAILED, self.refuses_to_start)
            await asyncio.sleep(0)  # as a real server, which ends its process before it says why
            raise ServerError(self.refuses_to_start)
        self._lifecycle.to(ServerState.READY)

    def begin(self, request: Request, ended: Ended, priority: int | None = None) -> BreakOff:
        self.priorities.append(priority)

        async def to_its_end() -> None:
            ended(await self.send(request))

        task = asyncio.get_running_loop().create_task(to_its_end())

        def break_off() -> Received:
            task.cancel()
            return NOTHING

        return break_off

    async def send(self, request: Request) -> Completion:
        assert self.state is ServerState.READY, "the router sends to READY servers only"
        sent_s = self.clock.now_s()
        self.sent.append(request)
        self._in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(self.serve_s):
                await self._over.wait()
            outcome, reason, tokens = Outcome.FAILED, f"server {self.server_id} is over", 0
        except TimeoutError:
            outcome, reason, tokens = Outcome.COMPLETED, "", request.output_tokens
            if len(self.sent) <= self.loses:
                outcome, reason, tokens = Outcome.FAILED, f"{self.server_id} lost it", 0
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        now_s = self.clock.now_s()
        return Completion(
            request=request,
            server_id=self.server_id,
            region=self.spec.region,
            sent_s=sent_s,
            first_token_s=now_s if tokens else None,
            last_token_s=now_s,
            output_tokens=tokens,
            outcome=outcome,
            reason=reason,
        )

    async def load(self) -> ServerLoad:
        return ServerLoad(
            at_s=self.clock.now_s(), num_requests_running=self._in_flight, num_requests_waiting=0, kv_cache_usage=0.0
        )

    async def sleep(self, drain_s: float) -> None:
        self._lifecycle.to(ServerState.DRAINING, "to sleep")
        await self._drain(drain_s)
        await asyncio.sleep(self.sleep_s)
        if self.refuses_to_sleep:
            self._lifecycle.to(ServerState.STOPPING, self.refuses_to_sleep)
            raise ServerError(self.refuses_to_sleep)
        self._lifecycle.to(ServerState.SLEEPING)

    async def wake(self) -> None:
        self._lifecycle.to(ServerState.STARTING, "waking")
        await asyncio.sleep(self.wake_s)
        if self.refuses_to_wake:
            self._lifecycle.to(ServerState.FAILED, self.refuses_to_wake)
            raise ServerError(self.refuses_to_wake)
        self._lifecycle.to(ServerState.READY)

    async def _drain(self, drain_s: float) -> None:
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            self._over.set()

    async def stop(self, drain_s: float) -> None:
        if self.state in (ServerState.STOPPED, ServerState.FAILED):
            return
        if self.state is ServerState.READY:
            self._lifecycle.to(ServerState.DRAINING)
        if self.state is ServerState.DRAINING:
            await self._drain(drain_s)
        if self.state is not ServerState.STOPPING:
            self._lifecycle.to(ServerState.STOPPING)
        await asyncio.sleep(self.stop_s)
        self._lifecycle.to(ServerState.STOPPED)

    def die(self, reason: str) -> None:
        """From one moment to the next, with all that it has."""
        self._over.set()
        self._lifecycle.to(ServerState.FAILED, reason)

    def inject(self, fault: Fault) -> None:
        self.die(f"fault: {fault.kind}")


WEST_POOL, EAST_POOL = Pool("m", "west"), Pool("m", "east")


class RoutingScene:
    """A router of one model in two regions, and what it told. Make it inside a running loop."""

    def __init__(self, **changes: Any) -> None:
        self.clock = RunClock()
        self.ended: list[Completion] = []
        self.room: list[Pool] = []
        self.router = Router(
            **{
                "clock": self.clock,
                "pools": (WEST_POOL, EAST_POOL),
                "preferred": {"west": ("west", "east"), "east": ("east", "west")},
                "rules": RoutingRules(),
                "no_server_timeout_s": 50.0,
                "request_timeout_s": None,
                "on_end": self.ended.append,
                "on_room": self.room.append,
                "why_ending": lambda: "the run was broken off",
                **changes,
            }
        )

    async def ready(
        self,
        name: str,
        pool: Pool = WEST_POOL,
        capacity_tokens: float = 1000.0,
        *,
        role: Role = Role.SHARED,
        **given: Any,
    ) -> ScriptedServer:
        """A server that is READY and known to the router."""
        placement = Placement(pool.model, pool.region, "h100", role)
        server = ScriptedServer(name, self.clock, placement=placement, **{"start_s": 0.0, **given})
        await server.start()
        self.router.join(placement, server, capacity_tokens)
        return server

    def leave(self, server: ScriptedServer) -> None:
        self.router.leave(server.placement, server)


class SmallFleet:
    """Two regions of `gpus` GPUs each, and everything a fleet needs. Make it inside a running loop.

    `change` is called with every server that is made, before it starts.
    """

    def __init__(
        self,
        *,
        gpus: int = 4,
        models: Mapping[str, int] | None = None,
        change: Callable[[ScriptedServer], None] = lambda _: None,
        drain_s: float = 100.0,
        roles: tuple[Role, ...] = (Role.SHARED,),
        can_sleep: bool = True,
        recovery: RecoveryConfig | None = None,
    ) -> None:
        self.given_up: list[str] = []
        sizes = dict(models or {"m": 1})
        self.clock = RunClock()
        self.limits = FleetLimits(
            models=tuple(sizes),
            regions=("west", "east"),
            capacity={
                (model, "h100"): Capacity(
                    theta_tokens_per_s=1000.0,
                    gpus=size,
                    start_s=10.0,
                    sleep_s=1.0 if can_sleep else None,
                    wake_s=3.0 if can_sleep else None,
                )
                for model, size in sizes.items()
            },
            quota_gpus={("west", "h100"): gpus, ("east", "h100"): gpus},
            min_servers=0,
            roles=roles,
        )
        self.slots = {
            ("west", "h100"): GpuSlots(range(gpus)),
            ("east", "h100"): GpuSlots(range(gpus, 2 * gpus)),
        }
        self.servers: list[ScriptedServer] = []
        self.changes: list[Change] = []
        self.completions: list[Completion] = []
        self._change = change
        pools = tuple(Pool(model, region) for model in sizes for region in ("west", "east"))
        self.meter = DemandMeter(
            pools, bin_s=60.0, interactive_before={}, output_before={}, niw_before={}, slos=SAGESERVE_SLOS
        )
        preferred = {"west": ("west", "east"), "east": ("east", "west")}
        self.router = Router(
            clock=self.clock,
            pools=pools,
            preferred=preferred,
            rules=RoutingRules(),
            roles=roles,
            no_server_timeout_s=50.0,
            request_timeout_s=None,
            on_end=self.completions.append,
            on_room=lambda _: None,
            why_ending=lambda: "the run was broken off",
        )
        self.fleet = ServerFleet(
            clock=self.clock,
            limits=self.limits,
            slots=self.slots,
            make_server=self._make,
            router=self.router,
            niw_queue=NiwQueue(
                NiwRules(),
                clock=self.clock,
                models=tuple(sizes),
                preferred=preferred,
                utilisation=self.router.utilisation,
                release=lambda *_: None,
            ),
            meter=self.meter,
            capacity_tokens=lambda server: float(server.kv_capacity_tokens),
            drain_s=drain_s,
            recovery=recovery or RecoveryConfig(),
            given_up=self.given_up.append,
        )

    def _make(self, placement: Placement, server_id: str, gpu_indices: tuple[int, ...], because: str) -> ScriptedServer:
        self.changes.append((self.clock.now_s(), server_id, ServerState.STARTING, because))
        server = ScriptedServer(
            server_id,
            self.clock,
            self._changed,
            placement,
            gpus=self.limits.capacity[(placement.model, placement.gpu_type)].gpus,
            gpu_indices=gpu_indices,
        )
        self._change(server)
        self.servers.append(server)
        return server

    def _changed(self, server_id: str, state: ServerState, reason: str) -> None:
        self.changes.append((self.clock.now_s(), server_id, state, reason))
        if state is ServerState.FAILED:
            self.fleet.server_died(server_id)

    def place(self, region: str = "west", model: str = "m") -> Placement:
        return Placement(model, region, "h100")

    async def want(self, west: int = 0, east: int = 0, model: str = "m", *, asleep: int = 0) -> None:
        """Apply a plan of so many servers, and so many `asleep` in west."""
        counts = {self.place("west", model): west, self.place("east", model): east}
        sleeping = {self.place("west", model): asleep} if asleep else {}
        await self.fleet.apply(ScalingPlan(counts=counts, sleeping=sleeping, next_decision_s=0.0))

    def used_gpus(self, region: str = "west") -> float:
        return self.slots[(region, "h100")].used_gpus

    def in_state(self, state: ServerState) -> list[str]:
        return [server.server_id for server in self.servers if server.state is state]


def _profile() -> ServerProfile:
    """A server with room for 4096 tokens that is slow enough to be filled by a few requests per second."""
    return ServerProfile(
        name="slow",
        kind="analytical",
        model=ProfiledModel(name="slow"),
        gpu=ProfiledGpu(type="h100", count=1),
        engine=EngineArgs(max_num_seqs=32, max_num_batched_tokens=1024, max_model_len=2048),
        kv_cache=KvCache(num_gpu_blocks=256, block_size=16, max_tokens=4096),
        step_time=StepTimeModel.roofline(
            overhead_s=0.01,
            weights_s=0.02,
            per_token_s=2e-4,
            per_sequence_s=1e-4,
            per_kv_token_s=1e-6,
            per_prefill_pair_s=1e-8,
        ),
        lifecycle=LifecycleTimes(warm_start_s=10.0, stop_s=3.0),
        provenance=Provenance(source="made up"),
    )


SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 5,
    "models": {"a": {"profiles": {"h100": "slow.json"}, "max_num_seqs": 32, "max_num_batched_tokens": 1024}},
    "regions": {"west": {"gpus": {"h100": 4}}, "east": {"gpus": {"h100": 3}}},
    "workload": {
        "history_h": 24,
        "synthetic": {
            "day_s": 200,
            "horizon_h": 24,
            "mean_requests_per_s": 5.0,
            "shares_of": "requests",
            "models": {
                "a": {
                    "share": 1.0,
                    "max_model_len": 2048,
                    "prompt_tokens": [[0.0, 20], [0.9, 400], [1.0, 1500]],
                    "output_tokens": [[0.0, 2], [0.5, 60], [1.0, 200]],
                },
            },
            "regions": {"west": {"share": 0.6}, "east": {"share": 0.4}},
            "tenants": 1,
        },
    },
    "tiers": {"IW-F": {"ttft_s": 3.0}},
    "niw": {"promote_after_s": 120},
    "demand_bin_s": 5,
    "gauge_every_s": 10,
    "drain_s": 20,
    "grace_s": 600,
    "policies": {
        "reactive": {"interval_s": 5},
        "static": {},
        "lt-i": {
            "period_s": 50,
            "interval_s": 5,
            "forecast": {"method": "seasonal-naive", "step_s": 10, "season_s": 200},
        },
        "lt-u": {
            "period_s": 50,
            "interval_s": 5,
            "forecast": {"method": "last-level", "step_s": 10, "season_s": 200},
        },
        "lt-ua": {
            "period_s": 50,
            "interval_s": 5,
            "late_window_s": 20,
            "observed_window_s": 10,
            "forecast": {"method": "seasonal-naive", "step_s": 10, "season_s": 200},
        },
    },
}


class SmallScenario:
    """Writes the scenario `SMALL`, changed as told, into a folder, with the profile it needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _profile().save(folder / "slow.json")

    def values(self, **changes: Any) -> dict[str, Any]:
        """A fresh copy with top-level keys replaced."""
        values = deepcopy(SMALL)
        values["models"]["a"]["profiles"]["h100"] = str(self.folder / "slow.json")
        return {**values, **changes}

    def write(self, values: Mapping[str, Any] | None = None) -> Path:
        path = self.folder / "small.yaml"
        path.write_text(yaml.safe_dump(dict(values or self.values()), sort_keys=False), encoding="utf-8")
        return path

    def experiment(self, *overrides: str, values: Mapping[str, Any] | None = None) -> Experiment:
        return prepare(*load_scenario(str(self.write(values)), overrides), [])


def _run_policy(experiment: Experiment, policy: str, folder: Path) -> PolicyFolder:
    """Run one policy to its end in virtual time; returns what it recorded."""
    trace = experiment.setting.load.trace
    progress = Progress(policy=policy, horizon_s=trace.horizon_s, offered=len(trace))

    async def run(recorder: RunRecorder) -> None:
        await PolicyRun(experiment.setting, experiment.policies[policy], recorder, progress, folder).run()

    with RunRecorder(folder) as recorder:
        _in_virtual_time(run(recorder))
    return PolicyFolder(name=policy, path=folder)


@pytest.fixture(scope="session")
def in_virtual_time() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    return _in_virtual_time


@pytest.fixture(scope="session")
def make_request() -> Callable[..., Request]:
    return _request


@pytest.fixture(scope="session")
def scripted_server() -> type[ScriptedServer]:
    return ScriptedServer


@pytest.fixture(scope="session")
def routing_scene() -> type[RoutingScene]:
    return RoutingScene


@pytest.fixture(scope="session")
def small_fleet() -> type[SmallFleet]:
    return SmallFleet


@pytest.fixture(scope="session")
def slow_profile() -> ServerProfile:
    return _profile()


@pytest.fixture(scope="session")
def make_small_scenario() -> type[SmallScenario]:
    return SmallScenario


@pytest.fixture
def small_scenario(tmp_path: Path) -> SmallScenario:
    return SmallScenario(tmp_path)


@pytest.fixture(scope="session")
def run_facts() -> RunFacts:
    """What a live view is told of a run of 200 s under one policy."""
    return RunFacts(
        scenario="small",
        mode="emulated",
        seed=5,
        policies=("lt-ua",),
        horizon_s=200.0,
        grace_s=600.0,
        demand_bin_s=5.0,
        slos={Tier.IW_F: Slo(ttft_s=3.0), Tier.IW_N: Slo(ttft_s=60.0), Tier.NIW: Slo(deadline_s=86400.0)},
    )


@pytest.fixture(scope="session")
def run_policy() -> Callable[[Experiment, str, Path], PolicyFolder]:
    return _run_policy


@pytest.fixture(name="testbed")
def _command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `testbed ARGUMENTS` in an empty folder; returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["testbed", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), told.out, told.err

    return run

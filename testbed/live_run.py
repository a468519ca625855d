"""A run under way, for whoever wants to see it: the run tells what happens, and goes on; others look when they like."""

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from controller.types import Observation
from results.standing import STANDING
from testbed.live_decisions import LiveDecisions
from testbed.live_events import (
    Began,
    Decided,
    Event,
    GpuGauge,
    HandedOver,
    PoolGauge,
    Served,
    ServerChange,
    ServerGauge,
)
from testbed.live_grid import Floats, Grid, Name
from testbed.live_pools import LivePools
from testbed.live_requests import LiveRequests
from testbed.live_servers import LiveServers
from testbed.live_snapshot import LiveSnapshot, RunFacts, Stage
from testbed.server import ServerState
from workloads.completion import Completion
from workloads.samples import Samples

# Some 250 MB. Those who look do so twice a second, so that this is reached when nobody looks any more.
MOST_WAITING = 500_000


class LiveRun:
    """One policy's run. `tell` is the run's, from its own thread; `snapshot` everybody's, from any thread.

    To tell is to append to a queue, without a lock: what there is to compute is computed by those who look.
    `arrived` tells how many requests have arrived by now.
    """

    def __init__(self, facts: RunFacts, policy: str, offered: int, arrived: Callable[[], int]) -> None:
        self._facts = facts
        self._policy = policy
        self._offered = offered
        self._arrived = arrived
        self._arrived_by_now = 0
        self._told: deque[Event] = deque()
        self._lost = 0
        self._looking = threading.Lock()
        self._grid = Grid(facts.horizon_s, facts.grace_s, facts.demand_bin_s)
        self._requests = LiveRequests(self._grid, facts.slos)
        self._servers = LiveServers(self._grid)
        self._pools = LivePools(self._grid)
        self._decisions = LiveDecisions()
        self._gpus: dict[int, GpuGauge] = {}
        self._lateness = Samples()
        self._late: dict[str, Floats] = {name: self._grid.empty() for name in ("p50", "p99", "max")}
        self._theta: dict[tuple[str, str], float] = {}
        self._stage = Stage.STARTING
        self._now_s = 0.0
        self._number = 0
        self._newest: LiveSnapshot | None = None

    def tell(self, event: Event) -> None:
        """Something has happened; see live_events.Listener."""
        if len(self._told) < MOST_WAITING:
            self._told.append(event)
        else:
            self._lost += 1

    def end(self) -> None:
        """Nothing more will be told."""
        with self._looking:
            self._take_in()
            self._stage, self._newest = Stage.ENDED, None

    def snapshot(self) -> LiveSnapshot:
        """As of what has been told: the same object as before if that was nothing."""
        with self._looking:
            if self._newest is None or self._told:
                self._take_in()
                self._number += 1
                self._newest = self._drawn()
            return self._newest

    def catch_up(self) -> None:
        """Take in what has been told, for whoever does not need to see it now: so it does not pile up."""
        with self._looking:
            if self._told:
                self._take_in()
                self._newest = None

    def _take_in(self) -> None:
        ended: list[Completion] = []
        waiting = len(self._told)
        # Between the two: whatever has ended by now has arrived, and hardly anything has since.
        self._arrived_by_now = self._arrived()
        for _ in range(waiting):
            event = self._told.popleft()
            match event:
                case Completion():
                    ended.append(event)
                    self._passed(event.last_token_s)
                case Began():
                    self._servers.began(event.before_s)
                    self._stage, self._now_s = Stage.RUNNING, 0.0
                case Served():
                    self._passed(event.at_s)
                    self._stage = Stage.STOPPING
                case Decided():
                    self._passed(event.seen.at_s)
                    self._pools.demanded(event.seen.demand)
                    self._pools.forecast(self._decisions.decided(event))
                    self._theta = self._theta or _theta(event.seen)
                case ServerChange():
                    self._passed(event.at_s)
                    self._servers.changed(event, self._now_s)
                case ServerGauge():
                    self._servers.read(event)
                case PoolGauge():
                    self._passed(event.at_s)
                    self._pools.read(event)
                    if event.demand is not None:
                        self._pools.demanded(event.demand)
                case GpuGauge():
                    self._gpus[event.gpu] = event
                case HandedOver():
                    self._handed_over(event)
        self._requests.ended(ended)

    def _passed(self, at_s: float) -> None:
        if self._stage in (Stage.STARTING, Stage.RUNNING):
            self._now_s = max(self._now_s, at_s)

    def _handed_over(self, event: HandedOver) -> None:
        window = Samples.of(event.lateness_s)
        self._lateness.extend(window)
        found = window.quantiles()
        if found.n:
            for name, series in self._late.items():
                series[self._grid.index(event.at_s)] = getattr(found, name)

    def _drawn(self) -> LiveSnapshot:
        running = self._stage is not Stage.STARTING
        standing = self._servers.standing(self._now_s if running else 0.0)
        series: dict[Name, Floats] = {**self._requests.percentiles(), **self._pools.series()}
        for (model, region, gpu_type, state), servers in standing.servers.items():
            _add(series, ("servers", state), servers)
            if state == ServerState.READY.value:
                _add(series, ("capacity", model, region), servers * self._theta.get((model, gpu_type), np.nan))
        series |= {("lateness", name): values.copy() for name, values in self._late.items()}
        return LiveSnapshot(
            facts=self._facts,
            policy=self._policy,
            number=self._number,
            stage=self._stage,
            now_s=self._now_s,
            offered=self._offered,
            arrived=self._arrived_by_now,
            requests=self._requests.counts(),
            histograms=self._requests.histograms(),
            servers=self._servers.tiles(),
            gpu_hours={state: standing.gpu_hours.get(state, 0.0) for state in STANDING},
            pools=self._pools.latest,
            edges_s=self._grid.edges_s,
            bins=self._grid.index(self._now_s) + 1 if running else 0,
            series=series,
            decisions=self._decisions.log(),
            decisions_total=self._decisions.total,
            terminations=dict(self._decisions.terminations),
            last_solve=self._decisions.last_solve,
            gpus=tuple(self._gpus[gpu] for gpu in sorted(self._gpus)),
            lateness_s=self._lateness.quantiles() if len(self._lateness) else None,
            lost=self._lost,
        )


class LiveRuns:
    """The policies of a run, one after the other: the one that runs now is `current`, None before the first."""

    def __init__(self, facts: RunFacts) -> None:
        self.facts = facts
        self.current: LiveRun | None = None

    def begin(self, policy: str, offered: int, arrived: Callable[[], int]) -> LiveRun:
        """The next policy, of `offered` requests, of which `arrived` tells how many have come by now."""
        self.current = LiveRun(self.facts, policy, offered, arrived)
        return self.current


def _theta(seen: Observation) -> dict[tuple[str, str], float]:
    return {key: capacity.theta_tokens_per_s for key, capacity in seen.limits.capacity.items()}


def _add(series: dict[Name, Floats], name: Name, values: Floats) -> None:
    series[name] = series[name] + values if name in series else values

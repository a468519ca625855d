"""A recorded run shown again as it happened, at any speed."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from results.manifest import RunManifest
from results.run_folder import PolicyFolder, RunFolder
from testbed.live_run import LiveRun, LiveRuns
from testbed.live_snapshot import RunFacts
from testbed.recorded_events import Timed, recorded_events

# What a folder does not say of its scenario: the width of its bins of demand, where no decision tells it.
_DEMAND_BIN_S = 60.0
# Told faster than anybody looks, events are taken in after so many.
_CATCH_UP_AFTER = 20_000


def recorded_facts(run: RunFolder) -> RunFacts:
    """What a run folder says of its run."""
    manifest = run.manifest
    ends_s = [record.end_s for record in manifest.policies.values() if record.end_s is not None]
    return RunFacts(
        scenario=manifest.scenario,
        mode=manifest.mode,
        seed=manifest.seed,
        policies=tuple(manifest.policies),
        horizon_s=manifest.horizon_s,
        grace_s=max(0.0, max(ends_s, default=manifest.horizon_s) - manifest.horizon_s),
        demand_bin_s=_demand_bin_s(run),
        slos=manifest.tier_slos(),
    )


def _demand_bin_s(run: RunFolder) -> float:
    for folder in run.policies():
        for record in folder.decisions():
            with suppress(KeyError, TypeError, ValueError):
                return float(record["seen"]["demand"]["bin_s"])
            break
    return _DEMAND_BIN_S


class Rerun:
    """One policy of a recorded run, told to `runs` again."""

    def __init__(self, manifest: RunManifest, folder: PolicyFolder, runs: LiveRuns) -> None:
        self._manifest = manifest
        self._folder = folder
        self._runs = runs
        self._arrivals_s = np.sort(folder.completions(("arrival_s",))["arrival_s"].to_numpy(np.float64))
        self.now_s = 0.0

    async def play(self, speed: float) -> None:
        """Tell everything at `speed` seconds of the run per second; infinity is as fast as it goes."""
        live = self._runs.begin(self._folder.name, self._manifest.offered_requests, self._arrived)
        end_s = self._manifest.policies[self._folder.name].end_s
        await self._tell(live, recorded_events(self._folder, end_s), speed)
        live.end()

    def _arrived(self) -> int:
        return int(np.searchsorted(self._arrivals_s, self.now_s, side="right"))

    async def _tell(self, live: LiveRun, events: Iterable[Timed], speed: float) -> None:
        loop = asyncio.get_running_loop()
        begin_s: float | None = None
        for number, (at_s, event) in enumerate(events, 1):
            if begin_s is None:
                begin_s = loop.time() - at_s / speed
            ahead_s = begin_s + at_s / speed - loop.time()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif number % _CATCH_UP_AFTER == 0:
                live.catch_up()
                await asyncio.sleep(0)
            self.now_s = max(self.now_s, at_s)
            live.tell(event)

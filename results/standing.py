"""Servers standing over time: who held how many GPUs, in which state, from when to when."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from results.arrays import Floats

# A server holds GPUs in these states, unless it leaves out of sleep. One that wakes up is STARTING.
HOLDING = ("STARTING", "READY", "DRAINING", "STOPPING")
# It has given its GPUs back and holds host memory: it stands, and costs no GPU-hours.
SLEEPING = "SLEEPING"
FAILED = "FAILED"
STANDING = (*HOLDING, SLEEPING)
# Held without serving new requests, because the fleet is changing.
WASTED = ("STARTING", "DRAINING", "STOPPING")
_LEAVING = ("DRAINING", "STOPPING")


def server_intervals(servers: pd.DataFrame, end_s: float) -> pd.DataFrame:
    """One row per stay of a server in a state of STANDING, within the run; `gpus` are those it holds: 0 asleep.

    `servers` are rows of results.schema.SERVERS; a state lasts until the server's next row, the last one until
    `end_s`. Time before 0 and after `end_s` is cut away; what is left of no length is left out. Columns: server_id,
    model, region, gpu_type, role, state, gpus, from_s, to_s.
    """
    ordered = servers.iloc[np.lexsort((np.arange(len(servers)), servers["at_s"], servers["server_id"].cat.codes))]
    at_s = ordered["at_s"].to_numpy(np.float64)
    names = ordered["server_id"].cat.codes.to_numpy()
    until_s = np.full(len(ordered), end_s)
    same = names[1:] == names[:-1]
    until_s[:-1][same] = at_s[1:][same]
    intervals = ordered.drop(columns=["at_s", "reason"]).assign(
        gpus=ordered["gpus"].where(ordered["state"] != SLEEPING, 0.0),
        from_s=np.clip(at_s, 0.0, end_s),
        to_s=np.clip(until_s, 0.0, end_s),
    )
    kept = (intervals["to_s"] > intervals["from_s"]) & intervals["state"].isin(STANDING)
    return intervals[kept].reset_index(drop=True)


def gpu_hours(intervals: pd.DataFrame) -> pd.Series:
    """GPU-hours of each interval."""
    return (intervals["to_s"] - intervals["from_s"]) * intervals["gpus"] / 3600.0


def sleeping_server_hours(intervals: pd.DataFrame) -> float:
    """Hours that servers slept: they cost host memory, not GPUs."""
    asleep = intervals[intervals["state"] == SLEEPING]
    return float((asleep["to_s"] - asleep["from_s"]).sum()) / 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingActions:
    """Servers started (after the start state), told to leave, failed, put to sleep and woken, within the run."""

    starts: int
    stops: int
    failures: int
    sleeps: int = 0
    wakes: int = 0


def scaling_actions(servers: pd.DataFrame, end_s: float) -> ScalingActions:
    """Counted from rows of results.schema.SERVERS.

    The start state is no action: a server STARTING before 0, or READY by 0. A stop is a server's first row that
    leaves (DRAINING or STOPPING) before `end_s`, unless it falls asleep next; what the end of the run stops is none.
    """
    starts = stops = failures = sleeps = wakes = 0
    for _, rows in servers.groupby("server_id", observed=True, sort=False):
        states = rows["state"].tolist()
        times = rows["at_s"].tolist()
        for index, (state, at_s) in enumerate(zip(states, times, strict=True)):
            if not 0 <= at_s < end_s:
                continue
            before = states[index - 1] if index else ""
            after, ends_s = (states[index + 1], times[index + 1]) if index + 1 < len(times) else ("", end_s)
            wakes += state == "STARTING" and before == SLEEPING
            starts += state == "STARTING" and before != SLEEPING and ends_s > 0
            stops += state in _LEAVING and before not in _LEAVING and after != SLEEPING
            failures += state == FAILED
            sleeps += state == SLEEPING
    return ScalingActions(starts=starts, stops=stops, failures=failures, sleeps=sleeps, wakes=wakes)


def mean_standing(intervals: pd.DataFrame, edges_s: Floats, weight: Sequence[float] | Floats | None = None) -> Floats:
    """Time-average of the weight standing (servers, when no weight is given) in each bin between `edges_s`."""
    each = np.ones(len(intervals)) if weight is None else np.asarray(weight, dtype=np.float64)
    return mean_between(intervals["from_s"].to_numpy(np.float64), intervals["to_s"].to_numpy(np.float64), edges_s, each)


def mean_between(from_s: Floats, to_s: Floats, edges_s: Floats, weight: Floats) -> Floats:
    """As `mean_standing`, of intervals that begin at `from_s` and end at `to_s`."""
    total = np.zeros(len(edges_s))
    # The integral of a step function up to t: weight x (time since it began), less that since it ended.
    for ends_s, sign in ((from_s, 1.0), (to_s, -1.0)):
        order = np.argsort(ends_s, kind="stable")
        times = ends_s[order]
        sums = np.concatenate(([0.0], np.cumsum(weight[order])))
        moments = np.concatenate(([0.0], np.cumsum(weight[order] * times)))
        passed = np.searchsorted(times, edges_s, side="right")
        total += sign * (sums[passed] * edges_s - moments[passed])
    return np.maximum(np.diff(total) / np.diff(edges_s), 0.0)

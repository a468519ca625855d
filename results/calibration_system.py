"""The whole system, real and emulated: what it served, what it cost, how full it was, how soon servers started."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from results.calibration import Measure, ServerStarts
from results.calibration_measures import measure, request_measures
from results.run_folder import PolicyFolder, RunFolder
from results.standing import SLEEPING
from results.summarise import summarise
from results.summary import PolicySummary

_Take = Callable[[PolicySummary], float | None]


def system_measures(
    real: Sequence[RunFolder], emulated: RunFolder, policy: str, limits: Mapping[str, float]
) -> tuple[Measure, ...]:
    """Of one policy's runs. The emulated run stands against each of the real ones: it is the same every time."""
    runs = [*real, emulated]
    folders = [run.policy(policy) for run in runs]
    frames = [folder.completions() for folder in folders]
    summaries = [summarise(run).policies[policy] for run in runs]

    def of_summary(name: str, unit: str, take: _Take) -> Measure:
        values = [take(summary) for summary in summaries]
        return measure(name, unit, values[:-1], values[-1:])

    def of_table(name: str, unit: str, take: Callable[[PolicyFolder], float | None]) -> Measure:
        values = [take(folder) for folder in folders]
        return measure(name, unit, values[:-1], values[-1:])

    return (
        *request_measures(frames[:-1], frames[-1:], limits),
        of_summary("SLO met", "share", lambda summary: summary.slo_attainment.all),
        of_summary("goodput", "requests/s", lambda summary: summary.goodput_requests_per_s),
        of_summary("GPU-hours", "h", lambda summary: summary.gpu_hours),
        of_summary("servers started", "", lambda summary: float(summary.scaling.starts)),
        of_summary("servers stopped", "", lambda summary: float(summary.scaling.stops)),
        of_table("utilisation of pools, mean", "share", _utilisation),
        of_table("KV cache in use, mean", "share", lambda folder: _gauge(folder, "kv_cache_usage")),
        of_table("running in a server, mean", "requests", lambda folder: _gauge(folder, "num_requests_running")),
    )


def _utilisation(folder: PolicyFolder) -> float | None:
    """As the controller sees it, over the looks at placements, weighted with their READY servers."""
    pools = folder.pools()
    serving = pools[pools["ready"] > 0]
    return float(np.average(serving["utilisation"], weights=serving["ready"])) if len(serving) else None


def _gauge(folder: PolicyFolder, column: str) -> float | None:
    gauges = folder.gauges()
    return float(gauges[column].mean()) if len(gauges) else None


def server_starts(real: Sequence[PolicyFolder], emulated: PolicyFolder | None) -> tuple[ServerStarts, ...]:
    """By model and GPU type; a server that wakes up is none."""
    ours = _starts_s(real)
    theirs = {} if emulated is None else _starts_s([emulated])
    return tuple(
        ServerStarts(
            model=key[0],
            gpu_type=key[1],
            real=len(ours.get(key, [])),
            real_mean_s=_mean(ours.get(key, [])),
            emulated=len(theirs.get(key, [])),
            emulated_mean_s=_mean(theirs.get(key, [])),
        )
        for key in sorted({*ours, *theirs})
    )


def _starts_s(folders: Sequence[PolicyFolder]) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for folder in folders:
        for _, rows in folder.servers().groupby("server_id", observed=True, sort=False):
            states, times_s = rows["state"].tolist(), rows["at_s"].tolist()
            key = (str(rows["model"].iloc[0]), str(rows["gpu_type"].iloc[0]))
            for index, state in enumerate(states[:-1]):
                woken = index > 0 and states[index - 1] == SLEEPING
                if state == "STARTING" and states[index + 1] == "READY" and not woken:
                    found.setdefault(key, []).append(times_s[index + 1] - times_s[index])
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None

"""How fast traces are drawn, described and learned: CPU seconds and peak memory, one core.

    python benchmarks/synthesis.py [--requests 10_000_000] [--only year|describe|fit]

The first line is the one that matters: a year of minutes with ten million requests, in less than a minute.
"""

import argparse
import resource
import time
from collections.abc import Callable

from workloads.fitting.workload import fit_workload
from workloads.preset import bundled_presets, read_values
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.targets import judge
from workloads.trace import Trace

HOURS_PER_YEAR = 24.0 * 365


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--requests", type=int, default=10_000_000)
    options.add_argument("--only", choices=("year", "describe", "fit"))
    given = options.parse_args()
    if given.only in (None, "year"):
        rate_per_s = given.requests / (HOURS_PER_YEAR * 3600)
        year = SyntheticWorkload(mean_requests_per_s=rate_per_s, horizon_h=HOURS_PER_YEAR)
        _timed("a year", lambda: synthesise(year, 1))
    if given.only == "year":
        return
    preset = SyntheticWorkload.model_validate(read_values(bundled_presets()["sageserve-day"]))
    day = _timed("sageserve-day", lambda: synthesise(preset, 1))
    if given.only in (None, "describe"):
        _timed("its targets", lambda: (judge(day), day)[1])
    if given.only in (None, "fit"):
        _timed("learning it", lambda: (fit_workload(day), day)[1])


def _timed(what: str, work: Callable[[], Trace]) -> Trace:
    started_s = time.process_time()
    trace = work()
    took_s = time.process_time() - started_s
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:15} {len(trace):>12,} requests {took_s:7.1f} s CPU, peak memory so far {peak_gib:.2f} GiB")
    return trace


if __name__ == "__main__":
    main()

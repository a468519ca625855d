"""How fast a run is in virtual time, in how much memory, and where the time goes.

    python -m benchmarks.virtual [--large] [--policy lt-ua]
    python -m benchmarks.virtual --scenario paper-week --policy lt-ua
    .venv/compiled/bin/python -P -m benchmarks.virtual        after `make compiled`

The quickstart scenario, of as many hours as give the number of requests, one process per size; or a scenario as it is.
CPU seconds and the memory by which the process grows are those of the run alone, without imports and the making of the
trace; the peak is that of the whole process. Where the time goes is sampled: each sample counts for the part that the
innermost of our own files belongs to; compiled ones it does not see, and says so. Wanted: 20,000 requests per CPU
second, and memory that does not grow with their number but by what the trace itself takes.
"""

import argparse
import asyncio
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from results.provenance import is_compiled
from results.recorder import RunRecorder
from testbed.bad_input import BadInput
from testbed.policy_run import PolicyRun, Progress
from testbed.run import Experiment, prepare
from testbed.scenario_file import load_scenario
from testbed.steady_interpreter import steady_interpreter
from testbed.virtual_time import VirtualTimeLoop

SIZES = (10_000, 100_000)
LARGE = 1_000_000
REQUESTS_PER_S = 15.0
SAMPLE_EVERY_S = 0.005

PARTS = {
    "servers": ("testbed/emulated_", "testbed/engine_parts", "profiler/iteration_times", "testbed/server_pace"),
    "router": (
        *("testbed/router", "testbed/region_choice", "testbed/pool_seats", "testbed/flight", "testbed/niw_queue"),
        "controller/rules/",
    ),
    "replay": ("workloads/",),
    "meter": ("testbed/demand_meter", "testbed/length_meter", "workloads/slo"),
    "records": ("results/",),
    "loop": ("testbed/virtual_time", "testbed/agenda", "workloads/clock"),
    "fleet": ("testbed/fleet", "testbed/observed", "testbed/member", "testbed/gpu_slots"),
    "controller": ("controller/", "testbed/capacit", "profiler/"),
}


def part_of(frame: FrameType | None) -> str:
    """The part whose file's name begins in the most specific way, of the innermost frame that belongs to one."""
    while frame is not None:
        path = frame.f_code.co_filename
        found = [(len(start), part) for part, starts in PARTS.items() for start in starts if f"/{start}" in path]
        if found:
            return max(found)[1]
        frame = frame.f_back
    return "other"


def of_size(requests: int) -> tuple[str, ...]:
    """What makes the quickstart scenario as long as that."""
    hours = requests / REQUESTS_PER_S / 3600.0
    return (
        "workload.history_h=0",
        f"workload.synthetic.horizon_h={hours:.6f}",
        f"workload.synthetic.mean_requests_per_s={REQUESTS_PER_S}",
    )


def measured(scenario: str, overrides: tuple[str, ...], policy: str) -> dict[str, Any]:
    """One run in this process. Raises RuntimeError when not every request has ended once."""
    experiment = prepare(*load_scenario(scenario, overrides), [policy])
    samples: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda _, frame: samples.update((part_of(frame),)))
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory(prefix="virtual-") as folder:
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_EVERY_S, SAMPLE_EVERY_S)
        cpu_s = time.process_time()
        progress = run(experiment, policy, Path(folder) / "run")
        cpu_s = time.process_time() - cpu_s
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    if not progress.offered == progress.arrived == progress.ended:
        raise RuntimeError(f"{progress.offered} offered, {progress.arrived} arrived, {progress.ended} ended")
    return {
        "requests": progress.offered,
        "cpu_s": cpu_s,
        "grown_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "shares": {}
        if is_compiled()
        else {part: count / max(1, samples.total()) for part, count in samples.most_common()},
    }


def run(experiment: Experiment, policy: str, folder: Path) -> Progress:
    trace = experiment.setting.load.trace
    progress = Progress(policy=policy, horizon_s=trace.horizon_s, offered=len(trace))

    async def whole(recorder: RunRecorder) -> None:
        await PolicyRun(experiment.setting, experiment.policies[policy], recorder, progress, folder).run()

    with (
        RunRecorder(folder) as recorder,
        steady_interpreter(),
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(whole(recorder))
    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policy", default="reactive", help="of the quickstart scenario: reactive, lt-ua")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--large", action="store_true", help=f"{LARGE:,} requests too")
    what.add_argument("--scenario", help="a bundled scenario or a file, as it is")
    what.add_argument("--requests", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    try:
        measure(given)
    except BadInput as error:
        parser.error(str(error))


def measure(given: argparse.Namespace) -> None:
    """Raises BadInput for a scenario or policy that cannot be run."""
    if given.requests is not None:
        print(json.dumps(measured("quickstart", of_size(given.requests), given.policy)))
        return
    print(f"{'requests':>10} {'CPU s':>7} {'us each':>8} {'per CPU s':>10} {'grown MiB':>9} {'peak MiB':>8}  where")
    if given.scenario:
        show(measured(given.scenario, (), given.policy))
        return
    for size in (*SIZES, LARGE) if given.large else SIZES:
        command = [sys.executable, "-P", "-m", "benchmarks.virtual", "--requests", str(size), "--policy", given.policy]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
        show(json.loads(done.stdout))


def show(found: dict[str, Any]) -> None:
    count, cpu_s = found["requests"], found["cpu_s"]
    where = ", ".join(f"{part} {share:.0%}" for part, share in found["shares"].items() if share >= 0.01) or "compiled"
    line = f"{count:>10,} {cpu_s:>7.1f} {1e6 * cpu_s / count:>8.1f} {count / cpu_s:>10,.0f}"
    print(f"{line} {found['grown_mib']:>9,.0f} {found['peak_mib']:>8,.0f}  {where}", flush=True)


if __name__ == "__main__":
    main()

"""How fast a run is in virtual time, in how much memory, and where the time goes.

    python -m benchmarks.virtual [--large] [--policy lt-ua]

The quickstart scenario, of as many hours as give the number of requests, one process per size. CPU seconds and memory
are those of the run alone, without imports and the making of the trace. Where the time goes is sampled: each sample
counts for the part that the innermost of our own files belongs to. Wanted: 20,000 requests per CPU second, and memory
that does not grow with their number but by what the trace itself takes.
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

from results.recorder import RunRecorder
from testbed.policy_run import PolicyRun, Progress
from testbed.run import Experiment, prepare
from testbed.scenario import load_scenario
from testbed.steady_interpreter import steady_interpreter
from testbed.virtual_time import VirtualTimeLoop

SIZES = (10_000, 100_000)
LARGE = 1_000_000
REQUESTS_PER_S = 15.0
SAMPLE_EVERY_S = 0.005

PARTS = {
    "servers": ("testbed/emulated_", "testbed/engine_parts", "profiler/step_time"),
    "router": ("testbed/router", "testbed/pool_seats", "testbed/niw_queue", "controller/rules/"),
    "replay": ("workloads/",),
    "meter": ("testbed/demand_meter", "workloads/slo"),
    "records": ("results/",),
    "loop": ("testbed/virtual_time",),
    "fleet": ("testbed/fleet", "testbed/observed", "testbed/member"),
    "controller": ("controller/",),
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


def measured(requests: int, policy: str) -> dict[str, object]:
    """One run in this process."""
    hours = requests / REQUESTS_PER_S / 3600.0
    overrides = (
        "workload.history_h=0",
        f"workload.synthetic.horizon_h={hours:.6f}",
        f"workload.synthetic.mean_requests_per_s={REQUESTS_PER_S}",
    )
    experiment = prepare(*load_scenario("quickstart", overrides), [policy])
    samples: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda _, frame: samples.update((part_of(frame),)))
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory(prefix="virtual-") as folder:
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_EVERY_S, SAMPLE_EVERY_S)
        cpu_s = time.process_time()
        run(experiment, policy, Path(folder) / "run")
        cpu_s = time.process_time() - cpu_s
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    offered = len(experiment.setting.load.trace)
    return {
        "requests": offered,
        "cpu_s": cpu_s,
        "grown_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib,
        "shares": {part: count / max(1, samples.total()) for part, count in samples.most_common()},
    }


def run(experiment: Experiment, policy: str, folder: Path) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policy", default="reactive", help="of the quickstart scenario: reactive, lt-ua")
    parser.add_argument("--large", action="store_true", help=f"{LARGE:,} requests too")
    parser.add_argument("--requests", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.requests:
        print(json.dumps(measured(given.requests, given.policy)))
        return
    print(f"{'requests':>10} {'CPU s':>7} {'us each':>8} {'per CPU s':>10} {'MiB':>6}  where")
    for size in (*SIZES, LARGE) if given.large else SIZES:
        command = [sys.executable, "-m", "benchmarks.virtual", "--requests", str(size), "--policy", given.policy]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        count, cpu_s = found["requests"], found["cpu_s"]
        where = ", ".join(f"{part} {share:.0%}" for part, share in found["shares"].items() if share >= 0.01)
        line = f"{count:>10,} {cpu_s:>7.1f} {1e6 * cpu_s / count:>8.1f} {count / cpu_s:>10,.0f}"
        print(f"{line} {found['grown_mib']:>6,.0f}  {where}", flush=True)


if __name__ == "__main__":
    main()

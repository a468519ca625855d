"""Whether a long run stays as large as it was: memory, file descriptors and tasks of the testbed while it serves.

    python -m benchmarks.soak [--minutes 4] [--hours 4]

The arrivals of so many hours of a day, pressed into so many minutes of the wall clock, on emulated servers in real time
that a reactive policy starts and stops all the while, with records put on disk and a dashboard's view kept as in
`testbed run --dashboard`. Each second: resident memory, open file descriptors, tasks beyond the servers'. The medians
of the last quarter of the run against those of the first, and the slope of the least-squares line. What grows with each
request or each server shows here as it would in the hours themselves, for there are as many of them. Wanted: no growth
of descriptors and tasks, and of memory what the first minute of any run takes and no more. Exit code 1 otherwise.
"""

import argparse
import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from results.recorder import RunRecorder
from testbed.live_events import Event, ServerChange
from testbed.live_run import LiveRuns
from testbed.policy_run import PolicyRun, Progress
from testbed.run import prepare
from testbed.run_view import run_facts
from testbed.scenario import Scenario
from testbed.server import ServerState
from testbed.steady_interpreter import steady_interpreter
from workloads.real_time_loop import real_time_loop

POLICY = "reactive"
REQUESTS_PER_S = 40.0
SAMPLE_EVERY_S = 1.0
# Medians differ by so much without anything that goes on growing: in its first minute a process touches some 4 % of its
# memory for the first time, and servers come and go.
MEMORY_SLACK = 0.08
COUNT_SLACK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A quantity over the run, one value per second; `hours` is what the run stands for."""

    name: str
    values: np.ndarray
    hours: float

    @property
    def first(self) -> float:
        """Median of the first quarter."""
        return float(np.median(self.values[: len(self.values) // 4]))

    @property
    def last(self) -> float:
        """Median of the last quarter."""
        return float(np.median(self.values[-(len(self.values) // 4) :]))

    @property
    def per_hour(self) -> float:
        """Slope of the least-squares line, per hour that the run stands for."""
        return float(np.polyfit(np.linspace(0.0, self.hours, len(self.values)), self.values, 1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """What a soak found; `courses` by name: memory in MiB, descriptors, tasks."""

    courses: dict[str, Course]
    requests: int
    starts: int

    def grown(self) -> list[str]:
        """The quantities that the last quarter has more of than the first, beyond what wobbles."""
        memory, *counts = self.courses.values()
        grown = [memory.name] if memory.last > memory.first * (1 + MEMORY_SLACK) else []
        return grown + [each.name for each in counts if each.last > each.first + COUNT_SLACK]


def scenario(minutes: float, hours: float) -> Scenario:
    lengths = {"prompt_tokens": [[0.0, 20], [0.9, 400], [1.0, 1500]], "output_tokens": [[0.0, 2], [1.0, 200]]}
    model = {"profiles": {"h100": "llama-3.1-8b-h100"}, "start_s": 3, "stop_s": 1, "max_num_seqs": 8}
    return Scenario.model_validate(
        {
            "name": "soak",
            "mode": "emulated",
            "seed": 1,
            "models": {"llama-3.1-8b": model},
            "regions": {"west": {"gpus": {"h100": 16}}, "east": {"gpus": {"h100": 16}}},
            "workload": {
                "synthetic": {
                    "day_s": 60 * minutes * 24 / hours,
                    "horizon_h": hours,
                    "mean_requests_per_s": REQUESTS_PER_S,
                    "shares_of": "requests",
                    "models": {"llama-3.1-8b": {"max_model_len": 2048, **lengths}},
                    "regions": {"west": {"share": 0.6}, "east": {"share": 0.4}},
                    "interactive": {"bursts_per_day": 200},
                }
            },
            "initial_servers": 4,
            "demand_bin_s": 1,
            "gauge_every_s": 1,
            "drain_s": 2,
            "grace_s": 30,
            # So narrow a band that servers start and stop all the while.
            "policies": {
                POLICY: {
                    "interval_s": 1,
                    "cooldown_out_s": 2,
                    "cooldown_in_s": 2,
                    "scale_out_above": 0.004,
                    "scale_in_below": 0.003,
                }
            },
        }
    )


def soak(minutes: float, hours: float) -> Soaked:
    """Run it, in a folder that is removed afterwards."""
    experiment = prepare(scenario(minutes, hours), Path(), [POLICY])
    trace = experiment.setting.load.trace
    progress = Progress(policy=POLICY, horizon_s=trace.horizon_s, offered=len(trace))
    live = LiveRuns(run_facts(experiment)).begin(POLICY, len(trace), lambda: progress.arrived)
    samples: list[tuple[float, int, int]] = []
    process = psutil.Process()

    starts = 0

    def heard(event: Event) -> None:
        nonlocal starts
        starts += isinstance(event, ServerChange) and event.state is ServerState.STARTING
        live.tell(event)

    async def sample_forever() -> None:
        while True:
            live.snapshot()
            fds = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            # A server that stands has a task of its own.
            tasks = len(asyncio.all_tasks()) - sum(progress.servers.values())
            samples.append((process.memory_info().rss / 2**20, fds, tasks))
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def run(recorder: RunRecorder, folder: Path) -> None:
        policy = experiment.policies[POLICY]
        async with asyncio.TaskGroup() as tasks:
            sampling = tasks.create_task(sample_forever(), name="sampling")
            await PolicyRun(experiment.setting, policy, recorder, progress, folder, heard).run()
            sampling.cancel()

    with (
        tempfile.TemporaryDirectory() as folder,
        RunRecorder(Path(folder)) as recorder,
        steady_interpreter(),
        asyncio.Runner(loop_factory=real_time_loop) as runner,
    ):
        runner.run(run(recorder, Path(folder)))
    columns = np.asarray(samples, dtype=np.float64).T
    names = ("memory, MiB", "file descriptors", "other tasks")
    return Soaked(
        courses={
            name: Course(name=name, values=values, hours=hours) for name, values in zip(names, columns, strict=True)
        },
        requests=progress.ended,
        starts=starts,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--hours", type=float, default=4.0)
    asked = parser.parse_args()
    found = soak(asked.minutes, asked.hours)
    print(
        f"{found.requests:,} requests, {found.starts} starts of servers, "
        f"{asked.hours:g} hours in {asked.minutes:g} minutes"
    )
    print(f"{'':18}{'first quarter':>15}{'last quarter':>15}{'most':>10}{'per hour':>12}")
    for course in found.courses.values():
        print(
            f"{course.name:18}{course.first:15,.1f}{course.last:15,.1f}{course.values.max():10,.1f}{course.per_hour:+12.2f}"
        )
    if grown := found.grown():
        raise SystemExit(f"grows: {', '.join(grown)}")


if __name__ == "__main__":
    main()

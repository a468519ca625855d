"""Does refinement pay? Profiles of emulated servers with known step times: refined ones against a plain grid.

    python -m benchmarks.profiling [--servers N]

Both measure the same number of points with the same repeats, in virtual time, of the same servers: step times with one
or two bends at random places, and noise on every iteration. Printed is the mean absolute relative error against the
truth over fresh random points, median and worst over the servers, and how often refinement was the better one.

Last, one such server behind real HTTP in a process of its own, measured by `testbed profile --base-url` as it is: 40
points, three minutes of real time.
"""

import argparse
import asyncio
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from profiler.analytical import analytical_profile
from profiler.fit import StepTimeFit, fit_step_time
from profiler.gpu_types import H100
from profiler.grid import random_points
from profiler.iterations import Iterations
from profiler.journal import Journal
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.plan import MeasurementPlan
from profiler.points import DecodePoint, MixedPoint, PrefillPoint, ServerLimits, StepPoint
from profiler.profile import load_profile
from profiler.profile_parts import FitQuality
from profiler.progress import unheard
from profiler.sampling import measure_point
from profiler.session import Session
from profiler.step_time import DecodeTimes, StepTimeModel, prefill_pairs
from testbed.emulated_target import EmulatedTarget
from testbed.virtual_time import VirtualTimeLoop

LIMITS = ServerLimits(max_num_seqs=256, max_num_batched_tokens=4096, max_model_len=16384, kv_tokens=400_000)
MOST_POINTS, HELD_OUT = 40, 8
REQUEST_OVERHEAD_S = 3e-3


class NoisyStepTime:
    """A step-time model whose every iteration is off by a log-normal factor."""

    def __init__(self, truth: StepTimeModel, noise: float, seed: int) -> None:
        self._truth, self._noise, self._rng = truth, noise, np.random.default_rng(seed)

    def step_s(self, prefill_tokens: float, pairs: float, decode_seqs: float, kv_tokens: float) -> float:
        return self._truth.step_s(prefill_tokens, pairs, decode_seqs, kv_tokens) * self._factor()

    def iterations(self) -> "NoisyStepTime":
        return self

    def decoding(self, decode_seqs: int) -> "NoisyDecodeTimes":
        return NoisyDecodeTimes(self._truth.decoding(decode_seqs), self._factor)

    @property
    def overhead_s(self) -> float:
        return self._truth.overhead_s

    def _factor(self) -> float:
        return math.exp(self._noise * self._rng.standard_normal())


class NoisyDecodeTimes:
    """Of a server that walks through its iterations one by one, as the one that is measured does."""

    def __init__(self, truth: DecodeTimes, factor: Callable[[], float]) -> None:
        self._truth, self._factor = truth, factor

    def run_s(self, kv_tokens: float, steps: int) -> float:
        return self._truth.run_s(kv_tokens, steps) * self._factor()

    def steps_within(self, kv_tokens: float, seconds: float) -> int:
        return self._truth.steps_within(kv_tokens, seconds)


def random_truth(rng: np.random.Generator) -> StepTimeModel:
    """A server with a bend or two somewhere between 40 and 1,500 tokens."""
    floor_s = rng.uniform(4e-3, 2e-2)
    first = math.exp(rng.uniform(math.log(40), math.log(600)))
    slope_s = floor_s / first * rng.uniform(0.5, 1.0)
    second = first * rng.uniform(1.5, 5)
    return StepTimeModel(
        overhead_s=floor_s,
        slopes=((first, slope_s), (second, slope_s * rng.uniform(0, 1))),
        per_sequence_s=rng.uniform(0, 3e-5),
        per_kv_token_s=rng.uniform(2e-8, 1e-7),
        per_prefill_pair_s=rng.uniform(5e-10, 4e-9),
        prefill_overhead_s=rng.uniform(0, 2e-3),
    )


def plain_grid(count: int) -> list[StepPoint]:
    """Geometric rows over the whole domain: 9 prompts, 4 mixed, the rest 5 contexts over 4 widths, less what does not
    fit."""
    prompts = np.geomspace(16, 16_000, 9)
    points: list[StepPoint] = [PrefillPoint(prompt_tokens=round(n)) for n in prompts]
    points += [MixedPoint(prompt_tokens=p, decode_seqs=n, context_tokens=64) for p in (256, 4096) for n in (1, 16)]
    widths, contexts = np.geomspace(1, 256, 5), np.geomspace(64, 12_000, 5)
    for n in widths:
        for context in contexts:
            each = min(round(context), int(LIMITS.kv_tokens * 0.85 / round(n)) - 350)
            points.append(DecodePoint(decode_seqs=round(n), context_tokens=max(16, each)))
    return [point for point in dict.fromkeys(points) if point.fits(LIMITS)][:count]


async def profiles(truth: StepTimeModel, noise: float, seed: int) -> tuple[StepTimeFit, StepTimeFit]:
    """Fits of a refined profile, and of a plain grid with as many points."""
    profile = analytical_profile(LLAMA_3_1_8B, H100, 1)
    # Duck-typed: the emulated server asks its step times for seconds and nothing else.
    profile = profile.model_copy(update={"step_time": NoisyStepTime(truth, noise, seed)})
    target = EmulatedTarget(profile, LIMITS, REQUEST_OVERHEAD_S)
    await target.start()
    plan = MeasurementPlan(budget_s=1e6, most_points=MOST_POINTS, held_out=HELD_OUT, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal", {})
        with journal.writing():
            session = Session(target, LIMITS, plan, journal, now_s=target.clock.now_s, started_s=0.0, tell=unheard)
            refined = await Iterations(session).measure()
        grid = plain_grid(refined.quality.residuals.n)
        samples = [
            await measure_point(target, session.prompts, point, LIMITS, repeat)
            for repeat in range(plan.repeats)
            for point in grid
        ]
    return refined, fit_step_time(samples)


def batches(limits: ServerLimits) -> list[tuple[float, float, float, float]]:
    """Iterations of random points: arguments of `step_s`."""
    found: list[tuple[float, float, float, float]] = []
    for point in random_points(limits, 200, np.random.default_rng(12345)):
        kv_tokens = 0.0 if isinstance(point, PrefillPoint) else point.decode_seqs * (point.context_tokens + 20.0)
        if isinstance(point, DecodePoint):
            found.append((0.0, 0.0, point.decode_seqs, kv_tokens))
            continue
        steps, seqs = point.steps(limits), 0 if isinstance(point, PrefillPoint) else point.decode_seqs
        found.append((point.prompt_tokens / steps, prefill_pairs(point.prompt_tokens) / steps, seqs, kv_tokens))
    return found


def error(fit: StepTimeFit, truth: StepTimeModel) -> float:
    """Mean absolute relative error over iterations of random points."""
    return float(np.mean([abs(fit.step_time.step_s(*b) / truth.step_s(*b) - 1) for b in batches(LIMITS)]))


def over_http() -> tuple[FitQuality, float]:
    """Quality of a profile measured over HTTP, and its error against the truth."""
    truth = random_truth(np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        known, out = Path(folder) / "known.json", Path(folder) / "measured.json"
        analytical_profile(
            LLAMA_3_1_8B,
            H100,
            1,
            max_num_seqs=LIMITS.max_num_seqs // 8,
            max_num_batched_tokens=LIMITS.max_num_batched_tokens,
            max_model_len=LIMITS.max_model_len // 4,
        ).model_copy(update={"step_time": truth}).save(known)
        with subprocess.Popen(
            [sys.executable, "-m", "testbed.emulated_program", str(known)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            base_url = program.stdout.readline().strip()
            command = [sys.executable, "-m", "testbed", "profile", "--base-url", base_url, "--gpu-type", "h100"]
            command += ["--max-num-seqs", "32", "--max-num-batched-tokens", "4096", "--budget-minutes", "3"]
            subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        profile = load_profile(out)
    assert profile.fit is not None
    errors = [
        abs(profile.step_time.step_s(*batch) / truth.step_s(*batch) - 1)
        for batch in batches(
            ServerLimits(max_num_seqs=32, max_num_batched_tokens=4096, max_model_len=4096, kv_tokens=100_000)
        )
    ]
    return profile.fit, float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=6, help="how many random servers for each noise")
    servers = parser.parse_args().servers
    print(f"{'noise':>6} {'refined':>16} {'plain grid':>16} {'ratio':>6} {'refined is better':>18}  (median, worst)")
    for noise in (0.0, 0.05):
        refined_errors, plain_errors = [], []
        for seed in range(servers):
            truth = random_truth(np.random.default_rng(seed))
            with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
                refined, plain = runner.run(profiles(truth, noise, seed))
            refined_errors.append(error(refined, truth))
            plain_errors.append(error(plain, truth))
        a, b = np.array(refined_errors), np.array(plain_errors)
        print(
            f"{noise:6.0%} {np.median(a):8.2%} {a.max():7.2%} {np.median(b):8.2%} {b.max():7.2%}"
            f" {np.median(a) / np.median(b):6.2f} {(a < b).sum():>10} of {servers}"
        )
    quality, truth_error = over_http()
    assert quality.held_out is not None
    print(
        f"over HTTP: {quality.residuals.n} points fitted, {quality.held_out.n} held out; mean error at these"
        f" {quality.held_out.mape:.2%}, against the truth {truth_error:.2%}"
    )


if __name__ == "__main__":
    main()

"""One client process at one rate: what it measured against what the mock server knows. Writes an .npz file."""

import argparse
import asyncio
import os
import urllib.request
from pathlib import Path
from time import monotonic, process_time

import numpy as np
import numpy.typing as npt

from testbed.steady_interpreter import steady_interpreter
from workloads.client import StreamResult
from workloads.clock import RunClock
from workloads.completion import Completion, Outcome
from workloads.real_time_loop import real_time_loop
from workloads.sessions import replay_plan
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata
from workloads.url_replay import ReplayTarget, UrlReplay

Floats = npt.NDArray[np.float64]

_WARM_UP_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def poisson_trace(rate_per_s: float, seconds: float, prompt_tokens: int, output_tokens: int, seed: int) -> Trace:
    """Arrivals at random, all requests alike."""
    arrival_s = np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, round(rate_per_s * seconds)))
    n = len(arrival_s)
    return Trace.from_columns(
        request_id=np.arange(n),
        arrival_s=arrival_s,
        model=["mock"] * n,
        region=["here"] * n,
        tier=["IW-F"] * n,
        prompt_tokens=np.full(n, prompt_tokens, dtype=np.int32),
        output_tokens=np.full(n, output_tokens, dtype=np.int32),
        deadline_s=np.full(n, np.nan),
        metadata=TraceMetadata(horizon_s=float(arrival_s[-1])),
    )


def errors(asked: int, requests: list[tuple[Completion, StreamResult]], served: Floats) -> dict[str, Floats]:
    """Seconds: how late each request was sent, how much later than written its first token was seen, how much each gap
    between tokens was misread, and how far the server's own gaps were from constant.

    `served`: rows of request id, its tokens, and the time of each token in the clock of the results.
    """
    by_id = {int(row[0]): row[2:] for row in served}
    seen = np.array([result.token_times_s for _, result in requests]).reshape(-1, asked)
    written = np.array([by_id[completion.request.request_id] for completion, _ in requests]).reshape(-1, asked)
    gaps = np.diff(written, axis=1)
    return {
        "late": np.array([completion.sent_s - completion.request.arrival_s for completion, _ in requests]),
        "ttft": seen[:, 0] - written[:, 0],
        "itl": np.abs(np.diff(seen, axis=1) - gaps).ravel(),
        "server": np.abs(gaps - np.median(gaps)).ravel(),
    }


async def climb(url: str, trace: Trace) -> dict[str, object]:
    """Replay `trace`, after a short warm-up that is not counted."""
    target = ReplayTarget(base_url=url, model="mock", vocab_size=32_000, token_times=True)
    asked = int(trace.numbers("output_tokens")[0])
    await _replay(poisson_trace(100.0, _WARM_UP_S, 128, asked, seed=99), target, [])
    await _times(url)
    kept: list[tuple[Completion, StreamResult | None]] = []
    with steady_interpreter():
        rss, cpu_s, began_s = _rss_bytes(), process_time(), monotonic()
        clock, replay = await _replay(trace, target, kept)
        cpu_s, elapsed_s = process_time() - cpu_s, monotonic() - began_s
        rss = _rss_bytes() - rss
    whole = [(c, r) for c, r in kept if r is not None and c.outcome is Outcome.COMPLETED]
    served = np.frombuffer(await _times(url)).reshape(-1, asked + 2).copy()
    served[:, 2:] -= clock.loop_time(0.0)
    health = replay.watch.health(replay.replay.report().lateness_s)
    return {
        **errors(asked, whole, served),
        "failed": len(kept) - len(whole),
        "cpu_s": cpu_s,
        "elapsed_s": elapsed_s,
        "rss_bytes": rss,
        "bottleneck": health.bottleneck,
    }


async def _replay(
    trace: Trace, target: ReplayTarget, kept: list[tuple[Completion, StreamResult | None]]
) -> tuple[RunClock, UrlReplay]:
    clock = RunClock()
    replay = UrlReplay(replay_plan(trace), target, clock, lambda completion, result: kept.append((completion, result)))
    clock.start(asyncio.get_running_loop().time() + 0.1)
    replay.watch.restart()
    await replay.run()
    return clock, replay


async def _times(url: str) -> bytes:
    def read() -> bytes:
        with urllib.request.urlopen(f"{url}/times") as answer:
            content: bytes = answer.read()
        return content

    return await asyncio.get_running_loop().run_in_executor(None, read)


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("url", str), ("rate", float), ("seconds", float), ("prompt", int), ("output", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--core", type=int, default=None, help="pin the client to this core")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    trace = poisson_trace(given.rate, given.seconds, given.prompt, given.output, given.seed)
    with asyncio.Runner(loop_factory=real_time_loop) as runner:
        found = runner.run(climb(given.url, trace))
    np.savez(given.out, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

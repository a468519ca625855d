"""Azure's 10-second request counts of 2024: a rate series, which becomes a demand series or, drawn, a trace.

Column `Time` holds the beginning of each bin; the counts are in the column called `TIMESTAMP`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.demand import DemandSeries, Key
from workloads.formats.csv_rows import csv_rows
from workloads.formats.drawing import drawn_lengths, required_seed
from workloads.formats.findings import Findings
from workloads.formats.options import ReadOptions
from workloads.formats.trace_format import TraceFormat
from workloads.seeds import generator
from workloads.trace import TIME_DECIMALS
from workloads.trace_checks import TraceError

COLUMNS = ("Time", "TIMESTAMP")
MOST_BINS = 10_000_000
MOST_PER_BIN = 1_000_000
MOST_REQUESTS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class CountSeries:
    """Requests that arrived in each bin of `bin_s` seconds, shape (bins,), the first of which begins at `time_zero`."""

    counts: npt.NDArray[np.int64]
    bin_s: float
    time_zero: datetime

    def demand(self, pool: Key, *, tokens_per_request: float, interactive: bool = True) -> DemandSeries:
        """Tokens/s by bin for one (model, region). Raises ValueError for tokens per request of 0 or less."""
        if not tokens_per_request > 0:
            raise ValueError(f"tokens_per_request={tokens_per_request}; must be above 0")
        tokens_per_s: npt.NDArray[np.float64] = self.counts.astype(np.float64) * (tokens_per_request / self.bin_s)
        return DemandSeries(
            from_s=0.0,
            bin_s=self.bin_s,
            interactive={pool: tokens_per_s if interactive else np.zeros_like(tokens_per_s)},
            interactive_output={},
            niw={pool: np.zeros_like(tokens_per_s) if interactive else tokens_per_s},
        )


def read_counts(path: Path, findings: Findings) -> CountSeries:
    """The series of a file; bins that are missing count 0 and are noted. Raises TraceError for anything else."""
    parts_ns, parts = [], []
    for rows in csv_rows(path, findings, wanted=COLUMNS):
        time_ns = rows.dates_ns("Time")
        wanted = f"wanted a whole number of requests, 0 to {MOST_PER_BIN:,}"
        counts = rows.whole("TIMESTAMP", wanted)
        rows.refuse("TIMESTAMP", (counts < 0) | (counts > MOST_PER_BIN), wanted)
        parts_ns.append(time_ns[rows.good])
        parts.append(counts[rows.good])
    time_ns = np.concatenate([np.empty(0, dtype=np.int64), *parts_ns])
    if len(time_ns) < 2:
        raise TraceError(f"{path}: {len(time_ns)} counts; wanted at least two, to know how wide a bin is")
    order = np.argsort(time_ns, kind="stable")
    time_ns, counts = time_ns[order], np.concatenate(parts)[order]
    steps_ns = np.diff(time_ns)
    bin_ns = int(np.median(steps_ns))
    if bin_ns <= 0 or (steps_ns % bin_ns).any() or (steps_ns == 0).any():
        raise TraceError(f"{path}: times are not on one grid: most are {bin_ns / 1e9:g} s apart, but not all")
    place = (time_ns - time_ns[0]) // bin_ns
    bins = int(place[-1]) + 1
    if bins > MOST_BINS:
        raise TraceError(f"{path}: {bins:,} bins of {bin_ns / 1e9:g} s; at most {MOST_BINS:,} can be read")
    if bins > len(counts):
        findings.note(f"{bins - len(counts):,} of {bins:,} bins are missing; they count as 0 requests")
    grid = np.zeros(bins, dtype=np.int64)
    grid[place] = counts
    zero = datetime.fromtimestamp(int(time_ns[0]) // 10**9, UTC)
    return CountSeries(counts=grid, bin_s=bin_ns / 1e9, time_zero=zero)


def _batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    """As many arrivals in each bin as it counts, uniform within it: a count does not say more."""
    seed = required_seed(options, findings)
    series = read_counts(path, findings)
    findings.time_zero, findings.seed = series.time_zero, seed
    findings.horizon_s = len(series.counts) * series.bin_s
    requests = int(series.counts.sum())
    if requests > MOST_REQUESTS:
        raise TraceError(f"{path}: {requests:,} requests in column TIMESTAMP; at most {MOST_REQUESTS:,} can be drawn")
    findings.note(
        f"{requests:,} arrivals drawn with seed {seed}, uniform within each of {len(series.counts):,} "
        f"bins of {series.bin_s:g} s; lengths drawn from the tables given"
    )
    bins_per_block = 8640
    for start in range(0, len(series.counts), bins_per_block):
        counts = series.counts[start : start + bins_per_block]
        rng = generator(seed, "counts", start)
        which = np.repeat(np.arange(start, start + len(counts)), counts)
        arrival_s = np.sort(np.round((which + rng.random(len(which))) * series.bin_s, TIME_DECIMALS))
        prompt, output = drawn_lengths(rng, len(which), options, findings)
        yield pa.table({"arrival_s": arrival_s, "prompt_tokens": prompt, "output_tokens": output})


AZURE_COUNTS = TraceFormat(
    name="azure-counts",
    about="Azure 2024 requests per 10 s: Time,TIMESTAMP (the count); drawn with --seed and length tables",
    matches=lambda head: set(head.header) == set(COLUMNS),
    batches=_batches,
)

"""How fast traces of many requests are read, converted and written, and in how much memory.

    python -m benchmarks.trace_io [--rows 10000000]

It makes an Azure CSV in a temporary folder, works on it in one process per task and prints CPU seconds, wall seconds
and peak resident memory of each. Wanted for 10 million rows: under 60 s and 2 GiB each.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from workloads.formats.conversion import stream_file, write_trace
from workloads.formats.known import FORMATS
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.request import Tier
from workloads.trace import Trace

ROWS_PER_BLOCK = 1_000_000
AZURE = ReadOptions(model="m", region="west", tier=Tier.IW_F)


def _stream(source: str, out: str, read_as: str, write_as: str) -> int:
    options = AZURE if read_as == "azure" else ReadOptions()
    return stream_file(Path(source), Path(out), FORMATS[read_as], FORMATS[write_as], options)[0].rows_kept


def _rewrite(source: str, out: str) -> int:
    trace = Trace.read(source)
    write_trace(trace, Path(out), FORMATS["parquet"])
    return len(trace)


TASKS: dict[str, tuple[str, str, Callable[[str, str], int]]] = {
    "Azure CSV -> trace in memory": ("azure.csv", "", lambda a, _: len(read_trace(Path(a), AZURE)[0])),
    "Azure CSV -> our Parquet": ("azure.csv", "ours.parquet", lambda a, b: _stream(a, b, "azure", "parquet")),
    "our Parquet -> trace in memory": ("ours.parquet", "", lambda a, _: len(Trace.read(a))),
    "our Parquet -> trace -> Parquet": ("ours.parquet", "again.parquet", _rewrite),
    "our Parquet -> our CSV": ("ours.parquet", "ours.csv", lambda a, b: _stream(a, b, "parquet", "csv")),
    "our CSV -> trace in memory": ("ours.csv", "", lambda a, _: len(read_trace(Path(a))[0])),
    "our CSV -> our Parquet": ("ours.csv", "back.parquet", lambda a, b: _stream(a, b, "csv", "parquet")),
    "our Parquet -> SageServe CSV": ("ours.parquet", "sage.csv", lambda a, b: _stream(a, b, "parquet", "sageserve")),
    "SageServe CSV -> trace in memory": ("sage.csv", "", lambda a, _: len(read_trace(Path(a))[0])),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        print(json.dumps(_measured(given.task, given.folder)))
        return
    print(f"{'task':34} {'rows':>12} {'CPU s':>7} {'wall s':>7} {'peak MiB':>9}  file MiB")
    with tempfile.TemporaryDirectory(prefix="trace-io-") as name:
        folder = Path(name)
        _write_azure(folder / "azure.csv", given.rows)
        for task, (source, _, _) in TASKS.items():
            command = [sys.executable, "-m", "benchmarks.trace_io", "--task", task, "--folder", name]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
            rows, cpu_s, wall_s, peak_mib = json.loads(told)
            size_mib = (folder / source).stat().st_size / 2**20
            print(f"{task:34} {rows:>12,} {cpu_s:>7.1f} {wall_s:>7.1f} {peak_mib:>9,.0f}  {size_mib:,.0f}", flush=True)


def _measured(task: str, folder: Path) -> tuple[int, float, float, float]:
    source, out, run = TASKS[task]
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    rows = run(str(folder / source), str(folder / out))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return rows, time.process_time() - cpu_s, time.perf_counter() - wall_s, used


def _write_azure(path: Path, rows: int) -> None:
    """Poisson arrivals at 50/s from 2024-05-10 on, lengths log-normal, in the columns of Azure 2024."""
    rng = np.random.default_rng(1)
    at_us = np.datetime64("2024-05-10T00:00:00", "us").astype(np.int64)
    options = pacsv.WriteOptions(include_header=False, quoting_style="none")
    with path.open("wb") as file:
        file.write(b"TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for start in range(0, rows, ROWS_PER_BLOCK):
            count = min(ROWS_PER_BLOCK, rows - start)
            times_us = at_us + np.cumsum(rng.exponential(20_000, count).astype(np.int64))
            at_us = times_us[-1]
            stamps = pa.array(times_us.astype("datetime64[us]")).cast(pa.string())
            lengths = np.maximum(1, rng.lognormal([[7.0], [4.0]], 1.0, (2, count))).astype(np.int64)
            zoned = pa.compute.binary_join_element_wise(stamps, "+00:00", "")
            table = pa.table({"t": zoned, "c": np.minimum(lengths[0], 8000), "g": np.minimum(lengths[1], 2000)})
            pacsv.write_csv(table, file, options)


if __name__ == "__main__":
    main()

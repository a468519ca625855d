"""ServeGen's client windows (github.com/alibaba/ServeGen): rates, from which requests are drawn with a seed.

A folder of one model (data/language/m-large) holds two files per client, or name one `chunk-N-trace.csv`:
`chunk-N-trace.csv`, no header: beginning of a 600 s window in s, requests/s, their gaps' CV as measured, the law that
fits the gaps (Gamma, Weibull, or nothing where there is no rate), its shape and scale;
`chunk-N-dataset.json`: for each 6 h, the shares of prompt and output lengths as text "{tokens: share, ...}".
A Parquet table of the windows of all clients (client, t, rate, cv, pat, p1, p2) is read too; it has no lengths.

Each window of each client is a stationary renewal process of the law and shape that were fitted, at the window's rate:
the scale, which follows from them, is not used, nor is the CV as measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.arrivals import GapLaw, renewal_times
from workloads.formats.drawing import Lengths, drawn_lengths, required_seed
from workloads.formats.findings import Findings
from workloads.formats.options import ReadOptions
from workloads.formats.servegen_files import (
    LengthShares,
    Windows,
    lengths_file,
    read_shares,
    read_windows,
    window_files,
)
from workloads.formats.trace_format import FileHead, TraceFormat
from workloads.seeds import generator
from workloads.trace import TIME_DECIMALS
from workloads.trace_checks import TraceError

PARQUET_COLUMNS = {"client", "t", "rate", "cv", "pat", "p1", "p2"}
MOST_PER_S = 100_000.0
MOST_REQUESTS = 10**9
SHAPES = (0.02, 100.0)  # beyond which a fit to the gaps of ten minutes says nothing


def _batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    seed = required_seed(options, findings)
    windows = read_windows(path, findings)
    lengths = {client: lengths_file(file) for client, file in window_files(path).items()}
    shares = {client: read_shares(file) for client, file in lengths.items() if file.exists()}
    width_s = _width_s(windows, path)
    findings.seed = seed
    findings.horizon_s = float(windows.begins_s.max(initial=0.0)) + width_s
    findings.note(
        f"drawn with seed {seed} from {int((windows.rate_per_s > 0).sum()):,} client windows of {width_s:g} s"
    )
    low_s, high_s = options.window_s or (0.0, findings.horizon_s)
    for begins_s in np.unique(windows.begins_s):
        if begins_s + width_s <= low_s or begins_s > high_s:
            continue
        here = np.flatnonzero((windows.begins_s == begins_s) & (windows.rate_per_s > 0))
        parts = [_window(windows, int(row), width_s, seed, shares, options, findings) for row in here]
        if not parts:
            continue
        arrival_s = np.concatenate([part.arrival_s for part in parts])
        order = np.argsort(arrival_s, kind="stable")
        sizes = [len(part.arrival_s) for part in parts]
        yield pa.table(
            {
                "arrival_s": arrival_s[order],
                "prompt_tokens": np.concatenate([part.prompt for part in parts])[order],
                "output_tokens": np.concatenate([part.output for part in parts])[order],
                "tenant": np.repeat(windows.client[here].astype(np.int32), sizes)[order],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    arrival_s: npt.NDArray[np.float64]
    prompt: Lengths
    output: Lengths


def _window(
    windows: Windows,
    row: int,
    width_s: float,
    seed: int,
    shares: dict[int, LengthShares],
    options: ReadOptions,
    findings: Findings,
) -> _Drawn:
    client, begins_s, rate = int(windows.client[row]), float(windows.begins_s[row]), float(windows.rate_per_s[row])
    # A stream of its own for every window, so that a part of the trace is the same as in the whole.
    rng = generator(seed, "servegen", client, int(begins_s))
    law = GapLaw.WEIBULL if windows.weibull[row] else GapLaw.GAMMA
    times = renewal_times(rng, width_s * rate, gap_cv(law, float(windows.shape[row])), law)
    # Rounding may carry the last arrival of a window into the next, in front of which it would not be sorted.
    last_s = round(begins_s + width_s - 10.0**-TIME_DECIMALS, TIME_DECIMALS)
    arrival_s = np.minimum(np.round(begins_s + times / rate, TIME_DECIMALS), last_s)
    known = shares.get(client)
    if known is None or options.prompt_tokens is not None:
        prompt, output = drawn_lengths(rng, len(times), options, findings)
    else:
        prompt, output = known.drawn(rng, begins_s, len(times), findings)
    return _Drawn(arrival_s=arrival_s, prompt=prompt, output=output)


def gap_cv(law: GapLaw, shape: float) -> float:
    """The coefficient of variation (sd / mean) of gaps of `law` with `shape`, which is held within 0.02..100."""
    k = min(max(shape, SHAPES[0]), SHAPES[1])
    if law is GapLaw.GAMMA:
        return float(k**-0.5)
    return float(np.expm1(lgamma(1 + 2 / k) - 2 * lgamma(1 + 1 / k)) ** 0.5)


def _width_s(windows: Windows, path: Path) -> float:
    begins_s = np.unique(windows.begins_s)
    if len(begins_s) < 2:
        raise TraceError(f"{path}: windows of one time only; wanted at least two, to know how long they are")
    width_s = float(np.diff(begins_s).min())
    per_s_by_time = np.bincount(np.searchsorted(begins_s, windows.begins_s), weights=windows.rate_per_s)
    if per_s_by_time.max() > MOST_PER_S:
        raise TraceError(
            f"{path}: {per_s_by_time.max():,.0f} requests/s; rates per window or per minute? Wanted requests/s"
        )
    requests = per_s_by_time.sum() * width_s
    if requests > MOST_REQUESTS:
        raise TraceError(f"{path}: {requests:,.0f} requests; at most {MOST_REQUESTS:,} can be drawn")
    if width_s < 10:
        raise TraceError(f"{path}: windows of {width_s:g} s; times in minutes or hours? Wanted seconds")
    return width_s


def _matches(head: FileHead) -> bool:
    return set(head.parquet_columns) >= PARQUET_COLUMNS or bool(window_files(head.path))


SERVEGEN = TraceFormat(
    name="servegen",
    about="ServeGen: a folder of chunk-N-trace.csv and chunk-N-dataset.json; drawn with --seed",
    matches=_matches,
    batches=_batches,
)

"""The series of demand in a file, for forecasts to be tried on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from controller.history import Key, Series
from workloads.demand import demand_series
from workloads.formats.arrivals_seen import ArrivalsSeen
from workloads.formats.azure_counts import AZURE_COUNTS, read_counts
from workloads.formats.findings import Findings
from workloads.formats.import_step import imported
from workloads.formats.known import detected, format_named
from workloads.formats.options import ReadOptions
from workloads.formats.reading import batches, read_trace
from workloads.formats.trace_format import TraceFormat
from workloads.lengths import QuantileTable
from workloads.optional_columns import one_chunk
from workloads.request import Tier
from workloads.trace_checks import LABELS

NO_NAME = "-"
"""Model or region of a file that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSeries:
    """Demand by (model, region of origin) in bins of `bin_s` seconds from time 0, each of shape (bins,).

    `unit` is tokens/s, or requests/s for a file of counts: forecasts are the same at any scale.
    """

    series: Mapping[Key, Series]
    bin_s: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReading:
    """What reading a file is told: its format (None: by content), and for one of rates a seed and lengths to draw."""

    format_name: str | None = None
    seed: int | None = None
    prompt_tokens: QuantileTable | None = None
    output_tokens: QuantileTable | None = None


def trace_series(path: Path, bin_s: float, told: FileReading) -> TraceSeries:
    """The interactive demand of a file in any format that can be read, all tokens in the bin of their arrival.

    Rows are counted block by block, so that a file may be larger than memory. Counts keep bins of their own width.
    Raises TraceError, or ValueError, one line, for what cannot be read.
    """
    format_ = format_named(told.format_name, to="read") if told.format_name else detected(path)
    findings = Findings(str(path), format_.name, strict=False)
    if format_.name == AZURE_COUNTS.name:
        counts = read_counts(path, findings)
        per_s = counts.counts.astype(np.float64) / counts.bin_s
        return TraceSeries(series={(NO_NAME, NO_NAME): per_s}, bin_s=counts.bin_s, unit="requests/s")
    options = _options(path, format_, told)
    seen, sums = ArrivalsSeen(), TokenSums(bin_s)
    for table in batches(path, format_, options, findings, seen):
        if seen.first_s < 0:
            return _of_whole_trace(path, format_, options, bin_s)
        sums.add(table)
    horizon_s = imported(path, options, findings, seen, seen.rows, format_.metadata_of(path)).horizon_s
    return TraceSeries(series=sums.per_s(_whole_bins(path, horizon_s, bin_s)), bin_s=bin_s, unit="tokens/s")


class TokenSums:
    """Interactive tokens by bin and (model, region), as blocks of requests go by in any order."""

    def __init__(self, bin_s: float) -> None:
        self._bin_s = bin_s
        self._tokens: dict[Key, Series] = {}

    def add(self, table: pa.Table) -> None:
        place = (np.asarray(table["arrival_s"]) / self._bin_s).astype(np.int64)
        tokens = np.asarray(table["prompt_tokens"], dtype=np.float64) + np.asarray(table["output_tokens"])
        columns = [one_chunk(table[name].unify_dictionaries()) for name in LABELS]
        model, region, tier = ((np.asarray(c.indices), c.dictionary.to_pylist()) for c in columns)
        interactive = np.array([name != Tier.NIW for name in tier[1]])[tier[0]]
        for m, model_name in enumerate(model[1]):
            for r, region_name in enumerate(region[1]):
                chosen = interactive & (model[0] == m) & (region[0] == r)
                if chosen.any():
                    self._grow((model_name, region_name), np.bincount(place[chosen], tokens[chosen]).astype(np.float64))

    def _grow(self, key: Key, more: Series) -> None:
        before = self._tokens.get(key, np.empty(0))
        if len(more) > len(before):
            before = np.concatenate([before, np.zeros(max(len(more), 2 * len(before)) - len(before))])
        before[: len(more)] += more
        self._tokens[key] = before

    def per_s(self, bins: int) -> dict[Key, Series]:
        """Tokens/s in the first `bins` bins, by key in order."""
        padded = {key: np.concatenate([tokens, np.zeros(bins)])[:bins] for key, tokens in self._tokens.items()}
        return {key: padded[key] / self._bin_s for key in sorted(padded)}


def _of_whole_trace(path: Path, format_: TraceFormat, options: ReadOptions, bin_s: float) -> TraceSeries:
    """For a file whose earliest request is not in its first rows: time 0 is known only when all have been read."""
    trace, _ = read_trace(path, options, format_name=format_.name)
    demand = demand_series(trace, bin_s, 0.0, _whole_bins(path, trace.horizon_s, bin_s) * bin_s)
    return TraceSeries(series=demand.interactive, bin_s=bin_s, unit="tokens/s")


def _whole_bins(path: Path, horizon_s: float, bin_s: float) -> int:
    bins = int(horizon_s / bin_s + 1e-9)
    if bins < 1:
        raise ValueError(f"{path}: {horizon_s:g} s of requests hold no whole bin of {bin_s:g} s")
    return bins


def _options(path: Path, format_: TraceFormat, told: FileReading) -> ReadOptions:
    """Names for the labels that the file lacks; those that it has cannot be given."""
    drawn = ReadOptions(seed=told.seed, prompt_tokens=told.prompt_tokens, output_tokens=told.output_tokens)
    assert format_.batches is not None, "a format that can be read"
    findings = Findings(str(path), format_.name, strict=False)
    first = next((table for table in format_.batches(path, drawn, findings) if len(table)), None)
    lacks = [name for name in LABELS if first is not None and name not in first.column_names]
    return ReadOptions(
        model=NO_NAME if "model" in lacks else None,
        region=NO_NAME if "region" in lacks else None,
        tier=Tier.IW_N if "tier" in lacks else None,
        seed=told.seed,
        prompt_tokens=told.prompt_tokens,
        output_tokens=told.output_tokens,
    )

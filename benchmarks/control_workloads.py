"""Demand for fluid studies, tokens/s by minute: synthetic days, and public traces by their published names."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gamma
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from controller.types import Pool
from workloads.demand import demand_series
from workloads.preset import bundled_presets, read_values
from workloads.synthesis import SyntheticWorkload, synthesise

Series = npt.NDArray[np.float64]
HISTORY_H = 96
MEAN_TOKENS = 1000.0
"""Of a request in count series: theta is taken from the mean demand, so that any number does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Tokens/s by minute: `interactive` of the run, `before` of its history."""

    name: str
    interactive: dict[Pool, Series]
    before: dict[Pool, Series]


def synthetic_workloads(presets: Sequence[str], *, hours: float, seed: int = 11) -> Iterator[Workload]:
    for preset in presets:
        values = read_values(bundled_presets()[preset])
        values.update(horizon_h=hours, start_hour=0)
        trace = synthesise(SyntheticWorkload.model_validate(values), seed, from_h=-HISTORY_H, to_h=hours)
        series = demand_series(trace, 60.0, 0.0, (HISTORY_H + hours) * 3600.0).interactive
        yield _cut(preset, {Pool(*key): values for key, values in series.items()}, hours)


def public_workloads(folder: Path, *, hours: float, only: str = "") -> Iterator[Workload]:
    """Those whose files lie anywhere under `folder` and whose names contain `only`."""
    pool = Pool("llm", "all")
    for kind in ("Coding", "Conversation"):
        name = f"Azure 2024 {kind.lower()}"
        for path in sorted(folder.rglob(f"invocations_ten_second_{kind}.csv"))[:1] if only in name else []:
            yield _cut(name, {pool: _counts(path)}, hours)
    for path in sorted(folder.rglob("m-large_days*.parquet"))[:1]:
        for size, (first, last) in {"large": (0, None), "mid": (2, 30), "small": (8, 20), "tiny": (30, 60)}.items():
            if only in (name := f"ServeGen {size}"):
                yield _cut(name, {pool: _arrivals(path, first, last)}, hours)


def _cut(name: str, series: dict[Pool, Series], hours: float) -> Workload:
    minutes = round(hours * 60)
    return Workload(
        name=name,
        interactive={pool: values[-minutes:] for pool, values in series.items()},
        before={pool: values[:-minutes] for pool, values in series.items()},
    )


def _counts(path: Path) -> Series:
    """Ten-second counts as tokens/s by minute."""
    with path.open(newline="", encoding="utf-8") as file:
        counts = np.array([float(row[1]) for row in list(csv.reader(file))[1:]])
    whole = counts[: len(counts) // 6 * 6].reshape(-1, 6).sum(axis=1)
    return np.asarray(whole * MEAN_TOKENS / 60.0)


def _arrivals(path: Path, first: int, last: int | None) -> Series:
    """Arrivals of ServeGen's clients `first`..`last` by rate, drawn window by window from their gap laws."""
    table = pq.read_table(path, columns=["client", "t", "rate", "pat", "p1"]).to_pydict()
    rng = np.random.default_rng(7)
    clients, rates = np.array(table["client"]), np.array(table["rate"])
    ranked = np.argsort(-np.bincount(clients, weights=rates), kind="stable")[first:last]
    chosen = set(ranked.tolist())
    minutes = np.zeros((max(table["t"]) + 600) // 60)
    rows = zip(table["client"], table["t"], table["rate"], table["pat"], table["p1"], strict=True)
    for client, start_s, rate, law, shape in rows:
        if client not in chosen or rate <= 0:
            continue
        count = int(rate * 4000) + 300
        if law == "Gamma":
            gaps = rng.gamma(max(shape, 0.02), 1 / rate / max(shape, 0.02), count)
        elif law == "Weibull":
            gaps = rng.weibull(max(shape, 0.2), count) / rate / gamma(1 + 1 / max(shape, 0.2))
        else:
            gaps = rng.exponential(1 / rate, count)
        at_s = np.cumsum(gaps) - rng.uniform(600, 2000)
        at_s = at_s[(at_s >= 0) & (at_s < 600)]
        np.add.at(minutes, ((start_s + at_s) // 60).astype(int), MEAN_TOKENS / 60.0)
    return minutes

"""What is compared of real and emulated runs, and how large their difference is."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from profiler.gpu_types import CPU
from results.arrays import Floats
from results.calibration import Crowd, Measure
from results.metrics import is_outcome, latencies, percentiles
from workloads.completion import Outcome

NO_LIMITS: Mapping[str, float] = MappingProxyType({})
_STATISTICS = ("p50", "p90", "p99", "mean")
# The largest errors that the emulation is to have, by GPU type: on the CPU build, whose step time itself wanders.
_LIMITS_CPU = {"TTFT p50": 0.15, "TPOT p50": 0.10, "E2E p50": 0.10, "E2E p90": 0.20}
_LIMITS_GPU = {"TTFT p50": 0.08, "TPOT p50": 0.03, "E2E p50": 0.05}
# By what one judges at a glance.
HEADLINES = ("TTFT p50", "TPOT p50", "E2E p50", "E2E p90")
# How many others a request found in its server.
_CROWDS: tuple[tuple[int, int | None], ...] = ((0, 0), (1, 3), (4, 7), (8, 15), (16, 31), (32, None))


def limits_for(gpu_types: Sequence[str]) -> Mapping[str, float]:
    """By the names of measures."""
    return _LIMITS_CPU if CPU in gpu_types else _LIMITS_GPU


def measure(
    name: str,
    unit: str,
    real: Sequence[float | None],
    emulated: Sequence[float | None],
    limit: float | None = None,
) -> Measure:
    """The error is that of the means over the runs."""
    known = [value for value in real if value is not None]
    said = [value for value in emulated if value is not None]
    mean = float(np.mean(known)) if known else 0.0
    return Measure(
        name=name,
        unit=unit,
        real=tuple(real),
        emulated=tuple(emulated),
        error=float(np.mean(said)) / mean - 1 if said and mean else None,
        noise=(max(known) - min(known)) / mean if len(known) > 1 and mean else None,
        limit=limit,
    )


def request_measures(
    real: Sequence[pd.DataFrame], emulated: Sequence[pd.DataFrame], limits: Mapping[str, float] = NO_LIMITS
) -> tuple[Measure, ...]:
    """Latencies, rates and requests in flight of completions: one frame per run, columns of results.schema."""
    real_values, emulated_values = ([_of_requests(frame) for frame in frames] for frames in (real, emulated))
    return tuple(
        measure(
            name,
            unit,
            [values[name, unit] for values in real_values],
            [values[name, unit] for values in emulated_values],
            limits.get(name),
        )
        for name, unit in real_values[0]
    )


def _of_requests(completions: pd.DataFrame) -> dict[tuple[str, str], float | None]:
    """By (name, unit), over completed requests."""
    done = completions[is_outcome(completions, Outcome.COMPLETED)]
    taken = latencies(done)
    values: dict[tuple[str, str], float | None] = {}
    for name, of in taken.by_name.items():
        found = percentiles(of)
        for statistic in _STATISTICS:
            values[f"{name} {statistic}", "s"] = getattr(found, statistic)
    span_s = float(done["last_token_s"].max() - done["arrival_s"].min()) if len(done) else 0.0
    rate = 1 / span_s if span_s > 0 else None
    values["completed", "requests/s"] = None if rate is None else len(done) * rate
    values["output", "tokens/s"] = None if rate is None else float(done["output_tokens"].sum()) * rate
    in_flight_s = float((done["last_token_s"] - done["sent_s"]).sum())
    values["in flight, mean", "requests"] = None if rate is None else in_flight_s * rate
    return values


def common_requests(real: pd.DataFrame, emulated: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The requests that completed in both, in the same order."""
    kept = []
    for frame in (real, emulated):
        kept.append(frame[is_outcome(frame, Outcome.COMPLETED)].set_index("request_id", drop=False).sort_index())
    both = kept[0].index.intersection(kept[1].index)
    return kept[0].loc[both].reset_index(drop=True), kept[1].loc[both].reset_index(drop=True)


def crowds(real: Sequence[pd.DataFrame], emulated: Sequence[pd.DataFrame]) -> tuple[Crowd, ...]:
    """Medians by how many others a request found in its real server; frames pair up, row by row."""
    found = np.concatenate([_others(frame) for frame in real])
    real_taken, emulated_taken = (latencies(pd.concat(frames, ignore_index=True)) for frames in (real, emulated))
    rows = []
    for fewest, most in _CROWDS:
        here = (found >= fewest) & (found <= (np.inf if most is None else most))
        if here.any():
            rows.append(
                Crowd(
                    fewest=fewest,
                    most=most,
                    requests=int(here.sum()),
                    real_ttft_s=float(np.median(real_taken.ttft_s[here])),
                    emulated_ttft_s=float(np.median(emulated_taken.ttft_s[here])),
                    real_tpot_s=_median(real_taken.tpot_s[here]),
                    emulated_tpot_s=_median(emulated_taken.tpot_s[here]),
                )
            )
    return tuple(rows)


def _median(values: Floats) -> float | None:
    return percentiles(values).p50


def _others(completions: pd.DataFrame) -> Floats:
    """How many requests each one found in its server when it was sent, shape (rows,)."""
    found = np.zeros(len(completions))
    for rows in completions.groupby("server_id", observed=True).indices.values():
        sent_s = completions["sent_s"].to_numpy(np.float64)[rows]
        ended_s = np.sort(completions["last_token_s"].to_numpy(np.float64)[rows])
        # Sent before, less ended before: the others that are there.
        found[rows] = np.searchsorted(np.sort(sent_s), sent_s) - np.searchsorted(ended_s, sent_s, side="right")
    return found

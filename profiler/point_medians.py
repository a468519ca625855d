"""Samples of iterations as one row per point: what a fit sees, and how sure each row is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from profiler.profile_parts import StepSample
from profiler.step_time import StepTimeModel

Array = npt.NDArray[np.float64]

# Standard error of a median of normal samples, in standard errors of their mean.
MEDIAN_OVER_MEAN = float(np.sqrt(np.pi / 2))


@dataclass(frozen=True, slots=True)
class PointMedians:
    """One row per point, in order of first appearance: medians over its repeats.

    `names` and `kinds` are text; the others float64: composition of one iteration, iterations, seconds over all of
    them, and the relative standard error of these seconds: the scatter of repeats is taken over all points of a kind,
    for that of three says little (NaN where no point of the kind was repeated).
    """

    names: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    prefill_tokens: Array
    prefill_pairs: Array
    decode_seqs: Array
    kv_tokens: Array
    steps: Array
    observed_s: Array
    noise: Array

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tokens(self) -> Array:
        """New tokens of one iteration."""
        return self.prefill_tokens + self.decode_seqs

    @property
    def timed_at_client(self) -> Array:
        """1 where the request's own overhead is in `observed_s`, else 0."""
        return np.asarray(self.kinds == "prefill", dtype=np.float64)

    def take(self, rows: npt.NDArray[np.bool_]) -> "PointMedians":
        """The rows where `rows` is true."""
        return PointMedians(*(getattr(self, field.name)[rows] for field in fields(self)))

    def predicted_s(self, step_time: StepTimeModel, request_overhead_s: float) -> Array:
        """What a model of step times says of each row, in seconds."""
        rows = zip(self.prefill_tokens, self.prefill_pairs, self.decode_seqs, self.kv_tokens, strict=True)
        step_s = np.array([step_time.step_s(*row) for row in rows])
        return np.asarray(self.steps * step_s + request_overhead_s * self.timed_at_client)


def point_medians(samples: Sequence[StepSample]) -> PointMedians:
    """Group `samples` by point. Repeats of a decode point may differ in steps: the median is of seconds per step."""
    repeats: dict[str, list[StepSample]] = {}
    for sample in samples:
        repeats.setdefault(sample.point, []).append(sample)
    groups = list(repeats.values())

    def median(name: str) -> Array:
        return np.array([np.median([getattr(sample, name) for sample in group]) for group in groups])

    step_s = [np.array([sample.observed_s / sample.steps for sample in group]) for group in groups]
    middle_s = np.array([np.median(values) for values in step_s])
    kinds = np.array([group[0].kind for group in groups])
    noise = np.full(len(groups), np.nan)
    for kind in set(kinds.tolist()):
        rows = np.flatnonzero(kinds == kind)
        variance = [(step_s[row] / middle_s[row]).var(ddof=1) for row in rows if len(step_s[row]) > 1]
        if variance:
            repeated = np.array([len(step_s[row]) for row in rows])
            # The median, so that one disturbed point does not speak for all.
            noise[rows] = MEDIAN_OVER_MEAN * np.sqrt(np.median(variance) / repeated)
    steps = median("steps")
    return PointMedians(
        names=np.array(list(repeats)),
        kinds=kinds,
        prefill_tokens=median("prefill_tokens"),
        prefill_pairs=median("prefill_pairs"),
        decode_seqs=median("decode_seqs"),
        kv_tokens=median("kv_tokens"),
        steps=steps,
        observed_s=middle_s * steps,
        noise=noise,
    )

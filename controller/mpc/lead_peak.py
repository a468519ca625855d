"""The peak of demand while a server starts: a distribution, learnt from every minute of the last days.

A server started now helps after its lead, and until then what runs must do. So what matters is the highest demand
from now to the lead's end; its logarithm is regressed on trailing means and peaks and on yesterday's shape (ridge
regression, refitted hourly), the size of the errors on how rough demand has been, and the errors over their
expected size are kept, sorted: the quantiles of a forecast are those of errors made before (split conformal prediction,
Lei et al., JASA 113:523, 2018, with the locally weighted residuals of their section 5.2). Or errors are taken to be of
even size: where bursts come out of calm, demand is roughest when the burst has already come.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from controller.history import Series
from controller.mpc.features import ANCHOR, LONGEST, level_rows, roughness_rows
from controller.mpc.tail import less, score_at, tail_scores, worthwhile

_LEAST_OUTCOMES = 60
"""History that a fit needs: outcomes enough, beyond the longest window of its columns."""
_KEPT_FITS = 256
_RIDGE = 1e-3
_RIDGE_STEPS = 5.0
"""The ridge is 0.001 + 5 / steps: a few hours do not pin down 15 coefficients."""
_SMALLEST_ERROR = 0.02
_FLOOR_SHARE = 0.02
_WIDEST = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadPeakFit:
    """`level` and `spread`: coefficients; `scores`: errors over their expected size, those of `tail_scores`;
    `floor_tokens_per_s` is added to demand before its logarithm. `window_steps`: steps over which the peak is taken.
    """

    level: Series
    spread: Series
    scores: Series
    floor_tokens_per_s: float
    window_steps: int
    season_steps: int

    def expected(self, values: Series, first: int) -> tuple[Series, Series]:
        """Logarithm of the peak and size of its error, for forecasts at the origins `first`..len(values)."""
        floor = self.floor_tokens_per_s
        season, window = self.season_steps, self.window_steps
        rows = level_rows(values, first, floor=floor, season_steps=season, window_steps=window)
        rough = roughness_rows(values, first, floor=floor)
        return rows @ self.level + rows[:, ANCHOR], _size(rough, self.spread)

    def peaks_tokens_per_s(self, log_peaks: Series, sizes: Series, scores: Series) -> Series:
        """The peaks at `scores` sizes above the expected ones."""
        return np.maximum(0.0, np.exp(np.minimum(log_peaks + sizes * scores, 700.0)) - self.floor_tokens_per_s)

    def planned(self, log_peaks: Series, sizes: Series, headroom: float, budget: float) -> tuple[Series, Series]:
        """Tokens/s to plan for at `headroom`, and the headrooms in force: less where so much is not worth its price."""
        in_force = worthwhile(self.scores, sizes, headroom, budget)
        peaks = self.peaks_tokens_per_s(log_peaks, sizes, score_at(self.scores, in_force))
        return peaks * less(in_force), in_force


def fit_lead_peak(
    values: Series, *, window_steps: int, season_steps: int, fit_steps: int, even: bool = False
) -> LeadPeakFit | None:
    """Fitted on the last `fit_steps` of `values`, tokens/s; None where they are too few or without any demand. `even`:
    errors are of one size, whatever demand was like.
    """
    last = len(values) - window_steps
    first = max(LONGEST, len(values) - fit_steps)
    recent = values[-fit_steps:]
    if min(len(values) - LONGEST, fit_steps) < _LEAST_OUTCOMES + window_steps or not recent.mean() > 0:
        return None
    floor = _FLOOR_SHARE * float(recent.mean())
    peaks = np.lib.stride_tricks.sliding_window_view(values[first:], window_steps).max(axis=1)
    rows = level_rows(values[:last], first, floor=floor, season_steps=season_steps, window_steps=window_steps)
    rough = roughness_rows(values[:last], first, floor=floor)
    came = np.log(peaks + floor) - rows[:, ANCHOR]
    level = _ridge(rows, came)
    errors = came - rows @ level
    logs = np.log(np.abs(errors) + _SMALLEST_ERROR)
    spread = np.eye(1, rough.shape[1])[0] * logs.mean() if even else _ridge(rough, logs)
    return LeadPeakFit(
        level=level,
        spread=spread,
        scores=tail_scores(np.sort(errors / _size(rough, spread))),
        floor_tokens_per_s=floor,
        window_steps=window_steps,
        season_steps=season_steps,
    )


def _ridge(rows: Series, target: Series) -> Series:
    """Least squares with a penalty on every coefficient but the constant's."""
    penalty = np.full(rows.shape[1], _RIDGE + _RIDGE_STEPS / len(rows))
    penalty[0] = 1e-9
    return np.asarray(np.linalg.solve(rows.T @ rows / len(rows) + np.diag(penalty), rows.T @ target / len(rows)))


def _size(rough: Series, spread: Series) -> Series:
    return np.asarray(np.exp(np.clip(rough @ spread, np.log(_SMALLEST_ERROR) - 1.0, _WIDEST)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadPeaks:
    """Fits at multiples of `refit_steps`; remembered by the bytes they were made from, which changes how long an answer
    takes and never the answer.
    """

    season_steps: int
    refit_steps: int
    fit_steps: int
    _fits: dict[bytes, LeadPeakFit | None] = field(default_factory=dict, repr=False, compare=False)

    def fit(self, values: Series, last_step: int, window_steps: int, *, even: bool) -> LeadPeakFit | None:
        """The fit in force after the step number `last_step` of the run, the last of `values`; `even` as in
        `fit_lead_peak`.
        """
        after_cut = min(last_step % self.refit_steps, len(values))
        known = values[: len(values) - after_cut][-(self.fit_steps + self.season_steps + LONGEST) :]
        key = blake2b(known.tobytes() + window_steps.to_bytes(4, "big") + bytes([even]), digest_size=16).digest()
        if key not in self._fits:
            while len(self._fits) >= _KEPT_FITS:
                del self._fits[next(iter(self._fits))]
            self._fits[key] = fit_lead_peak(
                known, window_steps=window_steps, season_steps=self.season_steps, fit_steps=self.fit_steps, even=even
            )
        return self._fits[key]

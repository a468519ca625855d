"""Demand of a trace: tokens/s on a regular grid, by model and region of origin, interactive and NIW apart."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.trace import Trace

Series = npt.NDArray[np.float64]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandSeries:
    """Tokens/s by (model, region of origin); all arrays have shape (bins,), the first bin begins at `from_s`.
    `interactive_output`: the output tokens among `interactive`.
    """

    from_s: float
    bin_s: float
    interactive: dict[Key, Series]
    niw: dict[Key, Series]
    interactive_output: dict[Key, Series]


def demand_series(
    trace: Trace, bin_s: float, from_s: float, to_s: float, *, pools: Iterable[Key] | None = None
) -> DemandSeries:
    """Prompt and output tokens/s that arrive in each bin of `bin_s` seconds from `from_s` to `to_s`.

    All tokens of a request count in the bin of its arrival. `pools` names the (model, region) wanted, with zeros for
    those that the trace lacks; left out, every model in every region of the trace.
    Raises ValueError when the bins do not fill the window, or the window reaches beyond the trace.
    """
    if not bin_s > 0:
        raise ValueError(f"bin_s={bin_s}; must be above 0")
    bins = round((to_s - from_s) / bin_s)
    if bins < 1 or abs(bins * bin_s - (to_s - from_s)) > 1e-6:
        raise ValueError(f"window {from_s}..{to_s} s is no whole number of bins of {bin_s} s; move one of its ends")
    if from_s < 0 or to_s > trace.horizon_s + 1e-6:
        raise ValueError(f"window {from_s}..{to_s} s reaches beyond the trace, which covers 0..{trace.horizon_s} s")
    model, region = trace.labels("model"), trace.labels("region")
    arrival_s = trace.numbers("arrival_s")
    start, stop = np.searchsorted(arrival_s, [from_s, to_s], side="left").tolist()
    # An arrival at the very horizon of the trace belongs to the last bin; so does one that division puts behind it.
    window = slice(start, len(trace) if to_s >= trace.horizon_s else stop)
    place = np.minimum(((arrival_s[window] - from_s) / bin_s).astype(np.int64), bins - 1)
    pool = model.codes[window].astype(np.int64) * len(region.names) + region.codes[window]
    tokens, outputs = trace.total_tokens[window], trace.numbers("output_tokens")[window]
    interactive = trace.interactive[window]
    present = [(m, r) for m in model.names for r in region.names]
    wanted = list(present if pools is None else pools)
    rows = len(present)

    def series(chosen: npt.NDArray[np.bool_], counted: npt.NDArray[np.int64]) -> dict[Key, Series]:
        cell = pool[chosen] * bins + place[chosen]
        grid = np.bincount(cell, weights=counted[chosen], minlength=rows * bins).reshape(rows, bins) / bin_s
        found = dict(zip(present, grid, strict=True))
        return {key: found[key] if key in found else np.zeros(bins) for key in wanted}

    return DemandSeries(
        from_s=from_s,
        bin_s=bin_s,
        interactive=series(interactive, tokens),
        niw=series(~interactive, tokens),
        interactive_output=series(interactive, outputs),
    )

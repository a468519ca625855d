"""The gaps between the requests of single clients: how they vary, and which law describes them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gamma as gamma_function
from scipy.special import gammainc

from workloads.arrivals import GapLaw, weibull_shape
from workloads.trace import Trace
from workloads.trace_checks import LABELS, NO_TENANT

Gaps = npt.NDArray[np.float64]
Keys = npt.NDArray[np.int64]

WINDOW_S = 600.0  # as ServeGen (2025) fits its clients
MIN_GAPS = 30
LEAST_CV = 0.02  # below it requests come like clockwork, which is neither of the two laws


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFit:
    """A client's gaps: coefficient of variation, the nearer law, the Kolmogorov distance from it (0..1)."""

    cv: float
    law: GapLaw
    distance: float


def client_keys(trace: Trace) -> Keys | None:
    """A number for each request's client, shape (rows,): a tenant in one model, region of origin and tier.

    None where the trace does not say whose the requests are.
    """
    tenant = trace.numbers("tenant")
    if not len(tenant) or (tenant == NO_TENANT).any():
        return None
    key = tenant.astype(np.int64)
    for name in LABELS:
        labels = trace.labels(name)
        key = key * len(labels.names) + labels.codes
    return key


def biggest_clients(keys: Keys, count: int) -> list[int]:
    """The keys of the `count` clients with the most requests, the biggest first."""
    clients, sizes = np.unique(keys, return_counts=True)
    return [int(key) for key in clients[np.argsort(-sizes, kind="stable")][:count]]


def fitted_gaps(arrival_s: Gaps) -> GapFit | None:
    """The law of one client's gaps, from its sorted arrivals; None where no ten minutes hold 31 of them.

    Gaps are taken within windows of ten minutes and divided by their mean there, so that a rate that moves from one
    window to the next does not look like variation. Both laws get the gaps' own mean and coefficient of variation, not
    the likeliest parameters: at a CV of 3 most of the likelihood comes from gaps that are shorter than clocks resolve.
    """
    window = (arrival_s / WINDOW_S).astype(np.int64)
    within = window[1:] == window[:-1]
    gaps, of = np.diff(arrival_s)[within], window[1:][within]
    if not len(gaps):
        return None
    of = of - of[0]
    size = np.bincount(of)
    mean = np.bincount(of, weights=gaps) / np.maximum(size, 1)
    enough = ((size >= MIN_GAPS) & (mean > 0))[of]
    if not enough.any():
        return None
    scaled = np.sort(gaps[enough] / mean[of[enough]])
    cv = float(scaled.std())
    if not cv > LEAST_CV:
        return GapFit(cv=cv, law=GapLaw.GAMMA, distance=1.0)
    distances = {law: _distance(scaled, _cumulative(law, cv, scaled)) for law in GapLaw}
    law = min(distances, key=lambda each: distances[each])
    return GapFit(cv=cv, law=law, distance=distances[law])


def _cumulative(law: GapLaw, cv: float, gaps: Gaps) -> Gaps:
    """P(gap <= g) under the law of mean 1 with this coefficient of variation."""
    if law is GapLaw.GAMMA:
        return np.asarray(gammainc(1 / cv**2, gaps / cv**2))
    k = weibull_shape(cv)
    return np.asarray(-np.expm1(-((gaps * gamma_function(1 + 1 / k)) ** k)))


def _distance(gaps: Gaps, expected: Gaps) -> float:
    """Kolmogorov's: the largest difference between the share of `gaps` (sorted) up to each and what is expected."""
    steps = np.arange(len(gaps) + 1) / len(gaps)
    return max(float((steps[1:] - expected).max()), float((expected - steps[:-1]).max()))

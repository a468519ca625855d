"""Tenants learned from a trace: how many, how unequal, and how the gaps of each vary."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.arrivals import GapLaw
from workloads.client_gaps import biggest_clients, client_keys, fitted_gaps
from workloads.request import Tier
from workloads.trace import Trace

MOST_TENANTS = 1000
CLIENTS_PER_TIER = 20
LEAST_CLIENTS = 5
TOP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """Number of tenants whose shares fall as rank^-skew."""

    count: int
    skew: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientGaps:
    """Of the busiest clients: median CV of the gaps, the spread of its logarithm, the share nearer to Weibull."""

    cv: dict[Tier, float]
    cv_sd: float
    weibull_share: float


def fitted_tenants(trace: Trace) -> Tenants | None:
    """The skew gives the biggest ten (or half of fewer) the share that they have; None where tenants are not known."""
    if client_keys(trace) is None:
        return None
    sizes = np.sort(np.unique(trace.numbers("tenant"), return_counts=True)[1])[::-1][:MOST_TENANTS]
    count = len(sizes)
    if count == 1:
        return Tenants(count=1, skew=0.0)
    top = TOP if count > TOP else max(1, count // 2)
    wanted = float(sizes[:top].sum() / sizes.sum())
    low, high = 0.0, 5.0
    for _ in range(40):
        skew = (low + high) / 2
        low, high = (skew, high) if _top_share(count, skew, top) < wanted else (low, skew)
    return Tenants(count=count, skew=round(skew, 3))


def fitted_client_gaps(trace: Trace) -> ClientGaps | None:
    """None where fewer than five clients send often enough; tiers without such a client are left out of `cv`."""
    keys = client_keys(trace)
    if keys is None:
        return None
    arrival_s, tier = trace.numbers("arrival_s"), trace.labels("tier")
    cvs: dict[Tier, list[float]] = {}
    laws: list[GapLaw] = []
    for name in tier.names:
        rows = tier.rows(name)
        own_keys, own_s = keys[rows], arrival_s[rows]
        fits = [fitted_gaps(own_s[own_keys == key]) for key in biggest_clients(own_keys, CLIENTS_PER_TIER)]
        known = [fit for fit in fits if fit is not None and fit.cv > 0]
        if known:
            cvs[Tier(name)] = [fit.cv for fit in known]
            laws.extend(fit.law for fit in known)
    if len(laws) < LEAST_CLIENTS:
        return None
    medians = {name: float(np.median(values)) for name, values in cvs.items()}
    logs: list[float] = []
    for name, values in cvs.items():
        logs.extend(np.log(np.array(values) / medians[name]).tolist())
    weibull = sum(law is GapLaw.WEIBULL for law in laws) / len(laws)
    return ClientGaps(cv=medians, cv_sd=min(2.0, _deviation(np.array(logs))), weibull_share=weibull)


def _deviation(logs: npt.NDArray[np.float64]) -> float:
    """From the quartiles: one client that is all bursts must not decide how different the others are."""
    low, high = np.quantile(logs, [0.25, 0.75])
    return float(high - low) / 1.349


def _top_share(count: int, skew: float, top: int) -> float:
    shares = np.arange(1, count + 1, dtype=np.float64) ** -skew
    return float(shares[:top].sum() / shares.sum())

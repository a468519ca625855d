"""When requests arrive: clients that each send a renewal process, run through a rate that changes with time."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from math import exp, expm1, lgamma, log

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int32]

LOWEST_CV, HIGHEST_CV = 0.05, 20.0  # of gaps; what is outside is a clock, or one gap of the whole trace


class GapLaw(StrEnum):
    """The law of the gaps between arrivals of one client: the two that production clients follow (ServeGen, 2025)."""

    GAMMA = "gamma"
    WEIBULL = "weibull"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One sender: its share (0..1) of a stream's requests, and the law and coefficient of variation of its gaps."""

    share: float
    cv: float
    law: GapLaw = GapLaw.GAMMA


def renewal_times(rng: np.random.Generator, until: float, cv: float, law: GapLaw = GapLaw.GAMMA) -> Times:
    """Event times in [0, until) of a stationary renewal process of rate 1 whose gaps vary by `cv` (sd / mean).

    cv = 1 is a Poisson process under either law. The first event lies at U * G with U uniform and G from the
    length-biased law of the gaps: time 0 falls anywhere within a gap, so that the expected number of events is `until`
    itself, however short (Cox, Renewal Theory, 1962, section 2.2 and chapter 5).
    """
    k, mean = _shape_and_mean(law, cv)
    # Length-biased: Gamma(k + 1), and for Weibull the k-th root of Gamma(1 + 1/k).
    biased = rng.standard_gamma(k + 1.0) if law is GapLaw.GAMMA else rng.standard_gamma(1.0 + 1.0 / k) ** (1.0 / k)
    first = rng.random() * biased
    until = until * mean
    if first >= until:
        return np.empty(0)
    parts: list[Times] = []
    last = first
    while last < until:
        size = int((until - last) / mean + 3.0 * cv * ((until - last) / mean) ** 0.5) + 8
        times = rng.standard_gamma(k, size) if law is GapLaw.GAMMA else rng.weibull(k, size)
        if not parts:
            times[0] = 0.0  # the first event lies at `first`, not a gap behind it
        np.cumsum(times, out=times)
        times += last
        parts.append(times)
        last = float(times[-1])
    times = parts[0] if len(parts) == 1 else np.concatenate(parts)
    times = times[: np.searchsorted(times, until, side="left")]
    times /= mean
    return times


@lru_cache(maxsize=4096)
def _shape_and_mean(law: GapLaw, cv: float) -> tuple[float, float]:
    """Shape of a law whose scale is 1, and its mean."""
    if law is GapLaw.GAMMA:
        return 1.0 / cv**2, 1.0 / cv**2
    k = weibull_shape(cv)
    return k, exp(lgamma(1.0 + 1.0 / k))


def weibull_shape(cv: float) -> float:
    """The shape k of a Weibull law whose coefficient of variation is `cv`: cv^2 = G(1 + 2/k) / G(1 + 1/k)^2 - 1.

    By bisection over k in 0.05..100, which covers `cv` from 0.013 to beyond 20.
    """
    low, high = log(0.05), log(100.0)
    for _ in range(60):
        middle = (low + high) / 2
        k = exp(middle)
        if expm1(lgamma(1 + 2 / k) - 2 * lgamma(1 + 1 / k)) > cv**2:
            low = middle  # a larger shape varies less
        else:
            high = middle
    return exp((low + high) / 2)


def superposed_times(
    rng: np.random.Generator, edges_s: Times, rate_per_s: Times, clients: Sequence[Client]
) -> tuple[Times, Indices]:
    """Sorted arrival times of all `clients` under a rate that is constant within each bin, and whose each one is.

    `edges_s` has one entry more than `rate_per_s`, which is that of all clients together. Each client is a renewal
    process in operational time, Lambda(t) = integral of its rate, mapped back by the inverse of Lambda: both the rate
    and, in operational time, the gaps' coefficient of variation are those asked for (time rescaling, as in Gerhardt
    and Nelson, INFORMS Journal on Computing 21(4), 2009).
    """
    operational = np.concatenate(([0.0], np.cumsum(rate_per_s * np.diff(edges_s))))
    until = float(operational[-1])
    if until <= 0:
        return np.empty(0), np.empty(0, dtype=np.int32)
    parts = []
    for client in clients:
        times = renewal_times(rng, until * client.share, client.cv, client.law)
        times /= client.share
        parts.append(times)
    whose = np.repeat(np.arange(len(clients), dtype=np.int32), [len(part) for part in parts])
    joined = np.concatenate(parts)
    order = np.argsort(joined, kind="stable")
    return np.interp(joined[order], operational, edges_s), whose[order]

"""When requests arrive: a renewal process with Gamma gaps, run through a rate that changes with time."""

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


def renewal_times(rng: np.random.Generator, until: float, cv: float) -> Times:
    """Event times in [0, until) of a stationary renewal process of rate 1 whose gaps vary by `cv` (sd / mean).

    Gaps are Gamma(shape 1/cv^2, mean 1); cv = 1 is a Poisson process. The first event lies at U * G with U uniform and
    G from the length-biased law Gamma(1/cv^2 + 1): time 0 falls anywhere within a gap, so that the expected number of
    events is `until` itself, however short (Cox, Renewal Theory, 1962, section 2.2 and chapter 5).
    """
    shape = 1.0 / cv**2
    first = rng.random() * rng.gamma(shape + 1.0, 1.0 / shape)
    parts = [np.array([first])]
    last = first
    while last < until:
        missing = until - last
        gaps = rng.gamma(shape, 1.0 / shape, size=int(missing + 4.0 * cv * missing**0.5) + 16)
        parts.append(last + np.cumsum(gaps))
        last = float(parts[-1][-1])
    times = np.concatenate(parts)
    return times[times < until]


def modulated_times(rng: np.random.Generator, edges_s: Times, rate_per_s: Times, cv: float) -> Times:
    """Arrival times under a rate that is constant within each bin: `edges_s` has one entry more than `rate_per_s`.

    A renewal process in operational time Lambda(t) = integral of the rate, mapped back by the inverse of Lambda: both
    the rate and, in operational time, the gaps' coefficient of variation are those asked for (time rescaling, as in
    Gerhardt and Nelson, INFORMS Journal on Computing 21(4), 2009).
    """
    operational = np.concatenate(([0.0], np.cumsum(rate_per_s * np.diff(edges_s))))
    until = float(operational[-1])
    if until <= 0:
        return np.empty(0)
    return np.interp(renewal_times(rng, until, cv), operational, edges_s)

"""How each target is measured: functions from evidence to values, one by group where a target goes by group."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.client_gaps import biggest_clients, client_keys, fitted_gaps
from workloads.description import Statistic
from workloads.dispersion import index_of_dispersion, minute_to_hour_median
from workloads.evidence import Evidence
from workloads.hourly_load import hourly_load
from workloads.level_changes import largest_change
from workloads.output_correlation import output_correlations
from workloads.trace import Trace

Rows = npt.NDArray[np.bool_]

DISPERSION_AT_PER_S = (28.0, 45.0)
BUSY_MINUTE = 30.0  # requests: below, the largest of many minutes is chance and no burst
SAMPLE = 100_000
CLIENTS = 10
NEAR_LAW = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Values by name (of a model, a region; "" for one of the whole), or none and the reason; `declared` if it was."""

    values: Mapping[str, float]
    reason: str = ""
    declared: float | None = None


def interactive_per_niw(of: Evidence) -> Measured:
    """Interactive requests per NIW request."""
    declared = of.declared.interactive_per_niw if of.declared else None
    return _one(of.description.interactive_per_niw, declared)


def iw_f_per_iw_n(of: Evidence) -> Measured:
    """IW-F requests per IW-N request."""
    tiers = of.description.tiers
    if "IW-N" not in tiers or "IW-F" not in tiers:
        return Measured(values={}, reason="the trace lacks one of the two tiers")
    share = of.declared.iw_f_share_of_interactive if of.declared else None
    declared = share / (1.0 - share) if share is not None and share < 1 else None
    return Measured(values={"": tiers["IW-F"].requests / tiers["IW-N"].requests}, declared=declared)


def interactive_daily_correlation(of: Evidence) -> Measured:
    """Correlation of hourly token loads a day apart, both on weekdays."""
    return _one(of.interactive.autocorrelation_24h())


def niw_daily_correlation(of: Evidence) -> Measured:
    """The same of NIW."""
    return _of_niw(of, of.niw.autocorrelation_24h())


def interactive_peak_to_trough(of: Evidence) -> Measured:
    """Highest over lowest hour of the mean weekday, in tokens."""
    return _one(of.interactive.peak_to_trough())


def interactive_weekend(of: Evidence) -> Measured:
    """Mean load at the weekend over that of weekdays, in tokens."""
    return _one(of.interactive.weekend_to_weekday())


def niw_weekend(of: Evidence) -> Measured:
    """The same of NIW."""
    return _of_niw(of, of.niw.weekend_to_weekday())


def niw_daily_swing(of: Evidence) -> Measured:
    """Highest over lowest 4 h of a day, in tokens: the median weekday.

    Of each day, not of the mean weekday: NIW peaks at another time every day, and the mean of many days would be flat.
    """
    return _of_niw(of, of.niw.daily_swing(4))


def interarrival_cv(of: Evidence) -> Measured:
    """Median over minutes of the coefficient of variation of all requests' gaps within the minute."""
    return _one(of.description.loads["all"].interarrival_cv)


def dispersion_at_rate(of: Evidence) -> Measured:
    """Index of dispersion of 10 s counts over those minutes whose rate is the one that the range was measured at.

    It depends on the rate: a service at twice the rate has twice the excess over 1 if its clients just grow. So other
    minutes say nothing about this range.
    """
    low, high = DISPERSION_AT_PER_S
    value = index_of_dispersion(of.trace.numbers("arrival_s"), of.trace.horizon_s, at_per_s=DISPERSION_AT_PER_S)
    return _one(Statistic(value=value, reason=f"fewer than 30 minutes at {low:g}-{high:g} requests/s"))


def minute_peaks(of: Evidence) -> Measured:
    """99th percentile over minutes of the requests in the minute over those of the median minute of its hour."""
    return _one(of.description.loads["all"].minute_p99_to_hour_median)


def largest_burst(of: Evidence) -> Measured:
    """The largest such minute of any model, in hours whose median minute has 30 requests or more."""
    arrival_s, model = of.trace.numbers("arrival_s"), of.trace.labels("model")
    found = [
        minute_to_hour_median(arrival_s[model.rows(name)], of.trace.horizon_s, least_per_minute=BUSY_MINUTE)
        for name in model.names
    ]
    largest = max((float(ratios.max()) for ratios in found if ratios.size), default=None)
    return _one(Statistic(value=largest, reason="no model has an hour with 30 requests in most minutes"))


def region_shares(of: Evidence) -> Measured:
    """How far the regions' shares of the requests, largest first, are from the production ones (.43, .30, .28)."""
    wanted = np.array([0.43, 0.30, 0.28])
    shares = np.sort([group.request_share for group in of.description.regions.values()])[::-1]
    if len(shares) != len(wanted):
        return Measured(values={}, reason=f"{len(shares)} regions instead of three")
    return Measured(values={"": float(np.abs(shares - wanted / wanted.sum()).max())})


def most_uneven_model(of: Evidence) -> Measured:
    """Requests of the largest over those of the smallest region, of the model where that is most."""
    model, region = of.trace.labels("model"), of.trace.labels("region")
    if len(region.names) < 2:
        return Measured(values={}, reason="one region")
    counts = np.bincount(
        model.codes.astype(np.int64) * len(region.names) + region.codes,
        minlength=len(model.names) * len(region.names),
    ).reshape(len(model.names), len(region.names))
    if (counts == 0).any():
        return Measured(values={}, reason="a model without requests from one of the regions")
    return Measured(values={"": float((counts.max(axis=1) / counts.min(axis=1)).max())})


def region_phases(of: Evidence) -> Measured:
    """Hours between the first and the last region's daily peak (of the first harmonic of interactive load)."""
    region, interactive = of.week.labels("region"), of.week.interactive
    phases = [hourly_load(of.week, interactive & region.rows(name)).phase_h() for name in region.names]
    known = [phase.value for phase in phases if phase.value is not None]
    if len(known) < len(phases) or not known:
        return Measured(values={}, reason=next((phase.reason for phase in phases if phase.value is None), "no region"))
    around = (np.array(known) - known[0] + 12.0) % 24.0
    return Measured(values={"": float(around.max() - around.min())})


def model_balance(of: Evidence) -> Measured:
    """Tokens of the model with the most over those of the model with the fewest."""
    total = of.week.total_tokens
    tokens = [int(total[rows].sum()) for _, rows in _by_model(of.week)]
    if len(tokens) < 2:
        return Measured(values={}, reason="one model")
    if of.week.horizon_s < _week_s(of.week):
        return Measured(values={}, reason="shorter than a week")
    return Measured(values={"": max(tokens) / min(tokens)})


def largest_step(of: Evidence) -> Measured:
    """The largest step of one model's interactive load against the others', up or down, as a factor above 1."""
    model, interactive = of.week.labels("model"), of.week.interactive
    if len(model.names) < 2:
        return Measured(values={}, reason="one model")
    loads = {name: hourly_load(of.week, interactive & model.rows(name)).load for name in model.names}
    total = sum(loads.values())
    changes = [largest_change(load, total - load) for load in loads.values()]
    factors = [max(change.factor, 1 / change.factor) for change in changes if change is not None]
    return _one(Statistic(value=max(factors, default=None), reason="shorter than two days"))


def prompt_p50(of: Evidence) -> Measured:
    return _by_group({name: lengths.p50 for name, lengths in of.description.prompt_lengths.items()})


def prompt_p90(of: Evidence) -> Measured:
    return _by_group({name: lengths.p90 for name, lengths in of.description.prompt_lengths.items()})


def prompt_p98(of: Evidence) -> Measured:
    return _by_group({name: lengths.p98 for name, lengths in of.description.prompt_lengths.items()})


def template_steps(of: Evidence) -> Measured:
    """The largest share of a model's prompts whose lengths lie within 2 % of each other.

    A template makes many prompts nearly equally long: a step in their distribution. A smooth one as wide as the ranges
    of the quantiles (a lognormal with sigma 1) has less than 1 % there.
    """
    found = {}
    for name, rows in _by_model(of.trace):
        lengths = of.trace.numbers("prompt_tokens")[rows]
        lengths = np.sort(lengths[:: max(1, len(lengths) // SAMPLE)]).astype(np.float64)
        within = np.searchsorted(lengths, 1.02 * lengths, side="right") - np.arange(len(lengths))
        found[name] = float(within.max()) / len(lengths)
    return _by_group(found)


def context_use(of: Evidence) -> Measured:
    """Prompt and output tokens of a model's longest request over its context limit."""
    if of.declared is None:
        return Measured(values={}, reason="the trace does not say what its models' limits are")
    total = of.trace.total_tokens
    limit = of.declared.max_model_len
    return _by_group({name: float(total[rows].max()) / limit(name) for name, rows in _by_model(of.trace)})


def output_mean(of: Evidence) -> Measured:
    """Mean over all requests."""
    if not len(of.trace):
        return Measured(values={}, reason="no request")
    return Measured(values={"": float(of.trace.numbers("output_tokens").mean())})


def output_p50(of: Evidence) -> Measured:
    return _by_group({name: lengths.p50 for name, lengths in of.description.output_lengths.items()})


def output_p90(of: Evidence) -> Measured:
    return _by_group({name: lengths.p90 for name, lengths in of.description.output_lengths.items()})


def output_p99(of: Evidence) -> Measured:
    return _by_group({name: lengths.p99 for name, lengths in of.description.output_lengths.items()})


def output_to_prompt(of: Evidence) -> Measured:
    """Rank correlation of a model's prompt and output lengths, without its sign."""
    found = {name: abs(value) for name, value in output_correlations(of.trace).items()}
    return Measured(values=found, reason="" if found else "no model whose lengths differ")


def top_tenants(of: Evidence) -> Measured:
    """Share of the requests that the ten tenants with the most of them send."""
    return _one(of.description.top_10_tenants_share)


def clients_near_a_law(of: Evidence) -> Measured:
    """How many of the ten busiest clients send by a Gamma or Weibull law: within a Kolmogorov distance of 0.1.

    A client is a tenant in one model, region and tier. Its gaps are judged within ten minutes that hold 31 requests.
    """
    keys = client_keys(of.trace)
    if keys is None:
        return Measured(values={}, reason="the trace does not say whose the requests are")
    arrival_s = of.trace.numbers("arrival_s")
    fits = [fitted_gaps(arrival_s[keys == key]) for key in biggest_clients(keys, CLIENTS)]
    known = [fit for fit in fits if fit is not None]
    if len(known) < CLIENTS:
        return Measured(values={}, reason=f"{len(known)} clients with more than 30 requests within ten minutes")
    return Measured(values={"": float(sum(fit.distance <= NEAR_LAW for fit in known))})


def _one(statistic: Statistic, declared: float | None = None) -> Measured:
    if statistic.value is None:
        return Measured(values={}, reason=statistic.reason, declared=declared)
    return Measured(values={"": statistic.value}, declared=declared)


def _by_group(values: Mapping[str, float]) -> Measured:
    return Measured(values=values, reason="" if values else "no request")


def _of_niw(of: Evidence, statistic: Statistic) -> Measured:
    return _one(statistic) if of.niw.load.any() else Measured(values={}, reason="no NIW requests")


def _by_model(trace: Trace) -> list[tuple[str, Rows]]:
    model = trace.labels("model")
    return [(name, model.rows(name)) for name in model.names]


def _week_s(trace: Trace) -> float:
    calendar = trace.metadata.calendar
    return 7 * (calendar.day_s if calendar else 86400.0) - 1e-6

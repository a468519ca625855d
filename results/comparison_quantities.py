"""What policies are compared by: quantities of a summary, how each is shown, and whether less of it is better."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from results.bound import BoundRecord
from results.metrics import LATENCIES, Percentiles
from results.quantities import hours, percent, seconds, signed_percent, usd
from results.summary import PolicySummary
from workloads.request import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """What a policy came to in one run; `bound` is of the run's workload, None where the run does not know it."""

    summary: PolicySummary
    bound: BoundRecord | None = None

    @property
    def finished(self) -> bool:
        return self.summary.status == "finished"


Take = Callable[[PolicyResult], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One row. `take` gives None where a run has no such thing; `less_is_better` None: neither is.

    `brief`: a run's own comparison shows it too.
    """

    label: str
    take: Take
    show: Callable[[float], str]
    less_is_better: bool | None
    brief: bool = True

    @property
    def in_points(self) -> bool:
        """Fractions differ by points: a change of 99 % to 98 % by "-1 %" could be read either way."""
        return self.show is percent


def quantities(results: Sequence[PolicyResult]) -> list[Quantity]:
    """What a person asks first: what it cost, whether it met its SLOs, whether every request is accounted for."""
    summaries = [result.summary for result in results]
    tiers = [tier for tier in Tier if any(tier.value in each.slo_attainment.by_tier for each in summaries)]
    sleeping = any(each.scaling.sleeps for each in summaries)
    rows = [_row("GPU-hours", lambda p: p.gpu_hours, hours, True)]
    if any(result.bound is not None for result in results):
        rows.append(Quantity(label="  above the bound", take=_above_bound, show=signed_percent, less_is_better=None))
    rows.append(_row("  wasted while scaling", lambda p: p.wasted_gpu_hours, hours, True))
    if sleeping:
        rows.append(_row("  server-hours asleep, no GPU", lambda p: p.sleeping_server_hours, hours, None))
    rows.append(_row("USD", lambda p: p.usd, usd, True))
    rows.extend(_row(f"SLO met, {tier}", _attainment(tier), percent, False) for tier in tiers)
    for name in LATENCIES:
        rows.extend(_tails(name, [tier for tier in tiers if name != "TTFT" or tier.interactive]))
    rows.append(_row("E2E p95", lambda p: p.e2e_s.all.p95, seconds, True))
    if Tier.NIW in tiers:
        rows.append(_full("NIW within its own deadline", lambda p: p.niw_before_deadline.fraction, percent, False))
        for share in ("p50", "p95", "p99"):
            rows.append(_full(f"  NIW queue {share}", _percentile(lambda p: p.niw_queue_s, share), seconds, True))
    rows.append(_row("goodput, requests/s", lambda p: p.goodput_requests_per_s, lambda value: f"{value:.3g}", False))
    rows.append(_row("requests", lambda p: p.requests.total, _count, None))
    rows.append(_row("  completed", lambda p: p.requests.completed, _count, None))
    rows.append(_row("  rejected", lambda p: p.requests.rejected, _count, None))
    rows.append(_row("  failed", lambda p: p.requests.failed, _count, None))
    if any(each.requests.not_recorded for each in summaries):
        rows.append(_row("  not recorded", lambda p: p.requests.not_recorded, _count, None))
    rows.append(_row("servers started", lambda p: p.scaling.starts, _count, None))
    rows.append(_row("servers stopped", lambda p: p.scaling.stops, _count, None))
    if sleeping:
        rows.append(_row("servers put to sleep", lambda p: p.scaling.sleeps, _count, None))
        rows.append(_row("servers woken", lambda p: p.scaling.wakes, _count, None))
    return rows


TakeOfSummary = Callable[[PolicySummary], float | None]


def _row(label: str, take: TakeOfSummary, show: Callable[[float], str], less_is_better: bool | None) -> Quantity:
    return Quantity(label=label, take=lambda result: take(result.summary), show=show, less_is_better=less_is_better)


def _full(label: str, take: TakeOfSummary, show: Callable[[float], str], less_is_better: bool) -> Quantity:
    return Quantity(
        label=label, take=lambda result: take(result.summary), show=show, less_is_better=less_is_better, brief=False
    )


def _tails(name: str, tiers: Sequence[Tier]) -> Iterator[Quantity]:
    """Percentiles of a latency by tier; of TTFT the p95 is brief."""
    for tier in tiers:
        for share in ("p50", "p95", "p99"):
            label = f"{name} {share}, {tier}"
            take = _percentile(partial(_of_tier, name, tier), share)
            brief = name == "TTFT" and share == "p95"
            yield (_row if brief else _full)(label, take, seconds, True)


def _of_tier(name: str, tier: Tier, summary: PolicySummary) -> Percentiles | None:
    return summary.latencies[name].by_tier.get(tier.value)


def _percentile(of: Callable[[PolicySummary], Percentiles | None], share: str) -> TakeOfSummary:
    def take(summary: PolicySummary) -> float | None:
        found = of(summary)
        value: float | None = None if found is None else getattr(found, share)
        return value

    return take


def _attainment(tier: Tier) -> TakeOfSummary:
    return lambda p: p.slo_attainment.by_tier.get(tier.value)


def _above_bound(result: PolicyResult) -> float | None:
    """Of a policy that has not finished: less time costs less."""
    if result.bound is None or not result.finished:
        return None
    return result.bound.above(result.summary.gpu_hours)


def _count(value: float) -> str:
    return f"{value:,.0f}"

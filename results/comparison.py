"""The comparison of a run's policies as rows of text, for the terminal and the report alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from results.quantities import hours, percent, seconds, signed_percent, signed_points, usd
from results.summary import PolicySummary, RunSummary
from workloads.request import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value of one policy. `change` is against the first policy, "" where there is nothing to compare (also when
    either has not finished: less time costs less);
    `better` says whether that change is for the better, None where it is neither."""

    text: str
    change: str = ""
    better: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One quantity over all policies, in the order of `Comparison.policies`."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Quantities as rows, policies as columns; the first policy is the base of every change."""

    policies: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]


Take = Callable[[PolicySummary], float | None]
Show = Callable[[float], str]


def compare(summary: RunSummary) -> Comparison:
    """What a person asks first: what it cost, whether it met its SLOs, whether every request is accounted for."""
    policies = tuple(summary.policies.values())
    tiers = [tier.value for tier in Tier if any(tier.value in p.slo_attainment.by_tier for p in policies)]

    def row(label: str, take: Take, show: Show, less_is_better: bool | None) -> ComparisonRow:
        return ComparisonRow(label=label, cells=_cells(policies, take, show, less_is_better))

    def attainment(tier: str) -> Take:
        return lambda p: p.slo_attainment.by_tier.get(tier)

    def ttft_p95(tier: str) -> Take:
        return lambda p: p.ttft_s.by_tier[tier].p95 if tier in p.ttft_s.by_tier else None

    rows = [
        row("GPU-hours", lambda p: p.gpu_hours, hours, True),
        row("  wasted while scaling", lambda p: p.wasted_gpu_hours, hours, True),
        row("USD", lambda p: p.usd, usd, True),
        *(row(f"SLO met, {tier}", attainment(tier), percent, False) for tier in tiers),
        *(row(f"TTFT p95, {tier}", ttft_p95(tier), seconds, True) for tier in tiers if tier != Tier.NIW.value),
        row("E2E p95", lambda p: p.e2e_s.all.p95, seconds, True),
        row("goodput, requests/s", lambda p: p.goodput_requests_per_s, lambda value: f"{value:.3g}", False),
        row("requests", lambda p: p.requests.total, _count, None),
        row("  completed", lambda p: p.requests.completed, _count, None),
        row("  rejected", lambda p: p.requests.rejected, _count, None),
        row("  failed", lambda p: p.requests.failed, _count, None),
    ]
    if any(p.scaling.sleeps for p in policies):
        rows.insert(2, row("  server-hours asleep, no GPU", lambda p: p.sleeping_server_hours, hours, None))
    if summary.bound is not None:
        above = summary.bound.above
        rows.insert(
            1,
            row(
                "  above the bound",
                lambda p: above(p.gpu_hours) if p.status == "finished" else None,
                signed_percent,
                None,
            ),
        )
    if any(p.requests.not_recorded for p in policies):
        rows.append(row("  not recorded", lambda p: p.requests.not_recorded, _count, None))
    rows.append(row("servers started", lambda p: p.scaling.starts, _count, None))
    rows.append(row("servers stopped", lambda p: p.scaling.stops, _count, None))
    if any(p.scaling.sleeps for p in policies):
        rows.append(row("servers put to sleep", lambda p: p.scaling.sleeps, _count, None))
        rows.append(row("servers woken", lambda p: p.scaling.wakes, _count, None))
    return Comparison(policies=tuple(summary.policies), rows=tuple(rows))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _cells(policies: Sequence[PolicySummary], take: Take, show: Show, less_is_better: bool | None) -> tuple[Cell, ...]:
    values = [take(policy) for policy in policies]
    base = values[0] if policies and policies[0].status == "finished" else None
    cells = [Cell(text="–" if value is None else show(value)) for value in values]
    if base is None or less_is_better is None:
        return tuple(cells)
    for index, value in enumerate(values[1:], start=1):
        # Fractions differ by points: a change of 99 % to 98 % by "-1 %" could be read either way.
        points = show is percent
        if value is None or policies[index].status != "finished" or (base == 0 and not points):
            continue
        change = signed_points(value - base) if points else signed_percent(value / base - 1)
        better = None if change.startswith("±") else (value < base) == less_is_better
        cells[index] = Cell(text=show(value), change=change, better=better)
    return tuple(cells)

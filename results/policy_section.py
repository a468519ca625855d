"""What a report says of one policy, as plain rows for the template."""

from collections.abc import Sequence
from dataclasses import dataclass

from results.accuracy import ForecastError
from results.decisions import Decision
from results.manifest import RunManifest
from results.metrics import Percentiles
from results.policy_charts import Chart, gpu_charts, model_charts
from results.policy_tables import PolicyTables
from results.quantities import clock, percent, seconds, signed_percent
from results.summary import Loss, PolicySummary, Spread
from workloads.request import Tier
from workloads.slo import Slo

# A decision table longer than this is scrolled past, not read.
MOST_DECISIONS = 150
MOST_LOSSES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    at: str
    steps: tuple[tuple[str, str, str], ...]
    """(placement, change, reason)"""
    solver: str
    remarkable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """Everything of one policy's section, already text."""

    name: str
    summary: PolicySummary
    charts: tuple[Chart, ...]
    gpu_charts: tuple[Chart, ...]
    latency_rows: tuple[tuple[str, ...], ...]
    forecast_rows: tuple[tuple[str, ...], ...]
    losses: tuple[Loss, ...]
    losses_left_out: int
    lost: int
    decisions: tuple[DecisionRow, ...]
    has_forecasts: bool


def policy_section(manifest: RunManifest, name: str, summary: PolicySummary, tables: PolicyTables) -> PolicySection:
    """The section of one policy from its summary and its tables."""
    log = tables.log
    return PolicySection(
        name=name,
        summary=summary,
        charts=model_charts(tables.completions, tables.servers, log, tables.end_s),
        gpu_charts=gpu_charts(tables.servers, tables.end_s),
        latency_rows=tuple(_latency_rows(summary, manifest.tier_slos())),
        forecast_rows=tuple(_forecast_rows(summary)),
        losses=summary.losses[:MOST_LOSSES],
        losses_left_out=sum(loss.requests for loss in summary.losses[MOST_LOSSES:]),
        lost=summary.requests.rejected + summary.requests.failed,
        decisions=tuple(_decision_row(decision) for decision in most_telling(log.decisions)),
        has_forecasts=any(True for _ in log.forecasts()),
    )


def limit_text(slo: Slo | None) -> str:
    """A tier's SLO in words."""
    if slo is None:
        return "no SLO"
    limits = (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s), ("E2E", slo.deadline_s))
    return ", ".join(f"{name} ≤ {seconds(limit)}" for name, limit in limits if limit is not None) or "no limit"


def _latency_rows(summary: PolicySummary, slos: dict[Tier, Slo]) -> list[tuple[str, ...]]:
    rows = []
    for tier in Tier:
        slo = slos.get(tier, Slo())
        named: tuple[tuple[str, Spread, float | None], ...] = (
            ("TTFT", summary.ttft_s, slo.ttft_s),
            ("TPOT", summary.tpot_s, slo.tpot_s),
            ("E2E", summary.e2e_s, slo.deadline_s),
        )
        for name, spread, limit in named:
            if tier.value in spread.by_tier:
                values = _percentile_texts(spread.by_tier[tier.value])
                rows.append((tier.value, name, *values, "–" if limit is None else seconds(limit)))
    return rows


def _percentile_texts(of: Percentiles) -> tuple[str, ...]:
    values = (of.p50, of.p75, of.p90, of.p95, of.p99, of.mean)
    return (*("–" if value is None else seconds(value) for value in values), f"{of.n:,}")


def _forecast_rows(summary: PolicySummary) -> list[tuple[str, ...]]:
    named = [*summary.forecast_error_by_model.items()]
    if summary.forecast_error is not None:
        named.append(("all", summary.forecast_error))
    return [(name, *_forecast_texts(error)) for name, error in named]


def _forecast_texts(error: ForecastError) -> tuple[str, ...]:
    def text(value: float | None, signed: bool = False) -> str:
        return "–" if value is None else signed_percent(value) if signed else percent(value)

    return (
        f"{error.forecasts:,}",
        text(error.wape),
        text(error.bias, signed=True),
        text(error.upper_coverage),
        text(error.peak_coverage),
        text(error.over_provision, signed=True),
    )


def most_telling(decisions: Sequence[Decision], most: int = MOST_DECISIONS) -> tuple[Decision, ...]:
    """At most `most` decisions that did something, in order of time.

    When there are more: those whose solver did not prove an optimum or left demand unserved, then the largest
    changes, then the last.
    """
    acted = [decision for decision in decisions if decision.steps or decision.solve is not None]
    if len(acted) <= most:
        return tuple(acted)

    def size(index: int) -> int:
        return sum(abs(step.change) for step in acted[index].steps)

    latest = len(acted) - most // 3
    order = sorted(range(latest), key=lambda index: (not _troubled(acted[index]), -size(index), -index))
    chosen = sorted(order[: most - (len(acted) - latest)]) + list(range(latest, len(acted)))
    return tuple(acted[index] for index in chosen)


def _troubled(decision: Decision) -> bool:
    solve = decision.solve
    return solve is not None and (
        not solve.termination.lower().startswith("optimal") or solve.shortfall_tokens_per_s > 0
    )


def _decision_row(decision: Decision) -> DecisionRow:
    solve = decision.solve
    solver = ""
    if solve is not None:
        gap = "" if solve.gap is None else f", gap {percent(solve.gap)}"
        short = f", short of {solve.shortfall_tokens_per_s:,.0f} tokens/s" if solve.shortfall_tokens_per_s > 0 else ""
        solver = f"{solve.termination}{gap}, {seconds(solve.solve_wall_s)}{short}"
    steps = tuple((str(step.placement), f"{step.change:+d}", step.reason) for step in decision.steps)
    return DecisionRow(at=clock(decision.at_s), steps=steps, solver=solver, remarkable=_troubled(decision))

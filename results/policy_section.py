"""What a report says of one policy, as plain rows and charts for the template."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.accuracy import ForecastError
from results.charts import ChartGroup
from results.decision_charts import decision_group, solver_text, troubled
from results.decisions import Decision
from results.demand_charts import demand_groups, pool_series
from results.fault_table import fault_table
from results.goodput_charts import goodput_group
from results.gpu_charts import gpu_group
from results.latency_charts import LatencyCurves, latency_curves, latency_groups
from results.manifest import RunManifest
from results.metrics import Percentiles, limits_s
from results.niw_charts import niw_group
from results.policy_tables import PolicyTables
from results.quantities import clock, percent, seconds, signed_percent
from results.request_columns import request_columns
from results.server_charts import server_group, utilisation_group
from results.standing import server_intervals
from results.summary import Loss, PolicySummary
from results.text_table import TextTable
from workloads.request import Tier
from workloads.slo import Slo

# A decision table longer than this is scrolled past, not read.
MOST_DECISIONS = 1500
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
    """Everything of one policy's section, already text; `curves` are its latencies, for the overview too."""

    name: str
    summary: PolicySummary
    groups: tuple[ChartGroup, ...]
    timeline: ChartGroup | None
    curves: tuple[LatencyCurves, ...]
    latency_rows: tuple[tuple[str, ...], ...]
    latency_rows_by_model: tuple[tuple[str, ...], ...]
    forecast_rows: tuple[tuple[str, ...], ...]
    losses: tuple[Loss, ...]
    losses_left_out: int
    lost: int
    faults: TextTable | None
    decisions: tuple[DecisionRow, ...]
    decisions_left_out: int


def policy_section(manifest: RunManifest, name: str, summary: PolicySummary, tables: PolicyTables) -> PolicySection:
    """The section of one policy from its summary and its tables."""
    log, end_s = tables.log, tables.end_s
    acted = [decision for decision in log.decisions if decision.steps or decision.solve is not None]
    shown = most_telling(acted)
    requests = request_columns(manifest, tables.completions, end_s)
    curves = latency_curves(requests, manifest.tier_slos())
    intervals = server_intervals(tables.servers, end_s)
    pools = pool_series(tables.completions, intervals, log, requests.models, end_s)
    fleet_gpus = sum(gpu.count for gpu in manifest.gpus)
    groups = (
        *demand_groups(pools, end_s),
        server_group(intervals, requests.models, fleet_gpus, end_s),
        utilisation_group(tables.pools, requests.models, end_s),
        *latency_groups(requests, curves, end_s),
        goodput_group(requests, end_s),
        niw_group(tables.completions, requests.models, end_s),
        gpu_group(tables.gpus, end_s),
    )
    return PolicySection(
        name=name,
        summary=summary,
        groups=tuple(group for group in groups if group is not None),
        timeline=decision_group(shown, len(acted), end_s),
        curves=curves,
        latency_rows=tuple(_latency_rows(summary, manifest.tier_slos(), by_model=False)),
        latency_rows_by_model=tuple(_latency_rows(summary, manifest.tier_slos(), by_model=True)),
        forecast_rows=tuple(_forecast_rows(summary)),
        losses=summary.losses[:MOST_LOSSES],
        losses_left_out=sum(loss.requests for loss in summary.losses[MOST_LOSSES:]),
        lost=summary.requests.rejected + summary.requests.failed,
        faults=fault_table(tables.faults, tables.servers, tables.completions),
        decisions=tuple(_decision_row(decision) for decision in shown),
        decisions_left_out=len(acted) - len(shown),
    )


def limit_text(slo: Slo | None) -> str:
    """A tier's SLO in words."""
    if slo is None:
        return "no SLO"
    limits = limits_s(slo).items()
    return ", ".join(f"{name} ≤ {seconds(limit)}" for name, limit in limits if limit is not None) or "no limit"


def _latency_rows(summary: PolicySummary, slos: dict[Tier, Slo], *, by_model: bool) -> list[tuple[str, ...]]:
    """By tier, with all models in one or one by one."""
    rows = []
    for tier in Tier:
        limits = limits_s(slos.get(tier, Slo()))
        for name, spread in summary.latencies.items():
            if tier.value not in spread.by_tier:
                continue
            limit = limits[name]
            limit_shown = "–" if limit is None else seconds(limit)
            named_spreads = spread.by_tier_and_model[tier.value] if by_model else {"all": spread.by_tier[tier.value]}
            rows += [
                (tier.value, name, model, *_percentile_texts(of), limit_shown)
                for model, of in named_spreads.items()
                if of.n or not by_model
            ]
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


def most_telling(acted: Sequence[Decision], most: int = MOST_DECISIONS) -> tuple[Decision, ...]:
    """At most `most` of the decisions that did something, in order of time.

    When there are more: up to two thirds are those whose solver did not prove an optimum or left demand unserved, then
    the largest changes, as far as they stand out from those left; the rest lies evenly over the others.
    """
    if len(acted) <= most:
        return tuple(acted)

    ranks = [(not troubled(one), -sum(abs(step.change) for step in one.steps)) for one in acted]
    first_left_out = sorted(ranks)[most - most // 3]
    telling = [index for index, rank in enumerate(ranks) if rank < first_left_out]
    others = [index for index, rank in enumerate(ranks) if rank >= first_left_out]
    spaced = np.rint(np.linspace(0, len(others) - 1, most - len(telling))).astype(np.int64)
    return tuple(acted[index] for index in sorted([*telling, *(others[at] for at in spaced)]))


def _decision_row(decision: Decision) -> DecisionRow:
    steps = tuple((str(step.placement), f"{step.change:+d}", step.reason) for step in decision.steps)
    return DecisionRow(
        at=clock(decision.at_s), steps=steps, solver=solver_text(decision), remarkable=troubled(decision)
    )

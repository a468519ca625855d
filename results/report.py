"""report.html: one self-contained page on a run, rebuilt from its folder at any time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from results.atomic_file import replace_text
from results.comparison import Comparison, compare
from results.figures import CDF_SHARES, DEMAND_COLOURS, PALETTE, STATE_COLOURS, gpu_hours_bars, latency_cdfs
from results.manifest import RunManifest
from results.metrics import Floats, is_outcome, is_tier, latencies
from results.policy_charts import Chart
from results.policy_section import PolicySection, limit_text, policy_section
from results.policy_tables import read_tables
from results.quantities import count, hours, percent, seconds, usd
from results.run_folder import RunFolder
from results.standing import HOLDING
from results.summarise import run_summary, summarise_policy
from results.summary import PolicySummary, RunSummary
from workloads.completion import Outcome
from workloads.request import Tier

REPORT_FILE = "report.html"

# A tier's SLO counts as met in the page's verdict when this share of its requests meets every limit of it.
MET_SHARE = 0.95

# Quantiles at figures.CDF_SHARES of each tier's latencies ("TTFT", "E2E"); empty where nothing completed.
Curves = dict[tuple[Tier, str], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierVerdict:
    tier: str
    share: float
    text: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One policy's answer to: did it meet its SLOs, what did it cost, is every request accounted for?"""

    policy: str
    status: str
    error: str
    gpu_hours: str
    change: str
    usd: str
    wasted: str
    requests: str
    accounted: bool
    tiers: tuple[TierVerdict, ...]


def write_report(run: RunFolder) -> RunSummary:
    """Rebuild RUN/summary.json and RUN/report.html from the rest of the folder, also of a run that was killed."""
    manifest = run.manifest
    summaries: dict[str, PolicySummary] = {}
    sections: list[PolicySection] = []
    curves: list[Curves] = []
    # One policy's tables at a time: a run of several policies is larger than any of them.
    for folder in run.policies():
        tables = read_tables(folder, manifest.policies[folder.name])
        summaries[folder.name] = summarise_policy(manifest, tables)
        sections.append(policy_section(manifest, folder.name, summaries[folder.name], tables))
        curves.append(_latency_curves(tables.completions))
    summary = run_summary(manifest, summaries)
    summary.write(run.path)
    replace_text(run.path / REPORT_FILE, _page(manifest, summary, sections, curves))
    return summary


def _page(
    manifest: RunManifest, summary: RunSummary, sections: Sequence[PolicySection], curves: Sequence[Curves]
) -> str:
    # Everything that a run's files say is text to the page: names and reasons are escaped.
    environment = Environment(
        loader=PackageLoader("results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, percent=percent, seconds=seconds, svg=Markup)
    comparison = compare(summary)
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        manifest_json=manifest.model_dump_json(indent=2),
        summary=summary,
        headlines=_headlines(summary, manifest, comparison),
        comparison=comparison,
        limits={tier.value: limit_text(slo) for tier, slo in manifest.tier_slos().items()},
        overview=_overview_charts(manifest, summary, curves),
        sections=sections,
        palette=PALETTE,
        state_colours=STATE_COLOURS,
        demand_colours=DEMAND_COLOURS,
        met_share=MET_SHARE,
    )


def _headlines(summary: RunSummary, manifest: RunManifest, comparison: Comparison) -> tuple[Headline, ...]:
    headlines = []
    for (name, policy), cell in zip(summary.policies.items(), comparison.rows[0].cells, strict=True):
        requests = policy.requests
        headlines.append(
            Headline(
                policy=name,
                status=policy.status,
                error=manifest.policies[name].error,
                gpu_hours=cell.text,
                change=cell.change,
                usd="" if policy.usd is None else usd(policy.usd),
                wasted=hours(policy.wasted_gpu_hours),
                requests=f"{requests.completed:,} of {requests.total:,} requests completed",
                accounted=requests.not_recorded == 0,
                tiers=tuple(
                    TierVerdict(tier=tier, share=share, text=percent(share), met=share >= MET_SHARE)
                    for tier, share in policy.slo_attainment.by_tier.items()
                    if share is not None
                ),
            )
        )
    return tuple(headlines)


def _overview_charts(manifest: RunManifest, summary: RunSummary, curves: Sequence[Curves]) -> tuple[Chart, ...]:
    names = tuple(summary.policies)
    if not names:
        return ()
    states = {
        state: [policy.gpu_hours_by.state.get(state, 0.0) for policy in summary.policies.values()]
        for state in ("READY", *(state for state in HOLDING if state != "READY"))
    }
    charts = [Chart(title="GPU-hours by state", svg=gpu_hours_bars(names, {s: v for s, v in states.items() if any(v)}))]
    for tier in Tier:
        slo = manifest.tier_slos().get(tier)
        for what in ("TTFT", "E2E") if tier.interactive else ("E2E",):
            lines = [by_tier[tier, what] for by_tier in curves]
            if any(len(line) for line in lines):
                limit = None if slo is None else slo.ttft_s if what == "TTFT" else slo.deadline_s
                title = f"{what} of {tier.value}"
                charts.append(Chart(title=title, svg=latency_cdfs(lines, limit, title), legend=names))
    return tuple(charts)


def _latency_curves(completions: pd.DataFrame) -> Curves:
    taken = latencies(completions)
    completed = is_outcome(completions, Outcome.COMPLETED)
    curves: Curves = {}
    for tier in Tier:
        chosen = completed & is_tier(completions, tier)
        for what, values in (("TTFT", taken.ttft_s), ("E2E", taken.e2e_s)):
            curves[tier, what] = np.quantile(values[chosen], CDF_SHARES) if chosen.any() else np.empty(0)
    return curves

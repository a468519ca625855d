"""report.html: one self-contained page on a run, rebuilt from its folder at any time."""

from collections.abc import Sequence
from dataclasses import dataclass

from results.atomic_file import replace_text
from results.comparison import Comparison, compare
from results.manifest import RunManifest
from results.overview_charts import overview_groups
from results.pages import filled
from results.policy_section import PolicySection, limit_text, policy_section
from results.policy_tables import read_tables
from results.quantities import hours, percent, usd
from results.run_facts import load_generator_table, run_facts
from results.run_folder import RunFolder
from results.summarise import run_summary, summarise_policy
from results.summary import PolicySummary, RunSummary

REPORT_FILE = "report.html"

# A tier's SLO counts as met in the page's verdict when this share of its requests meets every limit of it.
MET_SHARE = 0.95


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
    # One policy's tables at a time: a run of several policies is larger than any of them.
    for folder in run.policies():
        tables = read_tables(folder, manifest.policies[folder.name])
        summaries[folder.name] = summarise_policy(manifest, tables)
        sections.append(policy_section(manifest, folder.name, summaries[folder.name], tables))
    summary = run_summary(manifest, summaries)
    summary.write(run.path)
    replace_text(run.path / REPORT_FILE, _page(manifest, summary, sections))
    return summary


def _page(manifest: RunManifest, summary: RunSummary, sections: Sequence[PolicySection]) -> str:
    comparison = compare(summary)
    return filled(
        "report.html.j2",
        manifest=manifest,
        manifest_json=manifest.model_dump_json(indent=2),
        summary=summary,
        headlines=_headlines(summary, manifest, comparison),
        comparison=comparison,
        limits={tier.value: limit_text(slo) for tier, slo in manifest.tier_slos().items()},
        facts=run_facts(manifest),
        overview=overview_groups(sections),
        sections=sections,
        load_generator=load_generator_table(manifest, summary),
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

"""What the report says is what summary.json says."""

import re
from html import unescape
from pathlib import Path

import pytest

from results.manifest import PolicyRecord
from results.quantities import hours, percent, seconds
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import RunFolder
from results.summary import PolicySummary, RunSummary
from workloads.completion import Outcome
from workloads.request import Tier


@pytest.fixture
def reported(tmp_path, completion, manifest, server_row) -> Path:
    """Two policies with latencies of many sizes, losses, and servers that start and drain."""
    names = ("reactive", "lt-ua")
    records = {name: PolicyRecord(status="finished", end_s=3600.0) for name in names}
    manifest(records=records, offered_requests=120, status="finished").write(tmp_path)
    for slower, name in enumerate(names, start=1):
        with RunRecorder(tmp_path / name) as recorder:
            for number in range(120):
                recorder.completion(
                    completion(
                        number,
                        model=f"m{number % 2}",
                        tier=list(Tier)[number % 3],
                        arrival_s=20.0 * number,
                        first=0.013 * (number % 37) * slower,
                        last=2.0 + 0.17 * number,
                        output_tokens=2 + number % 9,
                        outcome=Outcome.REJECTED if number % 40 == 7 else Outcome.COMPLETED,
                        reason="no server" if number % 40 == 7 else "",
                    )
                )
            server_row(recorder, 0.0, "s1", "READY", gpus=2.0)
            server_row(recorder, 100.0, "s2", "STARTING")
            server_row(recorder, 250.0 * slower, "s2", "READY")
            server_row(recorder, 3000.0, "s2", "DRAINING")
    write_report(RunFolder.open(tmp_path))
    return tmp_path


def sections(folder: Path) -> dict[str, str]:
    """The page's text by the name of its h2 headings, tags replaced by spaces."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    parts = re.split(r"<h2>(.*?)</h2>", page)
    heads = [re.sub(r"<.*?>.*", "", head).strip() for head in parts[1::2]]
    texts = [" ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split()) for text in parts[2::2]]
    found: dict[str, str] = {}
    for head, text in zip(heads, texts, strict=True):
        found[head] = f"{found.get(head, '')} {text}"
    return found


def policies(folder: Path) -> dict[str, PolicySummary]:
    return dict(RunSummary.read(folder).policies)


def test_the_head_says_what_the_summary_says(reported):
    text = sections(reported)
    for name, policy in policies(reported).items():
        assert f"{hours(policy.gpu_hours)} GPU-hours" in text[name]
        assert f"{hours(policy.wasted_gpu_hours)} GPU-hours wasted while scaling" in text[name]
        assert f"{policy.requests.completed} of {policy.requests.total} requests completed" in text[name]
        for tier, share in policy.slo_attainment.by_tier.items():
            assert share is not None
            assert f"{tier} {percent(share)}" in text[name]


def test_every_latency_of_the_tables_is_the_summarys(reported):
    text = sections(reported)
    for name, policy in policies(reported).items():
        named = (("TTFT", policy.ttft_s), ("TPOT", policy.tpot_s), ("E2E", policy.e2e_s))
        rows = [(tier, what, "all", of) for what, spread in named for tier, of in spread.by_tier.items()]
        rows += [
            (tier, what, model, of)
            for what, spread in named
            for tier, by_model in spread.by_tier_and_model.items()
            for model, of in by_model.items()
        ]
        assert len(rows) == 9 + 18
        for tier, what, model, of in rows:
            shown = (of.p50, of.p75, of.p90, of.p95, of.p99, of.mean)
            cells = " ".join("–" if value is None else seconds(value) for value in shown)
            assert f"{tier} {what} {model} {cells} {of.n:,}" in text[name]


def test_what_was_lost_and_done_is_the_summarys(reported):
    text = sections(reported)
    for name, policy in policies(reported).items():
        assert f"{policy.requests.rejected} rejected, {policy.requests.failed} failed, of 120" in text[name]
        assert f"{policy.scaling.starts} servers started, {policy.scaling.stops} stopped" in text[name]
        for loss in policy.losses:
            assert f"{loss.outcome} {loss.tier} {loss.model} {loss.requests} {loss.reason}" in text[name]

"""Pages as people get them: in a real browser, on a wide and a narrow screen, in light and in dark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.manifest import PolicyRecord
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import RunFolder
from results.trace_page import trace_page
from workloads.completion import Outcome
from workloads.describe import describe
from workloads.request import Tier
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.targets import judge

pytestmark = pytest.mark.slow

# The least contrast of any text with the page's paper, as WCAG counts it.
CONTRAST = """(() => {
  const light = (css) => { const [r, g, b] = css.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
  const paper = light(getComputedStyle(document.body).backgroundColor)
  const inks = [...document.querySelectorAll('h1, h2, h3, p, td, th, summary, figcaption, .plot text')]
    .map((each) => getComputedStyle(each)).map((style, at, all) => style)
    .map((style) => light(style.fill !== 'rgb(0, 0, 0)' ? style.fill : style.color))
  return Math.min(...inks.map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)))
})()"""

UNFOLD = "document.querySelectorAll('details').forEach((each) => { each.open = true })"


@pytest.fixture
def report_page(tmp_path: Path, completion: Any, manifest: Any, server_row: Any) -> Path:
    """Of a run with long names, many reasons, GPUs that NVML reads and requests of every kind."""
    model = "a-model-with-a-name/" + "of-more-than-fifty-letters" * 2
    records = {"reactive": PolicyRecord(status="finished", end_s=3600.0)}
    manifest(records=records, offered_requests=300, status="finished").write(tmp_path)
    with RunRecorder(tmp_path / "reactive") as recorder:
        for number in range(300):
            tier = list(Tier)[number % 3]
            lost = number % 50 == 0
            recorder.completion(
                completion(
                    number,
                    model=model,
                    tier=tier,
                    arrival_s=10.0 * number,
                    last=2.0 + number % 7,
                    outcome=Outcome.FAILED if lost else Outcome.COMPLETED,
                    reason="word" * 60 if lost else "",
                )
            )
            recorder.gpu_gauge(
                at_s=10.0 * number,
                gpu=number % 2,
                power_w=300.0,
                utilisation=0.5,
                memory_used_bytes=2**34,
                temperature_c=50.0,
                sm_clock_mhz=1500.0,
                energy_j=None,
            )
        server_row(recorder, 0.0, "s1", "READY", model=model)
    write_report(RunFolder.open(tmp_path))
    return tmp_path / "report.html"


@pytest.fixture
def drawn_trace(tmp_path: Path) -> Path:
    trace = synthesise(SyntheticWorkload(mean_requests_per_s=0.5, horizon_h=30), 1)
    description = describe(trace)
    path = tmp_path / "trace.html"
    path.write_text(trace_page("a trace", trace, description, judge(trace, description)), encoding="utf-8")
    return path


@pytest.mark.parametrize("page_of", ["report_page", "drawn_trace"])
async def test_a_page_fits_its_window_is_readable_and_has_no_complaint(
    page_of: str, request: pytest.FixtureRequest, chromium: Callable[[], Any]
) -> None:
    path = request.getfixturevalue(page_of)
    async with chromium() as browser:
        page = await browser.open(path.as_uri())
        await page.until("document.readyState === 'complete' && document.querySelectorAll('.plot').length > 5")
        await page.evaluate(UNFOLD)
        for width in (1280, 400):
            for scheme in ("light", "dark"):
                await page.resize(width)
                await page.scheme(scheme)
                assert await page.overflow_px() == 0, (width, scheme)
                assert await page.evaluate(CONTRAST) > 4.5, (width, scheme)
        assert page.complaints == []

"""The dashboard as people get it: in a real browser."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.types import Placement
from testbed.dashboard.thread import listen, serve_dashboard
from testbed.live_events import Began, ServerChange
from testbed.live_run import LiveRun, LiveRuns
from testbed.live_snapshot import RunFacts
from testbed.recorded_events import recorded_events
from testbed.server import ServerState

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


def server(live: LiveRun, server_id: str, state: ServerState, model: str = "a", reason: str = "") -> None:
    place = Placement(model, "west", "h100")
    live.tell(ServerChange(at_s=150.0, server_id=server_id, placement=place, gpus=1.0, state=state, reason=reason))


@pytest.fixture
def told(small_scenario: Any, run_policy: Any, run_facts: RunFacts, tmp_path: Any) -> LiveRuns:
    """A run of 200 s that has come half-way."""
    folder = run_policy(small_scenario.experiment(), "lt-ua", tmp_path / "lt-ua")
    runs = LiveRuns(replace(run_facts, scenario=f"small {HOSTILE}", policies=("lt-ua", HOSTILE)))
    live = runs.begin("lt-ua", 1000, lambda: 500)
    for at_s, event in recorded_events(folder, None):
        if at_s <= 100.0:
            live.tell(event)
    return runs


async def test_the_page_is_whole_at_any_width_in_light_and_dark_without_a_complaint(
    told: LiveRuns, chromium: Callable[[], Any]
) -> None:
    with serve_dashboard(told, listen(port=0)) as address:
        async with chromium() as browser:
            page = await browser.open(address)
            await page.until("document.querySelectorAll('.tile.READY').length > 1")
            await page.until("document.querySelectorAll('#pools canvas').length === 2")
            await page.until("document.querySelectorAll('#latencies canvas').length === 3")
            for width in (1280, 400):
                for scheme in ("light", "dark"):
                    await page.resize(width)
                    await page.scheme(scheme)
                    await page.until("document.querySelectorAll('#fleet canvas').length >= 3")
                    assert await page.overflow_px() == 0, (width, scheme)
            ink, paper = await page.evaluate(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            )
            assert (ink, paper) == ("rgb(230, 232, 236)", "rgb(20, 23, 28)")
            assert page.complaints == []


async def test_states_are_on_the_page_within_two_seconds(told: LiveRuns, chromium: Callable[[], Any]) -> None:
    live = told.current
    assert live is not None
    with serve_dashboard(told, listen(port=0)) as address:
        async with chromium() as browser:
            page = await browser.open(address)
            await page.until("document.querySelectorAll('.tile').length > 1")
            legend = await page.evaluate("document.getElementById('states').textContent")
            assert "failed 0" in legend and "stopped" not in legend, "of the stopped ones only the last are known"
            for state in ("STARTING", "READY", "DRAINING", "STOPPING", "STOPPED", "FAILED", "SLEEPING"):
                server(live, "new-1", ServerState(state))
                await page.until(f"document.querySelector('.tile.{state}[title^=\"new-1 \"]') !== null", within_s=2)


async def test_what_comes_from_files_is_text(told: LiveRuns, chromium: Callable[[], Any]) -> None:
    live = told.current
    assert live is not None
    server(live, HOSTILE, ServerState.FAILED, model=HOSTILE, reason=HOSTILE)
    with serve_dashboard(told, listen(port=0)) as address:
        async with chromium() as browser:
            page = await browser.open(address)
            await page.until("document.querySelector('.tile.FAILED') !== null")
            assert await page.evaluate("document.querySelectorAll('img').length") == 0
            assert await page.evaluate("document.title") == f"small {HOSTILE} · lt-ua"
            assert page.complaints == []


async def test_the_next_policy_takes_the_page_over(told: LiveRuns, chromium: Callable[[], Any]) -> None:
    with serve_dashboard(told, listen(port=0)) as address:
        async with chromium() as browser:
            page = await browser.open(address)
            await page.until("document.querySelectorAll('#pools canvas').length === 2")
            assert told.current is not None
            told.current.end()
            live = told.begin("static", 10, lambda: 0)
            live.tell(Began(before_s=0.0))
            server(live, "alone-1", ServerState.READY)
            await page.until("document.querySelectorAll('.tile').length === 1")
            assert await page.evaluate("document.querySelectorAll('#pools canvas').length") == 0
            assert page.complaints == []

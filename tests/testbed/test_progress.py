"""What a user sees of a run under way."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from controller.history import DemandHistory
from controller.types import FleetLimits, Observation, Placement, ScalingPlan, Step
from testbed import progress as module
from testbed.live_events import Began, Decided
from testbed.live_run import LiveRun
from testbed.live_snapshot import RunFacts
from testbed.policy_run import Progress
from testbed.progress import clock_text, show_progress
from testbed.server import ServerState
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import Slo


@pytest.fixture
def progress() -> Progress:
    return Progress(
        policy="lt-ua",
        horizon_s=86_400.0,
        offered=20_000,
        now_s=7_380.0,
        arrived=5_000,
        outcomes={Outcome.COMPLETED: 4_000, Outcome.REJECTED: 30, Outcome.FAILED: 4},
        niw_queued=900,
        servers={("west", ServerState.READY): 3, ("west", ServerState.STARTING): 1, ("east", ServerState.READY): 2},
    )


LAST_LINE = "lt-ua  2:03 h of 24:00 h  4,034/20,000 requests (30 rejected, 4 failed)  servers east:2 west:4\n"


def test_without_a_terminal_the_last_line_says_where_the_run_stands(progress: Progress) -> None:
    written = io.StringIO()
    with show_progress(progress, Console(file=written, width=40)):
        assert written.getvalue() == ""
    assert written.getvalue() == LAST_LINE


def test_without_a_terminal_a_plain_line_comes_every_so_often(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLAIN_EVERY_S", 0.001)
    written = io.StringIO()
    with show_progress(progress, Console(file=written, width=200)):
        while written.getvalue().count("\n") < 3:
            pass
    lines = written.getvalue().splitlines(keepends=True)
    assert len(lines) >= 4
    assert set(lines) == {LAST_LINE}


def test_a_fault_leaves_the_terminal_as_it_was(progress: Progress) -> None:
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=True, color_system=None)
    with pytest.raises(KeyError), show_progress(progress, console):
        raise KeyError
    hide_cursor, show_cursor = "\x1b[?25l", "\x1b[?25h"
    shown = written.getvalue()
    assert shown.count(hide_cursor) == shown.count(show_cursor) == 1


def test_in_a_terminal_a_table_shows_servers_by_region_and_state(progress: Progress) -> None:
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=True, color_system=None)
    with show_progress(progress, console):
        pass
    shown = written.getvalue()
    assert "4,034 of 20,000 requests ended, 966 under way (900 in the NIW queue)" in shown
    (west,) = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("west")}.values()
    assert west[:2] == ["1", "3"]
    assert shown.endswith(LAST_LINE)


def test_in_a_terminal_a_run_that_is_listened_to_shows_tiers_and_decisions_too(
    progress: Progress, run_facts: RunFacts
) -> None:
    live = LiveRun(replace(run_facts, slos={Tier.IW_F: Slo(ttft_s=1.0)}), "lt-ua", 20_000, lambda: 5_000)
    live.tell(Began(before_s=0.0))
    for number, ttft_s in enumerate((0.25, 0.25, 0.25, 2.0)):
        live.tell(completion(number, ttft_s))
    place = Placement("m", "west", "h100")
    step = Step(placement=place, change=1, reason="demand [bold]rose[/]")
    live.tell(Decided(seen=observation(), plan=ScalingPlan(counts={place: 1}, next_decision_s=60.0, steps=(step,))))
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=True, color_system=None)
    with show_progress(progress, console, live):
        pass
    shown = written.getvalue()
    (tier,) = (line.split() for line in shown.splitlines() if line.startswith("IW-F"))
    assert tier[1:4] == ["4", "75", "%"]
    assert "0:01:40  +1 m@west/h100 (demand [bold]rose[/])" in shown


def completion(request_id: int, ttft_s: float) -> Completion:
    request = Request(
        request_id=request_id,
        arrival_s=10.0,
        model="m",
        region="west",
        tier=Tier.IW_F,
        prompt_tokens=10,
        output_tokens=10,
    )
    return Completion(
        request=request,
        server_id="m-west-1",
        region="west",
        sent_s=10.0,
        first_token_s=10.0 + ttft_s,
        last_token_s=15.0,
        output_tokens=10,
        outcome=Outcome.COMPLETED,
    )


def observation() -> Observation:
    return Observation(
        at_s=100.0,
        limits=FleetLimits(models=("m",), regions=("west",), capacity={}, quota_gpus={}),
        placements={},
        demand=DemandHistory(bin_s=60.0, until_s=60.0, interactive={}, niw={}),
        niw_queued_tokens={},
    )


def test_before_the_first_request_there_is_something_to_show_too() -> None:
    written = io.StringIO()
    empty = Progress(policy="static", horizon_s=10.0, offered=0)
    with show_progress(empty, Console(file=written, width=120, force_terminal=True, color_system=None)):
        pass
    assert written.getvalue().endswith("static  0.0 s of 10.0 s  0/0 requests (0 rejected, 0 failed)  servers -\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (60.0, "1:00 min"),
        (3599.0, "59:59 min"),
        (3600.0, "1:00 h"),
        (90_061.0, "25:01 h"),
    ],
)
def test_times_are_shown_as_people_read_them(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text

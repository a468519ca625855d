import re

import pytest

from results.manifest import PolicyRecord
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import RunFolder
from workloads.completion import Outcome
from workloads.request import Tier

HOSTILE = '<script>alert("x")</script> $\\frac{a$ & \'"'


def report(path) -> str:
    write_report(RunFolder.open(path))
    return (path / "report.html").read_text()


@pytest.fixture
def small_run(tmp_path, completion, manifest, server_row):
    """Record `reactive` of a run whose manifest says what is given; with `closed=False` as a kill leaves it."""

    def make(name: str = "m", reason: str = "no server", closed: bool = True, **fields) -> None:
        fields = {"offered_requests": 3, "status": "finished", **fields}
        records = {"reactive": PolicyRecord(status="finished", end_s=3600.0)} if closed else None
        manifest(records=records, **fields).write(tmp_path)
        recorder = RunRecorder(tmp_path / "reactive")
        recorder.completion(completion(1, model=name))
        recorder.completion(completion(2, model=name, tier=Tier.NIW, arrival_s=100.0, last=50.0, deadline_s=500.0))
        recorder.completion(completion(3, model=name, first=None, outcome=Outcome.REJECTED, reason=reason))
        server_row(recorder, 0.0, "s1", "READY", model=name)
        recorder.flush()
        if closed:
            recorder.close()

    return make


def test_a_report_answers_what_it_cost_and_what_was_met(tmp_path, small_run):
    small_run()
    page = report(tmp_path)
    assert re.search(r"1\.00 <small>GPU-hours", page)
    assert "2 of 3 requests completed" in page
    assert "TTFT ≤ 1 s" in page
    assert "no server" in page
    assert page.count("<svg ") >= 5
    assert 'class="banner"' not in page


def test_a_report_needs_nothing_from_elsewhere(tmp_path, small_run):
    small_run()
    page = report(tmp_path)
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    assert "<link" not in page and "@import" not in page and "<script" not in page


def test_hostile_names_and_reasons_are_text(tmp_path, small_run):
    small_run(name=HOSTILE, reason=HOSTILE, scenario=HOSTILE, error=HOSTILE, status="failed")
    page = report(tmp_path)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


def test_an_interrupted_run_says_so_at_the_top(tmp_path, small_run):
    small_run(status="interrupted", error="stopped by Ctrl-C", closed=False)
    page = report(tmp_path)
    assert "This run was interrupted: stopped by Ctrl-C" in page


def test_a_killed_run_has_a_report_of_what_it_recorded(tmp_path, small_run):
    small_run(status="running", offered_requests=10, closed=False)
    with (tmp_path / "reactive" / "decisions.jsonl").open("a") as file:
        file.write('{"seen": {"at')
    page = report(tmp_path)
    assert "This run has not ended" in page
    assert "7 not recorded" in page
    assert "1 torn line left out" in page


def test_a_run_in_which_nothing_has_begun_has_a_report(tmp_path, manifest):
    manifest(("reactive", "lt-i"), offered_requests=5).write(tmp_path)
    page = report(tmp_path)
    assert "No policy has begun" in page
    assert "Not begun: reactive, lt-i." in page


def test_a_policy_that_has_recorded_nothing_yet_has_a_section(tmp_path, manifest):
    manifest(("reactive",), offered_requests=5).write(tmp_path)
    RunRecorder(tmp_path / "reactive").close()
    assert "No request has completed" in report(tmp_path)


def test_the_same_run_gives_the_same_report(tmp_path, small_run):
    small_run()
    assert report(tmp_path) == report(tmp_path)

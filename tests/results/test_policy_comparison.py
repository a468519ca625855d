import pytest

from results.comparison import compare
from results.manifest import PolicyRecord
from results.quantities import clock, hours, percent, seconds, signed_percent, usd
from results.recorder import RunRecorder
from results.run_folder import RunFolder
from results.summarise import summarise
from workloads.completion import Outcome


@pytest.fixture
def comparison(tmp_path, completion, manifest, server_row):
    """reactive holds 4 GPUs and loses nothing, lt-i holds 3, misses one SLO of two and takes twice the TTFT."""
    record = PolicyRecord(status="finished", end_s=3600.0)
    manifest(records={"reactive": record, "lt-i": record}, offered_requests=2, status="finished").write(tmp_path)
    for name, gpus, firsts in (("reactive", 4.0, (0.4, 0.4)), ("lt-i", 3.0, (0.8, 0.8))):
        with RunRecorder(tmp_path / name) as recorder:
            server_row(recorder, 0.0, "s", "READY", gpus=gpus)
            recorder.completion(completion(1, first=firsts[0]))
            lost = {"outcome": Outcome.FAILED, "reason": "died"} if name == "lt-i" else {}
            recorder.completion(completion(2, first=firsts[1], **lost))
    return compare(summarise(RunFolder.open(tmp_path)))


def cells(comparison, label):
    return next(row.cells for row in comparison.rows if row.label.strip() == label)


def test_policies_are_compared_to_the_first(comparison):
    assert comparison.policies == ("reactive", "lt-i")
    first, second = cells(comparison, "GPU-hours")
    assert (first.text, first.change, first.better) == ("4.00", "", None)
    assert (second.text, second.change, second.better) == ("3.00", "-25.0 %", True)


def test_more_latency_is_worse_and_less_attainment_is_worse_by_points(comparison):
    assert cells(comparison, "TTFT p95, IW-F")[1].change == "+100.0 %"
    assert cells(comparison, "TTFT p95, IW-F")[1].better is False
    attained = cells(comparison, "SLO met, IW-F")[1]
    assert (attained.text, attained.change, attained.better) == ("50 %", "-50.0 points", False)


def test_no_change_is_neither_better_nor_worse(comparison):
    second = cells(comparison, "E2E p95")[1]
    assert (second.change, second.better) == ("±0.0 %", None)


def test_nothing_is_compared_to_zero(comparison):
    assert [cell.text for cell in cells(comparison, "wasted while scaling")] == ["0.000", "0.000"]
    assert cells(comparison, "wasted while scaling")[1].change == ""


def test_a_policy_that_was_cut_short_is_not_compared(tmp_path, manifest, server_row):
    records = {"reactive": PolicyRecord(status="finished", end_s=3600.0), "lt-i": PolicyRecord(status="interrupted")}
    manifest(records=records).write(tmp_path)
    for name, at_s in (("reactive", 0.0), ("lt-i", 60.0)):
        with RunRecorder(tmp_path / name) as recorder:
            server_row(recorder, 0.0, "s", "READY")
            server_row(recorder, at_s, "t", "READY")
    first, second = compare(summarise(RunFolder.open(tmp_path))).rows[0].cells
    assert (first.text, second.text) == ("2.00", "0.017")
    assert second.change == ""


def test_requests_are_accounted_for(comparison):
    assert [cell.text for cell in cells(comparison, "requests")] == ["2", "2"]
    assert [cell.text for cell in cells(comparison, "completed")] == ["2", "1"]
    assert [cell.text for cell in cells(comparison, "failed")] == ["0", "1"]
    assert not [row for row in comparison.rows if row.label.strip() == "not recorded"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (percent(1.0), "100 %"),
        (percent(0.999999), "> 99.99 %"),
        (percent(0.00001), "< 0.01 %"),
        (percent(0.0), "0 %"),
        (percent(0.985), "98.5 %"),
        (seconds(0.0004), "0.4 ms"),
        (seconds(0.001), "1 ms"),
        (seconds(0.0014), "1.4 ms"),
        (seconds(0.00996), "10 ms"),
        (seconds(0.25), "250 ms"),
        (seconds(0.9996), "1 s"),
        (seconds(59.0), "59 s"),
        (seconds(600.0), "10 min"),
        (seconds(86_400.0), "24 h"),
        (hours(1234.56), "1,234.6"),
        (hours(0.0123), "0.012"),
        (usd(27_061.4), "27,061"),
        (clock(3661.0), "1:01:01"),
        (clock(90_000.0), "1 d 1:00:00"),
        (clock(-5.0), "-0:00:05"),
        (signed_percent(-0.00001), "±0.0 %"),
    ],
)
def test_quantities_read_well(shown, text):
    assert shown == text

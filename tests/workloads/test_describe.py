"""Descriptions of traces: known traces have known statistics."""

import numpy as np
import pytest

from workloads.describe import describe
from workloads.dispersion import index_of_dispersion, interarrival_cv
from workloads.trace import Trace
from workloads.trace_metadata import Calendar, TraceMetadata

MONDAY = Calendar(start_hour_of_week=0.0)


def _trace(arrival_s, horizon_s, calendar=MONDAY, tenant=None, tier="IW-F", prompt_tokens=90) -> Trace:
    size = len(arrival_s)
    return Trace.from_columns(
        request_id=np.arange(size),
        arrival_s=arrival_s,
        model=["m"] * size,
        region=["r"] * size,
        tier=[tier] * size,
        prompt_tokens=np.broadcast_to(prompt_tokens, size),
        output_tokens=np.full(size, 10),
        deadline_s=np.full(size, np.nan),
        tenant=tenant,
        metadata=TraceMetadata(horizon_s=horizon_s, calendar=calendar),
    )


def _hourly(counts) -> np.ndarray:
    """Arrivals spread evenly over each hour, as many as `counts` says."""
    return np.concatenate([(hour + (np.arange(n) + 0.5) / n) * 3600.0 for hour, n in enumerate(counts) if n])


def test_a_working_week_is_seen_as_one():
    weekday = [10] * 8 + [40] * 10 + [10] * 6
    weekend = [5] * 24
    load = describe(_trace(_hourly(weekday * 5 + weekend * 2), 7 * 86400.0)).loads["interactive"]
    assert load.peak_to_trough.value == pytest.approx(4.0)
    assert load.autocorrelation_24h.value == pytest.approx(1.0)
    assert load.weekend_to_weekday.value == pytest.approx(5 * 24 / sum(weekday))
    assert load.requests_per_s.value == pytest.approx((5 * sum(weekday) + 2 * sum(weekend)) / (7 * 86400))
    assert load.tokens_per_s.value == pytest.approx(100 * load.requests_per_s.value)


def test_a_week_that_begins_elsewhere_is_read_by_its_calendar():
    weekday = [10] * 8 + [40] * 10 + [10] * 6
    counts = weekday * 5 + [5] * 48
    shifted = counts[100:] + counts[:100]
    trace = _trace(_hourly(shifted), 7 * 86400.0, Calendar(start_hour_of_week=100.0))
    load = describe(trace).loads["interactive"]
    assert load.peak_to_trough.value == pytest.approx(4.0)
    assert load.weekend_to_weekday.value == pytest.approx(5 * 24 / sum(weekday))


def test_hours_are_those_of_the_calendar_where_time_is_compressed():
    counts = [10] * 12 + [30] * 12
    trace = _trace(_hourly(counts) / 480.0, 180.0, Calendar(start_hour_of_week=24.0, day_s=180.0))
    assert describe(trace).loads["all"].peak_to_trough.value == pytest.approx(3.0)


def test_what_a_short_trace_cannot_tell_is_none_with_a_reason():
    load = describe(_trace(np.arange(600.0), 600.0)).loads["interactive"]
    for statistic in (
        load.peak_to_trough,
        load.autocorrelation_24h,
        load.weekend_to_weekday,
        load.minute_p99_to_hour_median,
    ):
        assert statistic.value is None
        assert statistic.reason
    assert load.index_of_dispersion_10s.value == 0.0
    assert load.interarrival_cv.value == pytest.approx(0.0)


def test_without_a_calendar_weekends_are_not_known():
    load = describe(_trace(_hourly([6] * 168), 7 * 86400.0, calendar=None)).loads["interactive"]
    assert load.weekend_to_weekday.value is None
    assert "weekday of time 0" in load.weekend_to_weekday.reason


def test_poisson_arrivals_have_dispersion_and_cv_one():
    arrival_s = np.sort(np.random.default_rng(1).uniform(0, 7200, 7200 * 20))
    assert index_of_dispersion(arrival_s, 7200.0) == pytest.approx(1.0, abs=0.1)
    assert interarrival_cv(arrival_s) == pytest.approx(1.0, abs=0.03)


def test_arrivals_in_clumps_are_dispersed_by_the_size_of_the_clumps():
    arrival_s = np.repeat(np.sort(np.random.default_rng(2).uniform(0, 7200, 7200)), 5)
    assert index_of_dispersion(arrival_s, 7200.0) == pytest.approx(5.0, rel=0.1)


def test_a_burst_shows_as_minutes_above_their_hour():
    counts = np.full(240, 10)
    counts[[5, 70, 130, 190, 191]] = 80
    arrival_s = np.concatenate([(m + (np.arange(n) + 0.5) / n) * 60.0 for m, n in enumerate(counts)])
    peak = describe(_trace(arrival_s, 4 * 3600.0)).loads["all"].minute_p99_to_hour_median
    assert peak.value == pytest.approx(8.0)


def test_totals_and_lengths_are_counted_by_group():
    described = describe(_trace(np.arange(100.0), 100.0, prompt_tokens=np.arange(1, 101)))
    assert described.requests == described.models["m"].requests == 100
    assert described.models["m"].prompt_tokens == 5050
    assert described.models["m"].output_tokens == 1000
    assert described.tiers["IW-F"].token_share == 1.0
    assert described.prompt_lengths["m"].p50 == 50.5
    assert described.prompt_lengths["m"].most == 100
    assert described.interactive_per_niw.reason == "no NIW requests"


def test_the_share_of_the_ten_biggest_tenants_needs_tenants():
    tenant = np.concatenate([np.repeat(np.arange(10), 8), np.arange(10, 30)])
    assert describe(_trace(np.arange(100.0), 100.0, tenant=tenant)).top_10_tenants_share.value == pytest.approx(0.8)
    assert describe(_trace(np.arange(100.0), 100.0)).top_10_tenants_share.value is None


def test_the_table_has_a_row_for_every_statistic_and_a_reason_for_every_gap():
    rows = describe(_trace(np.arange(600.0), 600.0)).to_rows()
    assert len({(row.subject, row.statistic) for row in rows}) == len(rows)
    assert all((row.value is None) == bool(row.reason) for row in rows)
    assert {"trace", "tiers IW-F", "models m", "regions r", "loads niw", "prompt_lengths m"} <= {
        r.subject for r in rows
    }


def test_an_empty_trace_can_be_described():
    described = describe(_trace([], 0.0))
    assert described.requests == 0
    assert described.loads["all"].requests_per_s.value is None

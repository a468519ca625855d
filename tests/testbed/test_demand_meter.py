"""Demand is counted when it can be known, in bins that no longer change once they have been shown."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.demand_meter import DemandMeter
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import SAGESERVE_SLOS

WEST, EAST = ("m", "west"), ("m", "east")


def meter(**before: Any) -> DemandMeter:
    return DemandMeter(
        (WEST, EAST),
        bin_s=60.0,
        interactive_before=before.get("interactive", {}),
        output_before=before.get("output", {}),
        niw_before=before.get("niw", {}),
        slos=SAGESERVE_SLOS,
    )


def ended(request: Request, last_token_s: float, output_tokens: int, served: str = "west") -> Completion:
    done = output_tokens == request.output_tokens
    return Completion(
        request=request,
        server_id="s",
        region=served,
        sent_s=request.arrival_s,
        first_token_s=None,
        last_token_s=last_token_s,
        output_tokens=output_tokens,
        outcome=Outcome.COMPLETED if done else Outcome.FAILED,
    )


def test_prompts_count_when_they_arrive_and_answers_when_they_have_ended(make_request: Any) -> None:
    counted = meter()
    request = make_request(arrival_s=30.0, tokens=1200)
    counted.arrived(request, 30.0)
    counted.ended(ended(request, 130.0, 600), 130.0)
    history = counted.history(180.0)
    assert history.interactive[WEST].tolist() == [10.0, 0.0, 10.0]
    assert history.interactive_output[WEST].tolist() == [0.0, 0.0, 10.0]


def test_only_whole_past_bins_are_shown(make_request: Any) -> None:
    counted = meter()
    counted.arrived(make_request(tokens=1200), 10.0)
    assert counted.history(59.9).interactive[WEST].tolist() == []
    history = counted.history(119.0)
    assert (history.until_s, history.interactive[WEST].tolist()) == (60.0, [10.0])


def test_demand_counts_where_it_comes_from_with_interactive_and_niw_apart(make_request: Any) -> None:
    counted = meter()
    here, there, batch = (
        make_request(region="west", tokens=120),
        make_request(region="east", tokens=240),
        make_request(region="east", tier=Tier.NIW, tokens=480),
    )
    for request in (here, there, batch):
        counted.arrived(request, 0.0)
        counted.ended(ended(request, 1.0, request.output_tokens, served="west"), 1.0)
    history = counted.history(60.0)
    assert {key: series.tolist() for key, series in history.interactive.items()} == {WEST: [2.0], EAST: [4.0]}
    assert {key: series.tolist() for key, series in history.niw.items()} == {WEST: [0.0], EAST: [8.0]}


def test_an_answer_that_broke_off_counts_with_the_tokens_it_had(make_request: Any) -> None:
    counted = meter()
    request = make_request(tokens=1200)
    counted.ended(ended(request, 5.0, 60), 5.0)
    counted.ended(ended(request, 5.0, 0), 5.0)
    assert counted.history(60.0).interactive[WEST].tolist() == [1.0]


def test_history_from_before_the_run_comes_first_and_shorter_ones_end_at_time_0(make_request: Any) -> None:
    counted = meter(
        interactive={WEST: np.array([1.0, 2.0, 3.0]), EAST: np.array([4.0])},
        output={WEST: np.array([0.5, 1.5])},
        niw={WEST: np.array([5.0])},
    )
    counted.arrived(make_request(tokens=120), 0.0)
    history = counted.history(60.0)
    assert history.interactive[WEST].tolist() == [1.0, 2.0, 3.0, 1.0]
    assert history.interactive[EAST].tolist() == [0.0, 0.0, 4.0, 0.0]
    assert history.niw[WEST].tolist() == [0.0, 0.0, 5.0, 0.0]
    assert history.interactive_output[WEST].tolist() == [0.0, 0.5, 1.5, 0.0]
    assert len({len(series) for series in (*history.interactive.values(), *history.niw.values())}) == 1


def test_what_was_shown_is_read_only_and_survives_the_growth_of_the_table(make_request: Any) -> None:
    counted = meter()
    counted.arrived(make_request(tokens=120), 0.0)
    shown = counted.history(60.0).interactive[WEST]
    with pytest.raises(ValueError, match="read-only"):
        shown[0] = 7.0
    counted.arrived(make_request(tokens=120), 60.0 * 5000)
    assert shown.tolist() == [1.0]
    late = counted.history(60.0 * 5001).interactive
    assert (late[WEST][0], late[WEST][5000], len(late[WEST]), len(late[EAST])) == (1.0, 1.0, 5001, 5001)
    assert len(counted.history(60.0 * 20_000).interactive[EAST]) == 20_000


def test_a_clock_that_reads_a_hair_less_than_the_end_of_a_bin_does_not_change_the_past(make_request: Any) -> None:
    counted = meter()
    hair_before_s = math.nextafter(60.0, 0.0)
    shown = counted.history(hair_before_s)
    assert shown.until_s == 60.0
    counted.arrived(make_request(tokens=120), hair_before_s)
    assert shown.interactive[WEST].tolist() == [0.0]
    assert counted.history(120.0).interactive[WEST].tolist() == [0.0, 1.0]


events = st.lists(
    st.tuples(st.floats(0, 1000), st.sampled_from([WEST, EAST]), st.sampled_from(list(Tier))), max_size=40
)


@settings(max_examples=50, deadline=None)
@given(told=events, looks=st.lists(st.floats(0, 1000), min_size=2, max_size=6))
def test_no_bin_changes_once_it_has_been_shown(told: list[Any], looks: list[float], make_request: Any) -> None:
    counted = meter()
    shown: list[tuple[Any, list[float]]] = []
    tokens = 0.0
    moments = [(at_s, 1, what) for at_s, *what in told] + [(at_s, 0, []) for at_s in looks]
    for at_s, arrives, what in sorted(moments, key=lambda moment: moment[:2]):
        if arrives:
            (model, region), tier = what
            counted.arrived(make_request(model=model, region=region, tier=tier, tokens=120), at_s)
            tokens += 60.0
        else:
            series = [*(h := counted.history(at_s)).interactive.values(), *h.niw.values()]
            assert all(len(values) * 60.0 == h.until_s <= at_s + 1e-6 for values in series)
            shown += [(values, values.tolist()) for values in series]
    assert all(values.tolist() == once for values, once in shown)
    total = counted.history(1200.0)
    assert sum(float(s.sum()) for table in (total.interactive, total.niw) for s in table.values()) * 60.0 == (
        pytest.approx(tokens)
    )


def test_interactive_requests_that_end_are_counted_and_those_that_missed_their_slo(make_request: Any) -> None:
    counted = meter(interactive={WEST: np.array([5.0])})
    failed = make_request(arrival_s=30.0, tokens=1200)
    done = make_request(arrival_s=30.0, tokens=1200)
    batch = make_request(arrival_s=30.0, tokens=1200, tier=Tier.NIW)
    counted.ended(ended(failed, 70.0, 1), 70.0)
    counted.ended(ended(done, 70.0, done.output_tokens), 70.0)
    counted.ended(ended(batch, 70.0, 1), 70.0)
    history = counted.history(120.0)
    assert history.ended[WEST].tolist() == [0.0, 0.0, 2.0]
    assert history.missed[WEST].tolist() == [0.0, 0.0, 1.0]
    assert history.ended[EAST].tolist() == history.missed[EAST].tolist() == [0.0, 0.0, 0.0]

"""When NIW requests leave their queue: by age at once or after ten hours, by deadline sooner the less time is left."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rules.niw import DeadlineRules, NiwRules, deadline_s
from workloads.request import Request, Tier

HOUR_S = 3600.0


def niw(arrival_s=0.0, deadline_s=None, tokens=100, model="m"):
    return Request(
        request_id=0,
        arrival_s=arrival_s,
        model=model,
        region="west",
        tier=Tier.NIW,
        prompt_tokens=tokens // 2,
        output_tokens=tokens - tokens // 2,
        deadline_s=deadline_s,
    )


@pytest.mark.parametrize(
    ("utilisation", "taken"), [(0.0, 2), (0.49, 2), (0.50, 1), (0.59, 1), (0.60, 0), (math.inf, 0)]
)
def test_a_pool_takes_niw_requests_by_its_utilisation(utilisation, taken):
    assert NiwRules().takes(utilisation) == taken


def test_by_age_a_request_is_promoted_after_ten_hours_and_presses_nobody_before():
    rules = NiwRules()
    assert rules.promotion_s(niw(arrival_s=100.0)) == 36_100.0
    assert rules.pressure(niw(arrival_s=100.0, deadline_s=200.0), 36_000.0) == 0.0


def test_by_deadline_a_fresh_request_waits_for_a_valley_and_an_old_one_goes_wherever_a_region_has_room():
    rules = DeadlineRules(promote_slack=0.0)
    head = niw(deadline_s=24 * HOUR_S)
    fresh, old = rules.pressure(head, 0.0), rules.pressure(head, 24 * HOUR_S)
    assert (fresh, old) == (0.0, 1.0)
    assert [rules.takes(used, fresh) for used in (0.49, 0.59, 0.61)] == [2, 1, 0]
    assert [rules.takes(used, old) for used in (0.59, 0.69, 0.71)] == [2, 1, 0]
    half = rules.pressure(head, 12 * HOUR_S)
    assert [rules.takes(used, half) for used in (0.54, 0.64, 0.66)] == [2, 1, 0]


def test_a_request_must_start_earlier_by_the_time_that_its_service_takes():
    rules = DeadlineRules(promote_slack=0.0, s_per_token={"m": 0.5})
    assert rules.promotion_s(niw(deadline_s=1000.0, tokens=200)) == 900.0
    assert rules.promotion_s(niw(deadline_s=1000.0, tokens=200, model="n")) == 1000.0
    # A long request that is due later may have to start first.
    assert rules.promotion_s(niw(deadline_s=1100.0, tokens=1000)) < rules.promotion_s(niw(deadline_s=1000.0))


def test_the_slack_left_at_promotion_is_a_share_of_what_there_was():
    rules = DeadlineRules(promote_slack=0.25)
    assert rules.promotion_s(niw(arrival_s=50.0, deadline_s=250.0)) == 200.0
    assert rules.pressure(niw(arrival_s=50.0, deadline_s=250.0), 200.0) == 1.0


def test_a_request_that_cannot_be_in_time_is_promoted_at_once():
    rules = DeadlineRules(s_per_token={"m": 100.0})
    late = niw(arrival_s=5.0, deadline_s=10.0)
    assert rules.promotion_s(late) == 5.0
    assert rules.pressure(late, 5.0) == 1.0


def test_a_request_without_a_deadline_has_that_of_its_tier_or_all_the_time_there_is():
    assert deadline_s(niw(arrival_s=5.0), 100.0) == 105.0
    assert deadline_s(niw(arrival_s=5.0, deadline_s=7.0), 100.0) == 7.0
    assert DeadlineRules(deadline_after_s=100.0, promote_slack=0.5).promotion_s(niw(arrival_s=5.0)) == 55.0
    forever = DeadlineRules()
    assert forever.promotion_s(niw()) == math.inf
    assert forever.pressure(niw(), 1e9) == 0.0


times = st.floats(0, 1e6)


@given(used=st.floats(0, 1), at=st.tuples(times, times), allowed_s=st.floats(1, 1e6), share=st.floats(0, 1))
def test_the_less_time_is_left_the_more_is_taken_and_never_above_the_routing_threshold(used, at, allowed_s, share):
    rules = DeadlineRules(promote_slack=share)
    head = niw(deadline_s=allowed_s)
    sooner, later = (rules.takes(used, rules.pressure(head, at_s)) for at_s in sorted(at))
    assert NiwRules().takes(used) <= sooner <= later
    assert later == 0 or used < 0.70 + 1e-9


@pytest.mark.parametrize("rules", [NiwRules, DeadlineRules])
def test_niw_thresholds_out_of_order_are_refused(rules):
    with pytest.raises(ValueError, match=r"take_two_below=0\.7"):
        rules(take_two_below=0.7)


def test_an_age_of_nothing_and_a_share_above_one_are_refused():
    with pytest.raises(ValueError, match="promote_after_s=0"):
        NiwRules(promote_after_s=0.0)
    with pytest.raises(ValueError, match="promote_slack=2"):
        DeadlineRules(promote_slack=2)

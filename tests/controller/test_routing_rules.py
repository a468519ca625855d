"""The alternatives to the 0.70 rule and to the shortest queue."""

import math
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rules.ordering import Order, priority, request_ranking
from controller.rules.routing import RoutingRules, expected_wait_s, least_latency_region, two_choices
from workloads.request import Request, Tier
from workloads.slo import SAGESERVE_SLOS, Slo


def nearest(rtt_s: Mapping[str, float], wait_s: Mapping[str, float], preferred: tuple[str, ...]) -> str:
    return least_latency_region(preferred, rtt_s.__getitem__, wait_s.__getitem__)


def test_latency_weighs_the_way_against_the_wait() -> None:
    rtt_s = {"west": 0.0, "east": 0.06}
    assert nearest(rtt_s, {"west": 0.05, "east": 0.0}, ("west", "east")) == "west"
    assert nearest(rtt_s, {"west": 0.07, "east": 0.0}, ("west", "east")) == "east"
    assert nearest(rtt_s, {"west": 0.06, "east": 0.0}, ("west", "east")) == "west", "the more preferred on ties"
    assert nearest(rtt_s, {"west": math.inf, "east": 9.0}, ("west", "east")) == "east"
    with pytest.raises(ValueError, match="at least one region"):
        nearest(rtt_s, {}, ())


def test_nobody_waits_below_the_threshold_and_what_lies_beyond_it_is_worked_off_at_theta() -> None:
    assert expected_wait_s(700, 1000, 100.0, threshold=0.7) == 0.0
    assert expected_wait_s(900, 1000, 100.0, threshold=0.7) == pytest.approx(2.0)


@given(st.integers(0, 2**40), st.integers(0, 2**32), st.integers(2, 50))
def test_two_choices_are_two_and_the_same_for_the_same_request(number: int, seed: int, servers: int) -> None:
    first, second = two_choices(number, seed, servers)
    assert first != second
    assert {first, second} <= set(range(servers))
    assert two_choices(number, seed, servers) == (first, second)


def test_two_choices_fall_on_all_servers_alike_and_another_seed_draws_others() -> None:
    drawn = [two_choices(number, 1, 5) for number in range(20_000)]
    share = Counter(index for pair in drawn for index in pair)
    assert all(7_500 < count < 8_500 for count in share.values())
    pairs = Counter(drawn)
    assert len(pairs) == 20 and min(pairs.values()) > 800
    assert drawn != [two_choices(number, 2, 5) for number in range(20_000)]
    assert two_choices(7, 1, 1) == (0, 0)
    with pytest.raises(ValueError, match="no server"):
        two_choices(7, 1, 0)


def test_a_threshold_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="region_threshold=0"):
        RoutingRules(region_threshold=0.0)


def request(tier: Tier, arrival_s: float, deadline_s: float | None = None) -> Request:
    return Request(
        request_id=0,
        arrival_s=arrival_s,
        model="m",
        region="west",
        tier=tier,
        prompt_tokens=1,
        output_tokens=1,
        deadline_s=deadline_s,
    )


@pytest.mark.parametrize("order", [Order.EDF, Order.PF, Order.DPA])
def test_a_promoted_request_ranks_as_an_interactive_one_that_arrives_at_its_promotion(order: Order) -> None:
    batch, normal = request(Tier.NIW, 0.0, 86_400.0), request(Tier.IW_N, 36_000.0)
    assert priority(batch, order, at_s=36_000.0, promoted=True) == priority(normal, order, at_s=36_000.0)
    assert priority(batch, order, at_s=36_000.0) > priority(normal, order, at_s=36_000.0)


def test_a_ranking_goes_by_the_slos_of_the_scenario_and_fcfs_needs_none() -> None:
    assert request_ranking(Order.FCFS, SAGESERVE_SLOS) is None
    loose = request_ranking(Order.EDF, {**SAGESERVE_SLOS, Tier.IW_F: Slo(ttft_s=100.0)})
    strict = request_ranking(Order.EDF, SAGESERVE_SLOS)
    assert loose is not None and strict is not None
    fast, normal = request(Tier.IW_F, 0.0), request(Tier.IW_N, 0.0)
    assert strict(fast, 0.0, False) < strict(normal, 0.0, False)
    assert loose(fast, 0.0, False) > loose(normal, 0.0, False)

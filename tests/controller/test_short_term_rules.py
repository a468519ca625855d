"""Routing, orders of waiting, and the catalogue of policies."""

import math

import pytest

from controller.catalogue import make_policy, policy_names
from controller.parameters import ReactiveParameters
from controller.rules.ordering import Order, OrderingRules, priority
from controller.rules.routing import choose_region, choose_server
from workloads.request import Request, Tier


def test_a_request_goes_to_the_first_preferred_region_with_room():
    used = {"west": 0.70, "central": 0.69, "east": 0.10}
    assert choose_region(("west", "central", "east"), used.__getitem__) == "central"
    assert choose_region(("west", "central", "east"), used.__getitem__, threshold=0.8) == "west"


def test_a_request_that_finds_no_room_goes_to_the_least_used_region():
    used = {"west": 0.95, "central": 0.80, "east": 0.80}
    assert choose_region(("west", "east", "central"), used.__getitem__) == "east"
    assert choose_region(("west", "east"), lambda region: math.inf) == "west"


def test_regions_behind_the_chosen_one_are_not_asked():
    asked = []
    choose_region(("west", "east"), lambda region: asked.append(region) or 0.0)
    assert asked == ["west"]


def test_a_request_without_any_region_is_an_error():
    with pytest.raises(ValueError, match="at least one region"):
        choose_region((), lambda region: 0.0)


def test_the_shortest_queue_is_joined_and_the_first_of_equals():
    assert choose_server([300, 120, 500, 120]) == 1
    with pytest.raises(ValueError):
        choose_server([])


def request(tier, arrival_s, deadline_s=None):
    return Request(
        request_id=0,
        arrival_s=arrival_s,
        model="llama",
        region="west",
        tier=tier,
        prompt_tokens=1,
        output_tokens=1,
        deadline_s=deadline_s,
    )


def served(order, requests, at_s, **given):
    """The requests as vLLM would take them: by priority, then by arrival."""
    return sorted(requests, key=lambda r: (priority(r, order, at_s=at_s, **given), r.arrival_s))


def test_each_order_serves_its_own_request_first():
    fast = request(Tier.IW_F, 90.0)  # due at 91
    normal = request(Tier.IW_N, 25.0)  # due at 85
    batch = request(Tier.NIW, 10.0, deadline_s=10_000.0)
    waiting = [fast, normal, batch]
    assert served(Order.FCFS, waiting, 90.0) == [batch, normal, fast]
    assert served(Order.EDF, waiting, 90.0) == [normal, fast, batch]
    assert served(Order.PF, waiting, 90.0) == [fast, normal, batch]


def test_dpa_serves_the_severely_expired_then_the_recently_expired_then_the_urgent():
    at_s = 1000.0
    severe = request(Tier.IW_N, 920.0)  # due at 980
    recent = request(Tier.IW_F, 995.0)  # due at 996
    urgent = request(Tier.IW_F, 999.5)  # due at 1000.5
    calm = request(Tier.IW_N, 990.0)  # due at 1050
    distant = request(Tier.NIW, 0.0, deadline_s=86_400.0)
    waiting = [distant, calm, urgent, recent, severe]
    assert served(Order.DPA, waiting, at_s) == [severe, recent, urgent, calm, distant]
    patient = OrderingRules(severe_s=100.0)
    assert served(Order.DPA, waiting, at_s, rules=patient)[:2] == [severe, recent]
    assert patient.dpa_class(severe, at_s) == 1


def test_a_promoted_request_ranks_as_interactive_normal():
    batch = request(Tier.NIW, 0.0, deadline_s=86_400.0)
    assert priority(batch, Order.PF, at_s=40_000.0, promoted=True) == priority(
        request(Tier.IW_N, 0.0), Order.PF, at_s=0.0
    )
    assert priority(batch, Order.PF, at_s=40_000.0) > priority(batch, Order.PF, at_s=40_000.0, promoted=True)


def test_every_policy_is_made_by_its_name():
    sageserve = {"static", "siloed", "reactive", "chiron", "lt-i", "lt-u", "lt-ua"}
    assert set(policy_names()) == sageserve | {"hpa", "mpc", "oracle"}
    assert [make_policy(name, {}).name for name in policy_names()] == list(policy_names())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("lt_ua", {}, r"unknown policy 'lt_ua'; did you mean 'lt-ua'\? known: static, "),
        ("reactive", {"cooldown_s": 3}, r"unknown parameter 'cooldown_s'; did you mean 'cooldown_(in|out)_s'\?"),
        ("lt-u", {"forecast": {"steps": 3}}, r"unknown parameter 'forecast.steps'; did you mean 'step_s'\?"),
        ("lt-i", {"thresholds": {}}, r"policy lt-i: unknown parameter 'thresholds'"),
        ("lt-i", {"epsilon": 1.5}, r"policy lt-i: epsilon: .*less than or equal to 1 \(given 1.5\)"),
        ("lt-i", {"period_s": 1000.0}, r"period_s=1000 must be a multiple of forecast.step_s=900"),
        ("reactive", {"scale_in_below": 0.9}, r"scale_in_below=0.9 must be below scale_out_above=0.7"),
        ("lt-ua", {"forecast": {"order": [3, 4, 2]}}, r"forecast: order \(3, 4, 2\); give \(p, d, q\)"),
        (
            "lt-i",
            {"forecast": {"method": "prophet"}},
            r"forecast.method: no forecast method 'prophet'; there are .*ets",
        ),
    ],
)
def test_a_wrong_name_key_or_value_is_told_in_one_line(name, parameters, message):
    with pytest.raises(ValueError, match=message) as told:
        make_policy(name, parameters)
    assert "\n" not in str(told.value)


def test_a_preset_gives_way_to_what_is_given():
    thresholds = ReactiveParameters(preset="code", cooldown_in_s=10.0).thresholds()
    assert (thresholds.scale_out_above, thresholds.scale_in_below) == (0.50, 0.25)
    assert (thresholds.cooldown_out_s, thresholds.cooldown_in_s) == (65.0, 10.0)

"""HPA does what Kubernetes' HorizontalPodAutoscaler does. Expected counts are Kubernetes' own, worked by hand."""

import dataclasses

import numpy as np
import pytest

from controller.catalogue import make_policy
from controller.rules.target_tracking import (
    Change,
    Recommendation,
    changed_within,
    for_demand,
    for_mean,
    least_after,
    most_after,
    stabilised,
    still_largest,
    with_change,
)
from controller.types import Capacity, FleetLimits, Placement, PlacementState

WEST = Placement("llama", "west", "h100")


def hpa(**parameters):
    return make_policy("hpa", parameters)


def at(seen, plan, at_s, **changes):
    """The observation after the plan was carried out at once."""
    states = {p: dataclasses.replace(s, starting=0, ready=plan.counts[p]) for p, s in seen.placements.items()}
    return dataclasses.replace(seen, at_s=at_s, placements=states, previous=plan, **changes)


def asked_for(make_history, limits, *tokens_per_s):
    """Demand of llama@west, one bin of a minute each."""
    return make_history(limits, until_s=60.0 * len(tokens_per_s), series={("llama", "west"): np.array(tokens_per_s)})


# The rules alone.


@pytest.mark.parametrize(
    ("demand", "current", "servers"),
    [
        (5_000.0, 4, 8),  # 700 a server
        (0.0, 4, 0),
        (2_940.0, 4, 4),  # 5 % above the target: tolerated
        (2_530.0, 4, 4),  # 9.6 % below it
        (2_500.0, 4, 4),  # 10.7 % below it, but three servers would not do
        (2_000.0, 4, 3),
        (700.0, 0, 1),
        (701.0, 0, 2),
    ],
)
def test_servers_for_a_demand_are_those_that_bring_each_to_its_target(demand, current, servers):
    assert for_demand(demand, per_server=700.0, current=current, tolerance=0.1) == servers


@pytest.mark.parametrize(
    ("value", "ready", "unready", "servers"),
    [
        (0.80, 5, 0, 8),  # 5 x 0.8 / 0.5
        (0.54, 5, 0, 5),
        (0.10, 5, 0, 1),
        (0.80, 5, 3, 8),  # the three that start are already those that were missing
        (0.80, 5, 1, 8),
        (0.80, 2, 6, 8),  # with those that start as idle ones it would be too many: nothing changes
        (0.10, 5, 3, 1),  # on the way down only READY ones count
        (0.90, 0, 3, 3),  # nothing to measure
    ],
)
def test_servers_that_start_count_as_idle_on_the_way_up_and_not_at_all_on_the_way_down(value, ready, unready, servers):
    assert for_mean(value, target=0.5, ready=ready, unready=unready, tolerance=0.1) == servers


def test_down_goes_to_the_largest_recommendation_of_the_window_and_up_at_once():
    earlier = [Recommendation(at_s=0.0, servers=6), Recommendation(at_s=100.0, servers=4)]
    assert stabilised(8, 3, earlier) == 6
    assert stabilised(5, 3, earlier) == 5
    assert stabilised(2, 3, earlier) == 3
    assert stabilised(8, 3, []) == 3
    assert [r.servers for r in still_largest(earlier, 300.0, 300.0)] == [6, 4]
    assert [r.servers for r in still_largest(earlier, 301.0, 300.0)] == [4]


def test_a_steady_recommendation_is_remembered_once():
    steady = [Recommendation(at_s=15.0 * i, servers=5) for i in range(20)]
    assert still_largest(steady, 285.0, 300.0) == (Recommendation(at_s=285.0, servers=5),)
    both = [Recommendation(at_s=0.0, servers=2), Recommendation(at_s=0.0, servers=1)]
    assert still_largest(both, 0.0, 300.0) == (Recommendation(at_s=0.0, servers=2),)


def test_rates_count_from_what_stood_as_their_period_began():
    changes = (Change(at_s=0.0, servers=3), Change(at_s=10.0, servers=-1))
    assert changed_within(changes, 12.0, 15.0) == (3, 1)
    assert changed_within(changes, 15.0, 15.0) == (0, 1)
    assert most_after(3, 3, value=100, percent=True) == 6
    assert most_after(3, 3, value=4, percent=False) == 7
    assert most_after(7, 3, value=4, percent=False) == 7
    assert most_after(3, 3, value=10, percent=True) == 4
    assert least_after(8, 8, value=100, percent=True) == 0
    assert least_after(8, 8, value=30, percent=True) == 5
    assert least_after(6, 8, value=2, percent=False) == 6
    assert with_change(changes, Change(at_s=10.0, servers=2), 15.0) == (
        Change(at_s=0.0, servers=3),
        Change(at_s=10.0, servers=1),
    )
    assert with_change(changes, Change(at_s=20.0, servers=0), 15.0) == (Change(at_s=10.0, servers=-1),)


# The policy.


def test_a_pool_goes_to_its_demand_over_the_target_at_once_and_says_so(make_limits, make_history, make_seen):
    limits = make_limits(quota=40.0)
    demand = asked_for(make_history, limits, 2_000.0, 4_000.0)
    plan = hpa().decide(make_seen(limits, 2, at_s=120.0, demand=demand))
    assert plan.counts[WEST] == 6
    assert plan.steps[0].reason == "4000 tokens/s at 0.70 x 1000 a server: 6 servers"
    assert plan.next_decision_s == 135.0


def test_it_grows_by_four_or_doubles_in_fifteen_seconds_whichever_is_more(make_limits, make_history, make_seen):
    limits = make_limits(quota=60.0)
    demand = asked_for(make_history, limits, 14_000.0)
    seen = make_seen(limits, 2, at_s=60.0, demand=demand)
    counts = []
    for at_s in (60.0, 65.0, 75.0, 90.0, 105.0):
        plan = hpa().decide(dataclasses.replace(seen, at_s=at_s))
        counts.append(plan.counts[WEST])
        seen = at(seen, plan, at_s)
    assert counts == [6, 6, 12, 20, 20]
    limited = hpa(scale_up={"policies": [{"kind": "servers", "value": 1, "period_s": 60}]})
    plan = limited.decide(make_seen(limits, 2, at_s=60.0, demand=demand))
    assert plan.counts[WEST] == 3 and plan.steps[0].reason.endswith("; rates allow 3")
    stuck = hpa(scale_up={"select": "disabled"})
    assert stuck.decide(make_seen(limits, 2, at_s=60.0, demand=demand)).counts[WEST] == 2


def test_it_shrinks_only_to_what_the_last_five_minutes_asked_for(make_limits, make_history, make_seen):
    limits = make_limits(quota=40.0)
    busy = asked_for(make_history, limits, 5_600.0)
    quiet = asked_for(make_history, limits, 700.0)
    seen = make_seen(limits, 8, at_s=60.0, demand=busy)
    plan = hpa().decide(seen)
    assert plan.counts[WEST] == 8
    for at_s in (120.0, 240.0, 355.0):
        plan = hpa().decide(at(seen, plan, at_s, demand=quiet))
        assert plan.counts[WEST] == 8
    plan = hpa().decide(at(seen, plan, 375.0, demand=quiet))
    assert plan.counts[WEST] == 1
    quick = hpa(scale_down={"stabilisation_s": 0, "policies": [{"kind": "servers", "value": 2, "period_s": 60}]})
    first = quick.decide(dataclasses.replace(seen, demand=quiet, previous=None))
    second = quick.decide(at(seen, first, 75.0, demand=quiet))
    assert second.counts[WEST] == 6


def test_with_a_window_the_highest_minute_of_it_counts(make_limits, make_history, make_seen):
    limits = make_limits(quota=40.0)
    demand = asked_for(make_history, limits, 7_000.0, *[1_400.0] * 14)
    seen = make_seen(limits, 1, at_s=900.0, demand=demand)
    assert hpa(scale_up={"policies": [{"kind": "servers", "value": 99}]}).decide(seen).counts[WEST] == 2
    windowed = hpa(window_s=900.0, scale_up={"policies": [{"kind": "servers", "value": 99}]})
    assert windowed.decide(seen).counts[WEST] == 10


def test_a_share_of_the_niw_load_counts_as_demand(make_limits, make_history, make_seen):
    limits = make_limits(quota=40.0)
    demand = make_history(limits, until_s=3600.0, bins=60, level=2_000.0, niw=8_000.0)
    assert hpa().decide(make_seen(limits, 2, at_s=3600.0, demand=demand)).counts[WEST] == 4
    assert hpa(niw_share=0.0).decide(make_seen(limits, 2, at_s=3600.0, demand=demand)).counts[WEST] == 3


def test_utilisation_is_tracked_over_the_ready_servers(make_limits, make_seen):
    limits = make_limits(quota=40.0)
    by_use = hpa(metric="utilisation", target=0.5)
    plan = by_use.decide(make_seen(limits, 5, utilisation=0.8))
    assert plan.counts[WEST] == 8
    assert plan.steps[0].reason == "utilisation 0.80 against 0.50: 8 servers"
    starting = {p: PlacementState(ready=5, starting=3, utilisation=0.8) for p in limits.placements()}
    assert by_use.decide(make_seen(limits, starting)).steps == ()


CHEAP, DEAR = Placement("llama", "west", "a100"), Placement("llama", "west", "h100")


def two_gpu_types(h100_tokens_per_s: float) -> FleetLimits:
    """Three a100 of 1000 tokens/s at 3 USD/h, and eight h100 at 4 USD/h per 1000 tokens/s; both start in a minute."""
    thetas = {"h100": (h100_tokens_per_s, 4.0), "a100": (1000.0, 3.0)}
    return FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity={
            ("llama", gpu): Capacity(theta_tokens_per_s=theta, gpus=1.0, start_s=60.0, usd_per_gpu_h=usd * theta / 1000)
            for gpu, (theta, usd) in thetas.items()
        },
        quota_gpus={("west", "h100"): 8.0, ("west", "a100"): 3.0},
    )


def test_servers_of_several_gpu_types_count_by_what_they_sustain(make_history, make_seen):
    """Three h100 and two a100 do for 8000, four for 4000."""
    cheap, dear = CHEAP, DEAR
    limits = two_gpu_types(2000.0)
    eager = hpa(
        target=1.0, scale_up={"policies": [{"kind": "servers", "value": 99}]}, scale_down={"stabilisation_s": 0}
    )
    demand = make_history(limits, until_s=60.0, bins=1, level=8_000.0)
    seen = make_seen(limits, 1, at_s=60.0, demand=demand)
    plan = eager.decide(seen)
    assert (plan.counts[cheap], plan.counts[dear]) == (2, 3)
    less = make_history(limits, until_s=60.0, bins=1, level=4_000.0)
    once = eager.decide(at(seen, plan, 75.0, demand=less))
    after = eager.decide(at(seen, once, 90.0, demand=less))
    assert (after.counts[cheap], after.counts[dear]) == (2, 1)


def test_a_model_in_demand_keeps_a_server_and_one_that_is_not_may_lose_all(make_limits, make_seen):
    limits = make_limits(min_servers=0)
    states = dict.fromkeys(limits.placements(), PlacementState())
    queued = dataclasses.replace(make_seen(limits, states), niw_queued_tokens={"llama": 500, "bloom": 0})
    plan = hpa().decide(queued)
    assert {p.model for p, count in plan.counts.items() if count} == {"llama"}
    quick = hpa(scale_down={"stabilisation_s": 0})
    idle = make_seen(limits, 2, at_s=60.0)
    gone = quick.decide(at(idle, quick.decide(idle), 75.0))
    assert set(gone.counts.values()) == {0}


def test_what_it_remembers_has_names_that_tell_what_it_is(make_limits, make_history, make_seen):
    limits = make_limits(models=("llama",), regions=("west",), quota=40.0)
    plan = hpa().decide(make_seen(limits, 2, at_s=60.0, demand=asked_for(make_history, limits, 2_800.0)))
    assert plan.memory.numbers == {
        "llama@west recommended at 60.0 s": 4.0,
        "llama@west changed at 60.0 s": 2.0,
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "cpu"}, "metric: Input should be 'tokens' or 'utilisation' (given 'cpu')"),
        ({"scale_down": {"stabilization_s": 60}}, "did you mean 'stabilisation_s'?"),
        ({"target": 0}, "target: Input should be greater than 0 (given 0)"),
        ({"scale_up": {"policies": []}}, "scale_up.policies"),
    ],
)
def test_a_parameter_that_does_not_fit_is_told_in_one_line(parameters, message):
    with pytest.raises(ValueError) as told:
        hpa(**parameters)
    assert message in str(told.value) and "\n" not in str(told.value)


def test_small_servers_serve_until_the_large_one_that_makes_them_needless_is_ready(make_history, make_seen):
    """Three a100 of 1000 tokens/s fill their quota; an h100 does for 4000."""
    small, large = CHEAP, DEAR
    limits = two_gpu_types(4000.0)
    states = {small: PlacementState(ready=3, utilisation=0.95), large: PlacementState()}
    demand = make_history(limits, until_s=60.0, bins=1, level=2_700.0)
    plan = hpa(target=0.7).decide(make_seen(limits, states, at_s=60.0, demand=demand))
    assert (plan.counts[small], plan.counts[large]) == (3, 1)


@pytest.mark.parametrize("rules", [{"policies": [{"kind": "percent", "value": 100}]}, {"select": "min"}])
def test_a_pool_without_a_server_gets_one_whatever_share_of_none_the_rates_allow(
    rules, make_history, make_limits, make_seen
):
    limits = make_limits(models=("llama",), regions=("west",), min_servers=0)
    demand = make_history(limits, until_s=60.0, bins=1, level=2_700.0)
    plan = hpa(scale_up=rules).decide(make_seen(limits, 0, at_s=60.0, demand=demand))
    assert plan.counts[WEST] == 1

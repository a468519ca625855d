"""Siloed: two kinds of servers, each scaled by its own load."""

import dataclasses

import pytest

from controller.catalogue import make_policy
from controller.types import Placement, PlacementState, Role

IW = Placement("llama", "west", "h100", Role.INTERACTIVE)
NIW = Placement("llama", "west", "h100", Role.BATCH)


def observed(make_limits, make_seen, *, iw, niw, queued=0, min_servers=1, regions=("west",), at_s=0.0):
    limits = dataclasses.replace(
        make_limits(models=("llama",), regions=regions, min_servers=min_servers), roles=(Role.INTERACTIVE, Role.BATCH)
    )
    states = {p: iw if p.role is Role.INTERACTIVE else niw for p in limits.placements()}
    return dataclasses.replace(make_seen(limits, states, at_s=at_s), niw_queued_tokens={"llama": queued})


def busy(ready, utilisation, outstanding_tokens=1000):
    return PlacementState(ready=ready, utilisation=utilisation, outstanding_tokens=outstanding_tokens)


def test_it_divides_the_servers_of_a_pool_into_interactive_and_batch_ones():
    assert make_policy("siloed", {}).roles == (Role.INTERACTIVE, Role.BATCH)


@pytest.mark.parametrize(
    ("preset", "iw", "niw", "change_iw", "change_niw"),
    [
        ("paper", 0.71, 0.5, 1, 0),
        ("paper", 0.5, 0.71, 0, 1),
        ("paper", 0.29, 0.71, -1, 1),
        ("code", 0.51, 0.24, 1, -1),
        ("paper", 0.51, 0.31, 0, 0),
    ],
)
def test_each_silo_steps_by_its_own_utilisation(preset, iw, niw, change_iw, change_niw, make_limits, make_seen):
    siloed = make_policy("siloed", {"preset": preset})
    plan = siloed.decide(observed(make_limits, make_seen, iw=busy(4, iw), niw=busy(3, niw)))
    assert (plan.counts[IW], plan.counts[NIW]) == (4 + change_iw, 3 + change_niw)


def test_what_waits_in_the_niw_queue_is_load_of_the_batch_servers_alone(make_limits, make_seen):
    """The queue lets requests go up to a utilisation of 0.6, so that batch servers never pass 0.7 by themselves."""
    siloed = make_policy("siloed", {})
    seen = observed(make_limits, make_seen, iw=busy(4, 0.55), niw=busy(2, 0.55, 1100), queued=400)
    plan = siloed.decide(seen)  # 1100 of 2000 tokens in flight, 400 wait
    assert (plan.counts[IW], plan.counts[NIW]) == (4, 3)
    assert plan.steps[0].reason == "utilisation 0.75 > 0.70, 400 NIW tokens in the queue counted in"
    few = dataclasses.replace(seen, niw_queued_tokens={"llama": 100})
    assert siloed.decide(few).steps == ()
    shared_by_two = observed(
        make_limits, make_seen, iw=busy(4, 0.55), niw=busy(2, 0.55, 1100), queued=400, regions=("west", "east")
    )
    assert siloed.decide(shared_by_two).steps == ()


def test_a_queue_keeps_batch_servers_that_its_requests_have_left(make_limits, make_seen):
    siloed = make_policy("siloed", {})
    seen = observed(make_limits, make_seen, iw=busy(4, 0.5), niw=busy(3, 0.1, 300), queued=1500)
    assert siloed.decide(seen).counts[NIW] == 3
    assert siloed.decide(dataclasses.replace(seen, niw_queued_tokens={"llama": 0})).counts[NIW] == 2


def test_a_queue_without_a_batch_server_gets_one_and_an_empty_queue_none(make_limits, make_seen):
    siloed = make_policy("siloed", {})
    seen = observed(make_limits, make_seen, iw=busy(2, 0.5), niw=PlacementState(), queued=50, min_servers=0)
    plan = siloed.decide(seen)
    assert (plan.counts[IW], plan.counts[NIW]) == (2, 1)
    assert plan.steps[0].reason.startswith("requests and no server")
    assert siloed.decide(dataclasses.replace(seen, niw_queued_tokens={"llama": 0})).steps == ()


def test_each_silo_has_the_minimum_and_its_own_cooldown(make_limits, make_seen):
    siloed = make_policy("siloed", {"cooldown_out_s": 60.0})
    short = observed(make_limits, make_seen, iw=busy(2, 0.9), niw=PlacementState(), min_servers=2)
    plan = siloed.decide(short)
    assert (plan.counts[IW], plan.counts[NIW]) == (3, 2)
    first = siloed.decide(observed(make_limits, make_seen, iw=busy(2, 0.9), niw=busy(2, 0.5)))
    later = observed(make_limits, make_seen, iw=busy(3, 0.9), niw=busy(2, 0.9), at_s=30.0)
    plan = siloed.decide(dataclasses.replace(later, previous=first))
    assert (plan.counts[IW], plan.counts[NIW]) == (3, 3)

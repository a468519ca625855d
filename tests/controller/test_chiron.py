"""Chiron: backpressure of interactive and mixed servers, and of the batch queue."""

import dataclasses

import numpy as np
import pytest

from controller.catalogue import make_policy
from controller.types import Placement, PlacementState, Role

ROLES = (Role.INTERACTIVE, Role.MIXED, Role.BATCH)
IW, MIXED, BATCH = (Placement("llama", "west", "h100", role) for role in ROLES)
HOUR = 3600.0


def observed(make_limits, make_seen, *, iw, mixed, batch, queued=0, regions=("west",), at_s=0.0, due=(), **limits):
    """States of the three roles, the same in each region."""
    fleet = dataclasses.replace(make_limits(models=("llama",), regions=regions, quota=60.0, **limits), roles=ROLES)
    by_role = dict(zip(ROLES, (iw, mixed, batch), strict=True))
    seen = make_seen(fleet, {p: by_role[p.role] for p in fleet.placements()}, at_s=at_s)
    return dataclasses.replace(seen, niw_queued_tokens={"llama": queued}, niw_due={"llama": due} if due else {})


def at_load(ready, utilisation, outstanding_tokens=1):
    return PlacementState(ready=ready, utilisation=utilisation, outstanding_tokens=outstanding_tokens)


def changes(plan):
    return {step.placement.role: step.change for step in plan.steps}


@pytest.mark.parametrize(
    ("iw", "mixed", "expected"),
    [
        (at_load(20, 0.66), at_load(10, 0.0), {Role.INTERACTIVE: 1}),  # as 18.9 of 30 servers full
        (at_load(20, 0.62), at_load(10, 0.0), {}),
        (at_load(20, 0.62), at_load(10, 0.6), {}),  # batch work on mixed servers is no pressure
        (at_load(20, 0.75), at_load(10, 0.0), {Role.INTERACTIVE: 1}),
        (at_load(12, 0.75), at_load(18, 0.4), {Role.INTERACTIVE: 1}),  # interactive requests have spilled
        (at_load(20, 0.30), at_load(10, 0.0), {Role.INTERACTIVE: -1}),
        (at_load(18, 0.30), at_load(12, 0.0), {Role.MIXED: -1}),
        (at_load(21, 0.66), at_load(9, 0.0), {Role.MIXED: 1}),
    ],
)
def test_interactive_and_mixed_servers_follow_the_share_that_is_busy(iw, mixed, expected, make_limits, make_seen):
    plan = make_policy("chiron", {}).decide(observed(make_limits, make_seen, iw=iw, mixed=mixed, batch=at_load(1, 0.5)))
    assert changes(plan) == expected


def test_a_server_goes_only_where_the_share_stays_low_without_it(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    batch = at_load(1, 0.5)
    seven_busy = observed(make_limits, make_seen, iw=at_load(8, 0.6125), mixed=at_load(4, 0.0), batch=batch)
    assert chiron.decide(seven_busy).steps == ()  # 7 of 12, which would be 7 of 11
    fewer = observed(make_limits, make_seen, iw=at_load(8, 0.56), mixed=at_load(4, 0.0), batch=batch)
    assert changes(chiron.decide(fewer)) == {Role.INTERACTIVE: -1}
    mixed_full_of_batch = observed(make_limits, make_seen, iw=at_load(8, 0.56), mixed=at_load(4, 0.6), batch=batch)
    assert chiron.decide(mixed_full_of_batch).steps == ()


def test_servers_that_start_are_pressure_relieved_and_are_not_taken_away_again(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    batch = at_load(1, 0.5)
    coming = PlacementState(ready=2, starting=4, utilisation=1.4, outstanding_tokens=1)
    assert chiron.decide(observed(make_limits, make_seen, iw=coming, mixed=at_load(1, 0.0), batch=batch)).steps == ()


def test_batch_servers_come_while_the_queue_takes_longer_than_its_deadline(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    iw, mixed = at_load(4, 0.56), at_load(2, 0.0)
    for queued, expected in ((24 * 3600 * 2000 + 1, {Role.BATCH: 1}), (24 * 3600 * 2000, {})):
        seen = observed(make_limits, make_seen, iw=iw, mixed=mixed, batch=at_load(2, 0.6), queued=queued, theta=1000.0)
        assert changes(chiron.decide(seen)) == expected
    hurried = make_policy("chiron", {"batch_deadline_s": HOUR})
    seen = observed(make_limits, make_seen, iw=iw, mixed=mixed, batch=at_load(1, 0.6), queued=7_200_000, theta=1000.0)
    plan = hurried.decide(seen)
    assert plan.steps[0].reason == "7200000 NIW tokens queued need 2.0 h, have 1.0 h"


def test_what_is_due_sooner_makes_batch_servers_come_sooner(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    states = {"iw": at_load(4, 0.56), "mixed": at_load(2, 0.0), "batch": at_load(1, 0.6)}
    in_time = ((2 * HOUR, 3_600_000.0), (5 * HOUR, 3_600_000.0))
    late = ((2 * HOUR, 3_600_000.0), (3 * HOUR, 9_000_000.0))
    for due, expected in ((in_time, {}), (late, {Role.BATCH: 1})):
        tokens = int(sum(each for _, each in due))
        seen = observed(make_limits, make_seen, **states, queued=tokens, due=due, theta=1000.0)
        assert changes(chiron.decide(seen)) == expected


def test_one_batch_server_comes_at_a_time_where_they_are_fewest(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    seen = observed(
        make_limits,
        make_seen,
        iw=at_load(4, 0.56),
        mixed=at_load(2, 0.0),
        batch=PlacementState(),
        queued=10,
        regions=("west", "east"),
        min_servers=0,
    )
    plan = chiron.decide(seen)
    assert [str(step.placement) for step in plan.steps] == ["llama@west/h100#batch"]
    moved = {p: dataclasses.replace(s, starting=plan.counts[p] - s.ready) for p, s in seen.placements.items()}
    late = ((0.0, 10.0),)
    again = dataclasses.replace(seen, at_s=60.0, placements=moved, previous=plan, niw_due={"llama": late})
    assert [str(step.placement) for step in chiron.decide(again).steps] == ["llama@east/h100#batch"]


def test_idle_batch_servers_go_down_to_the_minimum_once_nothing_is_queued(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    iw, mixed = at_load(4, 0.56), at_load(2, 0.0)
    idle, least = PlacementState(ready=3), PlacementState(ready=1)
    assert changes(chiron.decide(observed(make_limits, make_seen, iw=iw, mixed=mixed, batch=idle))) == {Role.BATCH: -1}
    for batch, queued in ((idle, 5), (at_load(3, 0.1), 0), (least, 0)):
        seen = observed(make_limits, make_seen, iw=iw, mixed=mixed, batch=batch, queued=queued)
        assert chiron.decide(seen).steps == ()


def test_cooldowns_are_of_the_interactive_servers_and_of_the_batch_ones_apart(make_limits, make_seen):
    chiron = make_policy("chiron", {"cooldown_out_s": 60.0})
    first = chiron.decide(
        observed(make_limits, make_seen, iw=at_load(4, 0.9), mixed=at_load(2, 0.5), batch=at_load(1, 0.5))
    )
    assert changes(first) == {Role.INTERACTIVE: 1}
    later = observed(
        make_limits,
        make_seen,
        iw=at_load(5, 0.9),
        mixed=at_load(2, 0.9),
        batch=at_load(1, 0.5),
        queued=10**12,
        at_s=30.0,
    )
    assert changes(chiron.decide(dataclasses.replace(later, previous=first))) == {Role.BATCH: 1}
    again = chiron.decide(dataclasses.replace(later, previous=first, at_s=60.0))
    assert changes(again) == {Role.BATCH: 1, Role.MIXED: 1}


def test_a_pool_in_demand_keeps_a_server_and_gets_one_where_there_is_none(make_limits, make_seen):
    chiron = make_policy("chiron", {})
    none = PlacementState()
    asked = {"iw": none, "mixed": none, "batch": none, "min_servers": 0}
    seen = observed(make_limits, make_seen, **asked)
    assert chiron.decide(seen).steps == ()
    demand = dataclasses.replace(
        seen.demand, until_s=60.0, interactive={key: np.ones(1) for key in seen.demand.interactive}
    )
    wanted = dataclasses.replace(seen, at_s=60.0, demand=demand)
    assert changes(chiron.decide(wanted)) == {Role.INTERACTIVE: 1}
    assert chiron.decide(wanted).steps[0].reason == "requests and no server"
    one = {p: PlacementState(ready=1 if p == IW else 0) for p in seen.placements}
    assert chiron.decide(dataclasses.replace(wanted, placements=one)).steps == ()
    assert changes(chiron.decide(dataclasses.replace(seen, placements=one))) == {Role.INTERACTIVE: -1}

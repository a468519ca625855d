"""A queue that a burst leaves behind: who comes after it waits too, until servers are there to be rid of it."""

from dataclasses import replace

import numpy as np
import pytest

from controller.catalogue import make_policy
from controller.mpc.queue import clearing_tokens_per_s, late_tokens
from controller.types import Capacity, FleetLimits, Memory, Observation, Placement, PlacementState, Pool, ScalingPlan

PLACE = Placement("llama", "west", "h100")
POOL = Pool("llama", "west")
THETA, STAY_S, PATIENCE_S, LEAD_S = 1000.0, 30.0, 10.0, 300.0


def seen_with(
    make_history, outstanding: int, *, ready: int = 4, noise: float = 0.0, minutes: int = 1500, missed: float = 0.0
) -> Observation:
    """A day of demand that three servers take, with so many tokens not yet served; `missed` of ten requests did in the
    last minute."""
    capacity = Capacity(theta_tokens_per_s=THETA, gpus=1.0, start_s=LEAD_S, stay_s=STAY_S, patience_s=PATIENCE_S)
    limits = FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity={("llama", "h100"): capacity},
        quota_gpus={("west", "h100"): 99.0},
        min_servers=1,
    )
    tokens_per_s = 2500.0 * np.exp(noise * np.random.default_rng(1).standard_normal(minutes))
    counts = {"ended": {POOL: np.full(minutes, 10.0)}, "missed": {POOL: np.append(np.zeros(minutes - 1), missed)}}
    demand = replace(make_history(limits, until_s=60.0 * minutes, series={POOL: tokens_per_s}), **counts)
    return Observation(
        at_s=demand.until_s,
        limits=limits,
        placements={PLACE: PlacementState(ready=ready, outstanding_tokens=outstanding)},
        demand=demand,
        niw_queued_tokens={},
    )


@pytest.mark.parametrize(("outstanding", "late"), [(0, 0.0), (160_000, 0.0), (460_000, 300_000.0)])
def test_what_servers_neither_work_on_nor_come_to_in_time_is_late(outstanding, late, make_history):
    """Four servers of 1,000 tokens/s: a request may stay for 30 s, and queue for 10."""
    assert late_tokens(seen_with(make_history, outstanding), "llama", {PLACE: THETA}) == late


def test_without_a_ready_server_all_that_was_sent_is_late(make_history):
    assert late_tokens(seen_with(make_history, 5000, ready=0), "llama", {PLACE: THETA}) == 5000


def test_a_queue_is_to_be_gone_within_a_lead_and_where_nobody_is_late_nothing_is_asked():
    assert clearing_tokens_per_s(2500.0, 300_000.0, LEAD_S) == 2500.0 + 1000.0
    assert clearing_tokens_per_s(2500.0, 0.0, LEAD_S) == clearing_tokens_per_s(2500.0, 9.0, 0.0) == 0.0


def test_mpc_starts_servers_for_a_queue_and_says_so(make_history):
    policy = make_policy("mpc", {"budget": 0.2})
    calm, queued = (policy.decide(seen_with(make_history, tokens)) for tokens in (100_000, 1_660_000))
    assert (calm.counts[PLACE], queued.counts[PLACE]) == (3, 8), "2,500 tokens/s, and 5,000 for the queue"
    assert "to be rid of a queue" in queued.steps[0].reason


def but_for_when_it_was_seen(plan: ScalingPlan) -> ScalingPlan:
    """The plan without the memory that there was a queue."""
    numbers = {name: value for name, value in plan.memory.numbers.items() if name != "queued_at llama"}
    return replace(plan, memory=replace(plan.memory, numbers=numbers))


def test_a_queue_that_the_plan_for_the_peak_takes_anyway_changes_nothing(make_history):
    policy = make_policy("mpc", {"budget": 0.01})
    calm, queued = (policy.decide(seen_with(make_history, tokens, noise=0.2)) for tokens in (0, 165_000))
    assert but_for_when_it_was_seen(queued) == calm


def test_what_a_queue_asked_for_is_not_held(make_history):
    policy = make_policy("mpc", {"budget": 0.2})
    calm, queued = (policy.decide(seen_with(make_history, tokens)) for tokens in (100_000, 1_660_000))
    assert but_for_when_it_was_seen(queued).memory == calm.memory


def test_a_minute_that_misses_speaks_against_servers_unless_it_began_with_a_queue(make_history):
    """The same minute, at 0.83 of theta with all of its requests missed, after a calm one and after a queue."""
    policy = make_policy("mpc", {"budget": 0.2})
    thetas = []
    for outstanding in (100_000, 1_660_000):
        before = seen_with(make_history, outstanding, ready=3)
        after = seen_with(make_history, 100_000, ready=3, minutes=1501, missed=10.0)
        plan = policy.decide(replace(after, previous=policy.decide(before)))
        thetas.append(plan.memory.numbers["theta llama"])
    assert thetas[0] < thetas[1] == 1.0


def test_niw_runs_on_servers_that_a_need_of_before_holds_and_on_new_ones_only_beyond_them(make_history):
    """Ten servers are held, demand takes three; the backlog asks for nothing, for two and for ten."""
    policy = make_policy("mpc", {"budget": 0.2})
    counts = []
    for backlog in (0, 7_200_000, 36_000_000):
        seen = seen_with(make_history, 0, ready=10)
        due_s = seen.at_s + 3600.0
        numbers = {f"needed llama @{seen.at_s - 60.0:.3f}": 10_000.0, "headroom llama": 0.1}
        before = ScalingPlan(counts={PLACE: 10}, next_decision_s=seen.at_s, memory=Memory(numbers=numbers))
        backlogs = {"niw_queued_tokens": {"llama": backlog}, "niw_due": {"llama": ((due_s, float(backlog)),)}}
        counts.append(policy.decide(replace(seen, previous=before, **backlogs)).counts[PLACE])
    assert counts[0] == counts[1] == 10
    assert counts[2] > 10

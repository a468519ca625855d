"""The fluid fleet: what is counted, when servers get ready, who sees what."""

import dataclasses

import numpy as np
import pytest

from controller.catalogue import make_policy, policy_names
from controller.fluid.load import FluidLoad
from controller.fluid.study import run_fluid
from controller.types import Capacity, FleetLimits, Placement, Pool, Role, ScalingPlan

WEST, EAST = Pool("llama", "west"), Pool("llama", "east")
PLACE = Placement("llama", "west", "h100")


class Scripted:
    """Wants the counts of a table: (from when on, count, asleep)."""

    name = "scripted"
    roles = (Role.SHARED,)

    def __init__(self, *rows: tuple[float, int, int]) -> None:
        self.rows, self.seen = rows, []

    def decide(self, seen):
        self.seen.append(seen)
        _, count, asleep = [row for row in self.rows if row[0] <= seen.at_s][-1]
        return ScalingPlan(counts={PLACE: count}, sleeping={PLACE: asleep}, next_decision_s=seen.at_s + 60.0)


def limits(*, quota=10.0, gpus=1.0, start_s=300.0, wake_s=None, regions=("west",), models=("llama",)) -> FleetLimits:
    capacity = Capacity(theta_tokens_per_s=1000.0, gpus=gpus, start_s=start_s, sleep_s=0.0, wake_s=wake_s)
    return FleetLimits(
        models=models,
        regions=regions,
        capacity={(m, "h100"): capacity for m in models},
        quota_gpus={(r, "h100"): quota for r in regions},
        min_servers=0,
    )


def load(*levels: float, bin_s: float = 60.0, **given) -> FluidLoad:
    return FluidLoad(bin_s=bin_s, interactive={WEST: np.array(levels, dtype=float)}, **given)


def test_a_start_is_paid_for_from_its_command_and_serves_after_its_lead():
    found = run_fluid(Scripted((0.0, 3, 0)), load(*[2500.0] * 20), limits(), {PLACE: 2})
    capacity = found.capacity_tokens_per_s[WEST]
    assert list(capacity) == [2000.0] * 5 + [3000.0] * 15
    assert found.violated_share == pytest.approx(5 / 20)
    assert found.unserved_share == pytest.approx(5 * 500 / (20 * 2500))
    assert found.missed_share == pytest.approx(5 / 20)
    assert found.gpu_h == pytest.approx(3 * 20 / 60)
    assert found.starting_gpu_h == pytest.approx(5 / 60) and found.starts == 1


def test_a_start_within_a_bin_counts_for_the_rest_of_it():
    found = run_fluid(Scripted((0.0, 2, 0)), load(*[100.0] * 4), limits(start_s=90.0), {PLACE: 1})
    assert list(found.capacity_tokens_per_s[WEST]) == pytest.approx([1000.0, 1500.0, 2000.0, 2000.0])


def test_a_draining_server_holds_its_gpus_and_serves_no_more():
    found = run_fluid(Scripted((0.0, 1, 0)), load(*[0.0] * 10), limits(), {PLACE: 3}, drain_s=120.0)
    assert list(found.capacity_tokens_per_s[WEST]) == [1000.0] * 10
    assert found.draining_gpu_h == pytest.approx(2 * 120 / 3600)
    assert found.gpu_h == pytest.approx(10 / 60 + 4 / 60)
    assert found.stops == 2


def test_a_start_waits_until_a_draining_server_gives_its_gpu_back():
    both = limits(quota=2.0, start_s=60.0, models=("llama", "bloom"))
    bloom = Placement("bloom", "west", "h100")

    class Exchange(Scripted):
        def decide(self, seen):
            self.seen.append(seen)
            return ScalingPlan(counts={PLACE: 0, bloom: 2}, next_decision_s=seen.at_s + 3600.0)

    script = Exchange((0.0, 0, 0))
    found = run_fluid(script, load(*[0.0] * 6), both, {PLACE: 2}, drain_s=120.0)
    assert list(found.capacity_tokens_per_s[Pool("bloom", "west")]) == [0.0, 0.0, 0.0, 2000.0, 2000.0, 2000.0]
    assert found.gpu_h == pytest.approx(2 * 6 / 60)


def test_a_sleeping_server_holds_no_gpu_and_wakes_before_another_starts():
    script = Scripted((0.0, 1, 2), (300.0, 4, 0))
    found = run_fluid(script, load(*[0.0] * 20), limits(wake_s=60.0), {PLACE: 3})
    assert found.sleeping_server_h == pytest.approx(2 * 5 / 60)
    assert (found.wakes, found.starts, found.stops) == (2, 1, 2)
    assert list(found.capacity_tokens_per_s[WEST][:12]) == [1000.0] * 6 + [3000.0] * 4 + [4000.0] * 2
    assert found.gpu_h == pytest.approx((5 + 4 * 15) / 60)


def test_a_policy_sees_past_bins_alone_and_what_was_violated_in_them():
    script = Scripted((0.0, 2, 0))
    run_fluid(script, load(500.0, 2500.0, 500.0, interactive_before={WEST: np.array([7.0])}), limits(), {PLACE: 2})
    assert [len(seen.demand.interactive[WEST]) for seen in script.seen] == [1, 2, 3]
    last = script.seen[-1]
    assert list(last.demand.interactive[WEST]) == [7.0, 500.0, 2500.0]
    assert list(last.demand.missed[WEST]) == [0.0, 0.0, 2500.0]
    assert [seen.placements[PLACE].utilisation for seen in script.seen] == pytest.approx([0.0035, 0.25, 1.25])


def test_what_a_region_cannot_serve_goes_to_the_other():
    two = limits(regions=("west", "east"))
    east = Placement("llama", "east", "h100")
    demand = FluidLoad(bin_s=60.0, interactive={WEST: np.full(3, 1600.0)})

    class Still(Scripted):
        def decide(self, seen):
            self.seen.append(seen)
            return ScalingPlan(counts={PLACE: 1, east: 1}, next_decision_s=seen.at_s + 60.0)

    script = Still((0.0, 1, 0))
    found = run_fluid(script, demand, two, {PLACE: 1, east: 1})
    assert found.violated_share == 0.0
    used = script.seen[-1].placements
    assert used[PLACE].utilisation > used[east].utilisation > 0.5


def test_niw_takes_what_interactive_demand_leaves_and_is_late_when_that_is_too_little():
    niw = {WEST: np.array([3000.0, 0.0, 0.0, 0.0])}
    enough = load(*[500.0] * 4, niw=niw, niw_deadline_s=3600.0)
    found = run_fluid(Scripted((0.0, 1, 0)), enough, limits(), {PLACE: 1})
    assert found.niw_served_tokens == pytest.approx(4 * 60 * 500.0) and found.niw_late_tokens == 0.0
    late = dataclasses.replace(enough, niw_deadline_s=60.0)
    assert run_fluid(Scripted((0.0, 1, 0)), late, limits(), {PLACE: 1}).niw_late_tokens > 0


def test_servers_are_dealt_to_the_roles_of_a_policy():
    policy = make_policy("siloed", {})
    before = {WEST: np.full(5, 2000.0)}
    demand = load(*[2000.0] * 30, niw={WEST: np.full(30, 100.0)}, interactive_before=before)
    found = run_fluid(policy, demand, limits(), {PLACE: 5})
    assert found.capacity_tokens_per_s[WEST][0] == 4000.0
    assert found.niw_served_tokens > 0


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_runs_and_its_hours_add_up(name):
    rng = np.random.default_rng(3)
    demand = FluidLoad(
        bin_s=60.0,
        interactive={WEST: rng.gamma(3.0, 800.0, 90), EAST: rng.gamma(3.0, 500.0, 90)},
        niw={WEST: np.full(90, 200.0)},
        interactive_before={WEST: rng.gamma(3.0, 800.0, 300), EAST: rng.gamma(3.0, 500.0, 300)},
    )
    two = limits(regions=("west", "east"), quota=8.0, start_s=120.0)
    first = run_fluid(make_policy(name, {}), demand, two, dict.fromkeys(two.placements(), 3))
    again = run_fluid(make_policy(name, {}), demand, two, dict.fromkeys(two.placements(), 3))
    assert first.gpu_h == again.gpu_h and first.decisions == again.decisions
    assert 0 < first.gpu_h <= 16 * 1.5 and first.wasted_gpu_h <= first.gpu_h
    assert 0 <= first.violated_share <= 1 and first.unserved_share <= first.missed_share + 1e-12


def test_series_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same number"):
        FluidLoad(bin_s=60.0, interactive={WEST: np.zeros(3), EAST: np.zeros(4)})


def test_a_batch_silo_grows_with_its_queue_and_shrinks_when_it_is_worked_off():
    """Eight servers in two silos; for an hour comes three times the NIW that the batch silo takes."""
    fleet = dataclasses.replace(limits(quota=40.0, start_s=60.0), roles=(Role.INTERACTIVE, Role.BATCH))
    policy = make_policy("siloed", {})
    batch = Placement("llama", "west", "h100", Role.BATCH)
    counts = []

    class Watched:
        name, roles = policy.name, policy.roles

        def decide(self, seen):
            plan = policy.decide(seen)
            counts.append((seen.at_s, plan.counts[batch]))
            return plan

    niw = np.where(np.arange(360) < 60, 12_000.0, 0.0)
    asked = load(*[500.0] * 360, niw={WEST: niw}, niw_deadline_s=86_400.0)
    initial = dict.fromkeys(fleet.placements(), 4)
    found = run_fluid(Watched(), asked, fleet, initial)
    assert max(servers for _, servers in counts) >= 12
    assert counts[-1][1] < 12
    assert found.niw_late_tokens == 0

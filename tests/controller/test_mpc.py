"""What mpc decides: capacity before it is needed, no more than the budget asks for, and why."""

import dataclasses

import numpy as np
import pytest

from controller.catalogue import make_policy
from controller.fluid.load import FluidLoad
from controller.fluid.study import run_fluid
from controller.mpc.needs import Needs
from controller.mpc.spread import spread
from controller.policies.mpc_parameters import MpcParameters
from controller.policies.oracle import TrueFuture, oracle
from controller.types import Capacity, FleetLimits, Placement, PlacementState, Pool

POOL = Pool("llama", "west")
PLACE = Placement("llama", "west", "h100")


def fleet(
    *,
    models=("llama",),
    regions=("west",),
    gpu_types=("h100",),
    quota=30.0,
    start_s=300.0,
    wake_s=None,
    min_servers=1,
    theta=1000.0,
) -> FleetLimits:
    return FleetLimits(
        models=models,
        regions=regions,
        capacity={
            (m, g): Capacity(
                theta_tokens_per_s=theta,
                gpus=1.0,
                start_s=start_s,
                usd_per_gpu_h={"h100": 4.0, "a100": 3.0}[g],
                sleep_s=0.0 if wake_s is not None else None,
                wake_s=wake_s,
            )
            for m in models
            for g in gpu_types
        },
        quota_gpus={(r, g): quota for r in regions for g in gpu_types},
        min_servers=min_servers,
    )


def wavy(minutes: int, *, level: float = 5000.0, swing: float = 0.5, noise: float = 0.05, seed: int = 1) -> np.ndarray:
    """A day that goes up and down, with noise."""
    t = np.arange(minutes)
    chance = np.random.default_rng(seed)
    return level * (1 + swing * np.sin(2 * np.pi * t / 1440)) * np.exp(noise * chance.standard_normal(minutes))


def decided(make_history, limits, series, *, states=6, at_s=None, previous=None, policy=None, **history):
    from controller.types import Observation

    series = {key: np.asarray(values, dtype=float) for key, values in series.items()}
    until_s = 60.0 * len(next(iter(series.values()))) if at_s is None else at_s
    demand = make_history(limits, until_s=until_s, series=series)
    demand = dataclasses.replace(demand, **history)
    given = states if isinstance(states, dict) else {p: PlacementState(ready=states) for p in limits.placements()}
    seen = Observation(
        at_s=until_s,
        limits=limits,
        placements=given,
        demand=demand,
        niw_queued_tokens=dict.fromkeys(limits.models, 0),
        previous=previous,
    )
    return seen, (policy or make_policy("mpc", {})).decide(seen)


def test_a_future_that_is_poisoned_changes_nothing(make_history):
    limits = fleet()
    past = wavy(2000)
    whole = np.concatenate([past, np.full(500, 1e9)])
    _, plan = decided(make_history, limits, {POOL: past})
    poisoned = whole[: len(past)]
    _, again = decided(make_history, limits, {POOL: poisoned})
    assert plan == again
    assert plan.memory.numbers == again.memory.numbers


def test_servers_are_started_their_lead_before_they_are_needed_on_a_ramp_that_comes_every_day():
    """Demand grows from 2 to 8 servers within an hour: with starts of 5 minutes it must be led by half a server."""
    day = np.full(1440, 2000.0)
    day[600:660] = np.linspace(2000.0, 8000.0, 60)
    day[660:900] = 8000.0
    chance = np.random.default_rng(2)
    days = np.concatenate([day * np.exp(0.02 * chance.standard_normal(1440)) for _ in range(5)])
    load = FluidLoad(bin_s=60.0, interactive={POOL: days[-1440:]}, interactive_before={POOL: days[:-1440]})
    found = run_fluid(make_policy("mpc", {}), load, fleet(), {PLACE: 3})
    capacity = found.capacity_tokens_per_s[POOL]
    assert np.mean(capacity[600:900] < days[-1440:][600:900]) < 0.05
    assert capacity[:560].mean() < 3500.0 and capacity[960:].mean() < 3500.0


def test_demand_counts_by_what_prompts_and_answers_take_of_a_server(make_history):
    """theta is of a mix with two prompt tokens for each output token, which takes four times as much of a server."""
    whole = fleet()
    parts = dataclasses.replace(whole.capacity["llama", "h100"], prefill_tokens_per_s=2000.0, decode_tokens_per_s=500.0)
    limits = dataclasses.replace(whole, capacity={("llama", "h100"): parts})
    past = wavy(2000)

    def planned(output_share):
        output = {} if output_share is None else {POOL: output_share * past}
        _, plan = decided(make_history, limits, {POOL: past}, interactive_output=output)
        return plan.memory.forecasts[POOL].upper_tokens_per_s[0]

    assert planned(1 / 3) == pytest.approx(planned(None))
    assert planned(0.1) == pytest.approx(0.65 * planned(None), rel=0.05)
    assert planned(0.6) == pytest.approx(1.4 * planned(None), rel=0.05)


def test_headroom_grows_with_misses_and_shrinks_without(make_history):
    limits = fleet()
    past = wavy(2000, level=5900.0, swing=0.0)
    _, plan = decided(make_history, limits, {POOL: past})
    ended = {POOL: np.full(2001, 100.0)}
    missed, fine = np.zeros(2001), np.zeros(2001)
    missed[-1] = 80.0

    def after(misses):
        _, later = decided(
            make_history, limits, {POOL: np.append(past, 5900.0)}, previous=plan, ended=ended, missed={POOL: misses}
        )
        return later.memory.numbers["headroom llama"]

    before = plan.memory.numbers["headroom llama"]
    assert after(missed) > before > after(fine)
    assert after(missed) - before > 20 * (before - after(fine))


def test_misses_at_a_low_load_are_no_reason_for_more_servers(make_history):
    limits = fleet()
    past = wavy(2000, level=3000.0, swing=0.0)
    _, plan = decided(make_history, limits, {POOL: past}, states=12)
    ended, missed = {POOL: np.full(2001, 100.0)}, {POOL: np.full(2001, 90.0)}
    _, later = decided(
        make_history, limits, {POOL: np.append(past, 3000.0)}, states=12, previous=plan, ended=ended, missed=missed
    )
    assert later.memory.numbers["headroom llama"] < plan.memory.numbers["headroom llama"]
    assert later.memory.numbers["theta llama"] == 1.0


def test_misses_that_no_server_could_mend_are_left_out_once_they_are_known(make_history):
    """Five per cent miss at any load: seen at a low load for long enough, they move the headroom no more."""
    limits = fleet()
    series = wavy(2000, level=3000.0, swing=0.0)
    _, plan = decided(make_history, limits, {POOL: series}, states=12)

    def minutes(count, states, level, plan, series):
        for _ in range(count):
            series = np.append(series, level)
            ended, missed = {POOL: np.full(len(series), 100.0)}, {POOL: np.full(len(series), 5.0)}
            _, plan = decided(
                make_history, limits, {POOL: series}, states=states, previous=plan, ended=ended, missed=missed
            )
        return plan, series

    fresh, _ = minutes(5, 3, 3000.0, plan, series)
    taught, longer = minutes(150, 12, 3000.0, plan, series)
    later, _ = minutes(5, 3, 3000.0, taught, longer)

    def grown(before, after):
        return after.memory.numbers["headroom llama"] - before.memory.numbers["headroom llama"]

    assert grown(plan, fresh) > 0.005 > 0.0 >= grown(taught, later)


def test_theta_follows_live_service_within_its_bounds(make_history):
    limits = fleet()
    past = wavy(2000, level=7500.0, swing=0.0, noise=0.0)
    for load, missed_share, low, high in ((7500.0, 0.0, 1.05, 1.25), (5000.0, 0.6, 0.83, 0.95)):
        _, plan = decided(make_history, limits, {POOL: past})
        series = past
        for _ in range(30):
            series = np.append(series, load)
            ended = {POOL: np.full(len(series), 100.0)}
            missed = {POOL: np.full(len(series), 100.0 * missed_share)}
            _, plan = decided(make_history, limits, {POOL: series}, previous=plan, ended=ended, missed=missed)
        assert low < plan.memory.numbers["theta llama"] < high


def test_a_server_is_not_stopped_within_the_time_that_a_start_takes(make_history):
    limits = fleet()
    calm = np.concatenate([np.full(1500, 3000.0), np.full(20, 9000.0)])
    _, plan = decided(make_history, limits, {POOL: calm}, states=9)
    held = plan.counts[PLACE]
    assert held >= 9
    states = {PLACE: PlacementState(ready=held)}
    for minute in range(4):
        calm = np.append(calm, 3000.0)
        _, plan = decided(make_history, limits, {POOL: calm}, states=states, previous=plan)
        assert plan.counts[PLACE] >= held, minute
    for _ in range(60):
        calm = np.append(calm, 3000.0)
        _, plan = decided(make_history, limits, {POOL: calm}, states=states, previous=plan)
        states = {PLACE: PlacementState(ready=plan.counts[PLACE])}
    assert plan.counts[PLACE] < held


@pytest.mark.slow
def test_sleeping_servers_wake_before_others_start_and_surplus_sleeps():
    chance = np.random.default_rng(4)
    days = 3000.0 * np.exp(0.05 * chance.standard_normal(4320))
    for at in range(200, 4320, 240):
        days[at : at + 20] *= 3.0
    load = FluidLoad(bin_s=60.0, interactive={POOL: days[-1440:]}, interactive_before={POOL: days[:-1440]})
    awake = run_fluid(make_policy("mpc", {"budget": 0.03}), load, fleet(), {PLACE: 6})
    asleep = run_fluid(make_policy("mpc", {"budget": 0.03}), load, fleet(wake_s=60.0), {PLACE: 6})
    assert asleep.wakes > asleep.starts > 0 and asleep.sleeping_server_h > 0
    assert asleep.gpu_h < 0.95 * awake.gpu_h
    none = run_fluid(make_policy("mpc", {"most_asleep": 0}), load, fleet(wake_s=60.0), {PLACE: 6})
    assert none.wakes == 0 and none.sleeping_server_h == 0.0


def test_a_slot_goes_from_one_model_to_another_when_the_quota_binds(make_history):
    limits = fleet(models=("llama", "bloom"), quota=8.0)
    bloom = Placement("bloom", "west", "h100")
    series = {POOL: np.full(600, 1200.0), Pool("bloom", "west"): np.full(600, 4500.0)}
    states = {PLACE: PlacementState(ready=6), bloom: PlacementState(ready=2)}
    _, plan = decided(make_history, limits, series, states=states)
    assert plan.counts[PLACE] < 6 and plan.counts[bloom] == 2
    assert "wanted" in plan.steps[0].reason
    gone = 6 - plan.counts[PLACE]
    later = {PLACE: PlacementState(ready=plan.counts[PLACE], draining=0), bloom: PlacementState(ready=2)}
    _, then = decided(make_history, limits, series, states=later, previous=plan)
    assert then.counts[bloom] == min(2 + gone, then.counts[bloom]) > 2


def test_scarce_gpus_are_shared_and_the_shortfall_is_reported(make_history):
    limits = fleet(models=("llama", "bloom"), quota=4.0)
    series = {POOL: np.full(600, 5000.0), Pool("bloom", "west"): np.full(600, 5000.0)}
    _, plan = decided(make_history, limits, series, states=2)
    assert sum(plan.counts.values()) == 4 and min(plan.counts.values()) >= 1
    assert plan.solve is not None and plan.solve.shortfall_tokens_per_s > 5000.0


def test_of_two_gpu_types_the_cheaper_for_the_work_is_taken(make_history):
    limits = fleet(gpu_types=("h100", "a100"))
    cheap = Placement("llama", "west", "a100")
    states = {PLACE: PlacementState(), cheap: PlacementState()}
    _, plan = decided(make_history, limits, {POOL: np.full(600, 3000.0)}, states=states)
    assert plan.counts[PLACE] == 0 and plan.counts[cheap] >= 3


def test_the_old_server_of_an_exchange_stays_until_the_new_one_is_ready(make_history):
    limits = fleet(gpu_types=("h100", "a100"))
    cheap = Placement("llama", "west", "a100")
    # A start is worth its price over the horizon of a plan only when what it replaces is much dearer.
    dear = dataclasses.replace(
        limits,
        capacity={
            **limits.capacity,
            ("llama", "h100"): Capacity(theta_tokens_per_s=1000.0, gpus=4.0, start_s=300.0, usd_per_gpu_h=4.0),
        },
    )
    states = {PLACE: PlacementState(ready=3), cheap: PlacementState()}
    _, plan = decided(make_history, dear, {POOL: np.full(600, 2500.0)}, states=states)
    assert plan.counts[PLACE] == 3 and plan.counts[cheap] >= 3
    ready = {PLACE: PlacementState(ready=3), cheap: PlacementState(ready=plan.counts[cheap])}
    _, then = decided(make_history, dear, {POOL: np.full(600, 2500.0)}, states=ready, previous=plan)
    assert then.counts[PLACE] == 0


def test_regions_are_pooled_and_the_next_server_goes_where_it_lacks_most(make_history):
    limits = fleet(regions=("west", "east", "north"), min_servers=1)
    series = {
        Pool("llama", r): np.full(600, level) for r, level in (("west", 2400.0), ("east", 400.0), ("north", 400.0))
    }
    states = {p: PlacementState(ready=1) for p in limits.placements()}
    _, plan = decided(make_history, limits, series, states=states)
    assert sum(plan.counts.values()) <= 5
    assert plan.counts[PLACE] == max(plan.counts.values()) >= 2


def test_niw_buys_capacity_only_once_its_deadline_presses(make_history):
    limits = fleet()
    seen, calm = decided(make_history, limits, {POOL: wavy(2000, swing=0.0)})
    tokens = 20e6

    def with_backlog(due_s):
        waiting = {"llama": ((seen.at_s + due_s, tokens),)}
        asked = dataclasses.replace(seen, niw_due=waiting, niw_queued_tokens={"llama": int(tokens)})
        return make_policy("mpc", {}).decide(asked).counts[PLACE]

    assert with_backlog(20 * 3600.0) == calm.counts[PLACE]
    assert with_backlog(1.5 * 3600.0) >= calm.counts[PLACE] + 3


def test_without_history_the_fleet_stays_as_it_is(make_history):
    _, plan = decided(make_history, fleet(), {POOL: np.zeros(0)}, states=4)
    assert plan.counts[PLACE] == 4 and plan.steps == ()


def test_what_a_run_begins_with_stands_until_as_much_has_been_seen_as_a_need_is_held(make_history):
    for minutes in (1, 5, 9):
        _, plan = decided(make_history, fleet(start_s=300.0), {POOL: np.full(minutes, 500.0)}, states=8)
        assert plan.counts[PLACE] == 8, minutes
    _, plan = decided(make_history, fleet(start_s=300.0), {POOL: np.full(12, 500.0)}, states=8)
    assert plan.counts[PLACE] < 8


def test_too_little_history_is_named_and_planned_for_with_care(make_history):
    _, plan = decided(make_history, fleet(), {POOL: np.full(30, 3000.0)}, states=4)
    forecast = plan.memory.forecasts[POOL]
    assert "too little demand" in forecast.fell_back_because
    assert plan.counts[PLACE] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_noisy_day_spends_about_the_budget_and_less_budget_costs_more(seed):
    days = wavy(4 * 1440, level=12_000.0, noise=0.12, seed=seed)
    load = FluidLoad(bin_s=60.0, interactive={POOL: days[-1440:]}, interactive_before={POOL: days[:-1440]})
    outcomes = {
        budget: run_fluid(make_policy("mpc", {"budget": budget}), load, fleet(), {PLACE: 14})
        for budget in (0.002, 0.01, 0.05)
    }
    assert 0.005 <= outcomes[0.01].missed_share <= 0.015
    assert 0.03 <= outcomes[0.05].missed_share <= 0.07
    assert outcomes[0.002].gpu_h > outcomes[0.01].gpu_h > outcomes[0.05].gpu_h


@pytest.mark.parametrize(("leads_held", "stands"), [(0.0, False), (1.0, False), (2.0, True)])
def test_a_need_is_held_for_as_many_leads_as_the_beginning_said(leads_held, stands, make_history):
    """Demand fell seven minutes ago, a start takes five."""
    limits = fleet()
    fallen = np.full(1500, 3000.0)
    _, plan = decided(make_history, limits, {POOL: np.append(fallen, np.full(20, 9000.0))}, states=9)
    count = plan.counts[PLACE]
    numbers = {**plan.memory.numbers, "leads held llama": leads_held}
    plan = dataclasses.replace(plan, memory=dataclasses.replace(plan.memory, numbers=numbers))
    past = np.concatenate([fallen, np.full(20, 9000.0), np.full(7, 3000.0)])
    _, plan = decided(make_history, limits, {POOL: past}, states={PLACE: PlacementState(ready=count)}, previous=plan)
    assert (plan.counts[PLACE] == count) is stands


def test_the_oracle_holds_nothing_it_knows_what_is_needed_again(make_history):
    future = TrueFuture(bin_s=60.0, interactive={POOL: np.full(60, 3000.0)})
    seen, _ = decided(make_history, fleet(), {POOL: np.full(1500, 3000.0)}, states=9)
    assert oracle(MpcParameters(), future).decide(seen).memory.numbers["leads held llama"] == 0.0


def test_the_oracle_spends_the_budget_and_beats_what_cannot_see():
    days = wavy(2 * 1440, level=12_000.0, noise=0.2, seed=3)
    load = FluidLoad(bin_s=60.0, interactive={POOL: days[-720:]}, interactive_before={POOL: days[:-720]})
    future = TrueFuture(bin_s=60.0, interactive=load.interactive)
    seeing = run_fluid(oracle(MpcParameters(), future), load, fleet(), {PLACE: 20})
    blind = run_fluid(make_policy("mpc", {}), load, fleet(), {PLACE: 20})
    assert seeing.violated_share <= 0.0105
    assert seeing.gpu_h < 0.9 * blind.gpu_h


def test_a_decision_can_be_read(make_history):
    _, plan = decided(make_history, fleet(), {POOL: wavy(2000, swing=0.0)}, states=2)
    (step,) = plan.steps
    assert step.change == plan.counts[PLACE] - 2 > 0
    assert "tokens/s within 360 s" in step.reason and "expected" in step.reason
    assert {"headroom llama", "theta llama", "seen_until_s"} <= set(plan.memory.numbers)


def test_times_out_of_order_are_refused():
    with pytest.raises(ValueError, match="step_s <= refit_s <= fit_window_s"):
        make_policy("mpc", {"refit_s": 10.0})


def test_a_model_that_is_asked_for_has_a_server_however_little_it_is_asked_for(make_history):
    limits = fleet(min_servers=0)
    series = np.zeros(2000)
    series[::97] = 40.0
    series[-1] = 40.0
    _, plan = decided(make_history, limits, {POOL: series}, states=0)
    assert plan.counts[PLACE] == 1
    assert "tokens/s within" in plan.steps[0].reason


def test_requests_turned_away_for_want_of_a_server_ask_for_more_headroom(make_history):
    limits, series = fleet(min_servers=0), wavy(2000)
    series[-1] = 0.0
    missed = np.zeros(2000)
    missed[-1] = 30.0
    _, plan = decided(make_history, limits, {POOL: series[:-1]}, states=0, at_s=-60.0)
    _, later = decided(
        make_history, limits, {POOL: series}, states=0, previous=plan, ended={POOL: missed}, missed={POOL: missed}
    )
    assert later.memory.numbers["headroom llama"] > plan.memory.numbers["headroom llama"]


def test_servers_that_sleep_elsewhere_wake_before_any_is_started():
    limits = fleet(regions=("west", "east"), wake_s=20.0, min_servers=0)
    west, east = PLACE, Placement("llama", "east", "h100")
    needs = Needs(tokens_per_s={"llama": 3000.0}, shares={west.pool: 0.0, east.pool: 1.0})
    assert spread(limits, needs, {east: 1}, {west: 1}) == {west: 1, east: 2}
    assert spread(limits, needs, {east: 1}, {}) == {west: 0, east: 3}


def test_a_window_too_short_for_the_lead_falls_back_by_name(make_history):
    policy = make_policy("mpc", {"fit_window_s": 600, "refit_s": 600})
    limits = fleet(start_s=900.0)
    _, plan = decided(make_history, limits, {POOL: wavy(2000)}, policy=policy)
    assert "too little demand" in plan.memory.forecasts[POOL].fell_back_because

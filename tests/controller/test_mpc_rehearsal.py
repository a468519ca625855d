"""The headroom that mpc begins with: what the days before would have needed, no more."""

from dataclasses import replace

import numpy as np
import pytest

from controller.mpc.headroom import MOST_GAIN, adapted, gain, unrehearsed
from controller.mpc.held import LEADS_HELD
from controller.mpc.lead_peak import LeadPeaks
from controller.mpc.outlook import ModelPast, outlook
from controller.mpc.rehearsal import Beginning, Rehearsal, beginning, missed_shares, rehearsed
from controller.mpc.service import Service, corrected_ratio
from controller.mpc.short_history import recent_peak
from controller.mpc.tail import LEAST, MOST, SMALLEST
from controller.types import Capacity, FleetLimits

PEAKS = LeadPeaks(season_steps=1440, refit_steps=60, fit_steps=7 * 1440)
LEAD_S = 300.0


def days(count: int = 3, *, level: float = 5000.0, swing: float = 0.4, noise: float = 0.08, seed: int = 4) -> ModelPast:
    minutes = np.arange(1440 * count)
    chance = np.random.default_rng(seed)
    shape = 1 + swing * np.sin(2 * np.pi * minutes / 1440)
    values = level * shape * np.exp(noise * chance.standard_normal(len(minutes)))
    return ModelPast(values=values, step_s=60.0, last_step=0)


def fleet(*, theta: float = 1000.0, saturated: float | None = None, patience_s: float = 0.0) -> FleetLimits:
    capacity = Capacity(
        theta_tokens_per_s=theta,
        gpus=1.0,
        start_s=LEAD_S,
        saturated_tokens_per_s=saturated,
        patience_s=patience_s,
    )
    return FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity={("llama", "h100"): capacity},
        quota_gpus={("west", "h100"): 99.0},
    )


def begun(past: ModelPast, limits: FleetLimits, budget: float = 0.01) -> float:
    return beginning(past, PEAKS, limits, "llama", LEAD_S, budget).headroom


def held(past: ModelPast, budget: float = 0.01) -> float:
    return beginning(past, PEAKS, fleet(), "llama", LEAD_S, budget).leads_held


def test_a_larger_budget_begins_with_less_headroom():
    past, limits = days(), fleet()
    headrooms = [begun(past, limits, budget) for budget in (0.002, 0.01, 0.05, 0.2)]
    assert headrooms == sorted(headrooms, reverse=True)
    assert LEAST <= headrooms[-1] < headrooms[0] - 0.5 <= MOST


def test_where_requests_may_queue_less_headroom_is_needed():
    past = days()
    at_once = begun(past, fleet())
    patient = begun(past, fleet(saturated=1100.0, patience_s=10.0))
    more_patient = begun(past, fleet(saturated=1100.0, patience_s=60.0))
    assert at_once - 1.0 > patient >= more_patient


def test_a_demand_that_whole_servers_happen_to_fit_teaches_nobody_to_plan_for_less():
    """Five servers take all of it. Planning for a little over four would come out as five as well, today."""
    past = days(swing=0.0, noise=0.0)
    seen = outlook(past, PEAKS, LEAD_S, begun(past, fleet()), 0.01, 1.0, even=False)
    assert seen.needed_tokens_per_s > 0.9 * 5000.0


def surprised(past: ModelPast, *at_h: float) -> ModelPast:
    """The same past, with demand three times as high for a quarter of an hour from each of `at_h`."""
    values = past.values.copy()
    for hour in at_h:
        values[round(60 * hour) :][:15] *= 3.0
    return replace(past, values=values)


def test_one_surprise_of_a_week_decides_nothing_and_one_a_day_does():
    past, limits = days(7), fleet()
    calm, once = begun(past, limits, 0.001), begun(surprised(past, 75.3), limits, 0.001)
    often = begun(surprised(past, 33.2, 51.9, 75.3, 110.6, 121.7, 163.1), limits, 0.001)
    assert abs(once - calm) < 0.5 < 1.5 < often - calm


def leaping(count: int = 4, *, seed: int = 4) -> ModelPast:
    """Three times the demand for two minutes, at moments that nothing foretells, some fifteen times a day."""
    past = days(count, swing=0.0, noise=0.02)
    values = past.values.copy()
    for start in np.random.default_rng(seed).integers(0, len(values) - 2, 15 * count):
        values[start : start + 2] *= 3.0
    return replace(past, values=values)


def test_where_demand_leaps_and_is_gone_a_need_is_held_for_less_long():
    assert held(leaping(), budget=0.1) < LEADS_HELD


def test_a_shorter_hold_that_saves_next_to_nothing_is_not_worth_its_starts():
    assert held(days()) == LEADS_HELD


def bursting(count: int = 4, *, seed: int = 4) -> ModelPast:
    """Three times the demand for a quarter of an hour, ten times a day, out of calm and back to it."""
    past = days(count, swing=0.0, noise=0.02)
    starts = np.random.default_rng(seed).uniform(0.0, 24.0 * count - 0.5, 10 * count)
    return surprised(past, *starts)


def by_turns(count: int = 4) -> ModelPast:
    """Hours in which demand is calm, and as many in which every minute is another."""
    past = days(count, swing=0.0, noise=0.02)
    wild = np.random.default_rng(4).lognormal(0.0, 0.4, len(past.values))
    return replace(past, values=np.where(np.arange(len(wild)) % 480 < 240, past.values, 5000.0 * wild))


@pytest.mark.parametrize(("past", "even"), [(bursting(), True), (by_turns(), False)])
def test_rough_demand_is_planned_above_only_where_it_foretells_surprises(past, even):
    assert beginning(past, PEAKS, fleet(), "llama", LEAD_S, 0.01).even is even


def test_errors_of_even_size_ask_for_as_much_above_a_peak_of_calm_as_of_rough_demand():
    past = by_turns()
    fits = {even: PEAKS.fit(past.values, 0, 6, even=even) for even in (False, True)}
    for even, fit in fits.items():
        sizes = fit.expected(past.values, 2000)[1]
        assert bool(np.ptp(sizes) < 1e-9) is even


def test_servers_that_start_at_once_can_be_rehearsed_too():
    begins = beginning(days(), PEAKS, fleet(), "llama", 0.0, 0.01)
    assert LEAST < begins.headroom < MOST


def test_where_no_headroom_keeps_the_budget_the_highest_is_begun_with_and_the_longest_hold():
    """Demand that leaps twentyfold from minute to minute, and a fit that has only seen calm days."""
    calm, wild = days(), days(7, swing=0.0, noise=3.0)
    fits = {even: PEAKS.fit(calm.values, 0, 6, even=even) for even in (False, True)}
    given = Rehearsal(
        values=wild.values,
        theta_tokens_per_s=1000.0,
        saturation=1.0,
        patience_steps=0.0,
        least_servers=1,
        lead_steps=5,
    )
    assert rehearsed(fits, given, 0.001, 7 * 1440) == Beginning(headroom=MOST, leads_held=LEADS_HELD, even=False)


def test_servers_that_serve_more_only_while_requests_queue_do_so_for_none_that_may_not():
    past = days()
    assert begun(past, fleet(saturated=2000.0, patience_s=0.0)) == begun(past, fleet())


@pytest.mark.parametrize("values", [np.full(30, 5000.0), np.full(500, 5000.0), np.zeros(0), np.zeros(3000)])
def test_no_past_no_opinion(values):
    """A server that starts in five minutes is there within six steps."""
    past = ModelPast(values=values, step_s=60.0, last_step=0)
    begins = beginning(past, PEAKS, fleet(), "llama", LEAD_S, 0.01)
    assert begins == Beginning(headroom=unrehearsed(0.01, 6), leads_held=LEADS_HELD)


def test_without_a_past_a_peak_lies_above_plan_at_most_as_often_as_the_budget_lets_its_steps():
    assert np.exp(-unrehearsed(0.01, 6)) == pytest.approx(0.06)
    assert unrehearsed(0.001, 6) - unrehearsed(0.01, 6) == pytest.approx(np.log(10))
    assert unrehearsed(0.2, 6) == SMALLEST


def test_the_longer_the_past_the_less_one_bad_hour_says():
    after_a_day, after_a_week = (
        adapted(2.0, 1.0, 0.1, weight=60.0, past_steps=steps) - 2.0 for steps in (1440, 7 * 1440)
    )
    assert after_a_day == pytest.approx(7 * after_a_week) and after_a_week > 0
    assert gain(0.01, 30) == gain(0.01, 0) == MOST_GAIN, "however little has been seen"


def test_a_budget_that_is_spent_evenly_leaves_the_headroom_where_it_is():
    headroom = 2.0
    for missed in (1.0, *[0.0] * 9):
        headroom = adapted(headroom, missed, 0.1, weight=1.0, past_steps=1440)
    assert headroom == pytest.approx(2.0)


def test_an_overload_that_passes_within_the_patience_of_requests_is_no_miss():
    came, ready = np.array([100.0, 140.0, 60.0, 100.0]), np.full(4, 100.0)
    assert missed_shares(came, ready, 1.0, 0.5).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_what_waits_for_longer_than_it_may_has_missed_also_after_the_overload():
    """The wait grows from 0 to 0.6 steps, and falls back to 0: in a sixth of both it is more than half a step."""
    came, ready = np.array([100.0, 160.0, 40.0, 100.0]), np.full(4, 100.0)
    assert missed_shares(came, ready, 1.0, 0.5) == pytest.approx([0.0, 1 / 6, 1 / 6, 0.0])


def test_a_load_beyond_what_they_serve_at_all_is_missed_however_patient_requests_are():
    came, ready = np.full(100, 150.0), np.full(100, 100.0)
    assert missed_shares(came, ready, 1.6, 5.0).sum() == 0.0
    missed = missed_shares(came, ready, 1.1, 5.0)
    assert missed[:10].sum() == 0.0 and missed[-80:].tolist() == [1.0] * 80


def test_without_patience_a_step_above_capacity_misses_as_a_whole_and_the_next_begins_anew():
    came, ready = np.array([100.0, 101.0, 100.0]), np.full(3, 100.0)
    assert missed_shares(came, ready, 2.0, 0.0).tolist() == [0.0, 1.0, 0.0]


def test_below_every_quantile_each_unit_of_headroom_takes_a_tenth_off_the_plan():
    below, further = (outlook(days(), PEAKS, LEAD_S, h, 0.01, 1.0, even=False) for h in (-0.9, -1.9))
    assert further.needed_tokens_per_s / below.needed_tokens_per_s == pytest.approx(np.exp(-0.1))


def test_a_short_history_is_planned_for_by_its_level_and_by_how_much_it_changes():
    calm = np.full(15, 1000.0)
    rough = calm * np.where(np.arange(15) % 2, 1.2, 0.8)
    planned, level = recent_peak(calm, 3.0)
    assert level == 1000.0 and 1000.0 < planned < 1250.0
    assert recent_peak(rough, 3.0)[0] > 1.2 * planned
    assert recent_peak(calm, 1.0)[0] < planned
    assert recent_peak(calm, np.log(2))[0] == pytest.approx(level), "its median"
    assert recent_peak(np.zeros(15), 3.0) == recent_peak(np.zeros(0), 3.0) == (0.0, 0.0)


def test_of_a_short_history_no_more_is_planned_for_than_a_queue_leaves_but_always_the_expected_peak():
    rough = 1000.0 * np.where(np.arange(15) % 2, 1.2, 0.8)
    past = ModelPast(values=rough, step_s=60.0, last_step=15)
    alone, queued, deep = (outlook(past, PEAKS, LEAD_S, 3.0, 0.01, queue, even=False) for queue in (1.0, 1.1, 10.0))
    assert alone.needed_tokens_per_s == alone.peak_tokens_per_s == queued.peak_tokens_per_s
    assert queued.needed_tokens_per_s == pytest.approx(queued.peak_tokens_per_s / 1.1)
    assert deep.needed_tokens_per_s == deep.expected_tokens_per_s


@pytest.mark.parametrize(
    ("load", "missed", "moves"),
    [(1.05, 0.0, 0), (1.3, 0.0, 1), (0.9, 0.0, 0), (0.9, 0.5, -1), (1.05, 0.5, 0), (0.6, 0.5, 0)],
)
def test_theta_moves_by_what_a_queue_cannot_explain(load: float, missed: float, moves: int) -> None:
    """Servers serve 1.1 times theta while requests queue: a step at 1.05 that met its SLO may have had a queue."""
    service = Service(steps=1.0, missed_share=missed, load=load)
    assert np.sign(corrected_ratio(1.0, service, missed, 0.01, saturation=1.1) - 1.0) == moves


@pytest.mark.parametrize(("missed", "moves"), [(0.5, 0), (0.0, 1)])
def test_servers_are_not_blamed_for_who_had_waited_in_a_queue_of_before(missed: float, moves: int) -> None:
    """The load of now is not what made them miss; if all met their SLO all the same, that shows what it always does."""
    load = 0.8 if missed else 1.3
    service = Service(steps=1.0, missed_share=missed, load=load, after_queue=True)
    assert np.sign(corrected_ratio(1.0, service, missed, 0.01, saturation=1.1) - 1.0) == moves


def test_nothing_is_learnt_of_servers_where_none_was_ready() -> None:
    service = Service(steps=1.0, missed_share=0.0, load=1.3, ready=False)
    assert corrected_ratio(1.0, service, 0.0, 0.01, saturation=1.1) == 1.0

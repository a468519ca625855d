"""The bound of one pool: exact without violations, a close bracket with a budget of them, deadlines kept."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.bound.budget import within_budget
from controller.bound.deferrable import Deferrable, cheapest_service, deferrable, done
from controller.bound.feasible import cost_in_all
from controller.bound.lagrangian import StepPrices, best_price
from controller.bound.levels import least_plan
from controller.bound.need import Need, starts, unit_steps
from controller.bound.valleys import fair_prices, with_deferrable

EXACT = 1e-6
required = st.lists(st.integers(0, 4), min_size=1, max_size=12)
start_steps = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.5, 10.0])
initial = st.sampled_from([None, 0, 1, 3, 6])


def need_of(values: list[int], lead: float, stood: int | None = None, least: int = 0) -> Need:
    return Need(
        required=np.maximum(np.array(values, dtype=np.int64), least), start_steps=lead, least=least, initial=stood
    )


def cheapest_by_search(need: Need, budget: int) -> float:
    """Every plan there is, within the budget: what it costs, counted step by step."""
    top = int(max(need.required.max(), need.least))
    best = np.inf
    for plan in itertools.product(range(need.least, top + 1), repeat=len(need.required)):
        if sum(have < want for have, want in zip(plan, need.required, strict=True)) > budget:
            continue
        before, cost = plan[0] if need.initial is None else need.initial, 0.0
        for have in plan:
            cost += have + need.start_steps * max(0, have - before)
            before = have
        best = min(best, cost)
    return best


def cheapest_by_program(need: Need) -> float:
    """The linear program of the same pool."""
    steps = len(need.required)
    rise = np.eye(steps) - np.eye(steps, k=-1)
    before = np.zeros(steps)
    before[0] = 1e6 if need.initial is None else need.initial
    answer = scipy.optimize.linprog(
        np.concatenate([np.ones(steps), np.full(steps, need.start_steps)]),
        A_ub=np.hstack([rise, -np.eye(steps)]),
        b_ub=before,
        bounds=[(float(r), None) for r in need.required] + [(0, None)] * steps,
    )
    return float(answer.fun)


@given(values=st.lists(st.integers(0, 30), min_size=1, max_size=60), lead=start_steps, stood=initial)
def test_the_plan_without_violations_costs_what_the_linear_program_does(
    values: list[int], lead: float, stood: int | None
) -> None:
    need = need_of(values, lead, stood)
    plan = least_plan(need)
    assert np.all(plan >= need.required)
    assert unit_steps(need, plan) == pytest.approx(cheapest_by_program(need), abs=EXACT)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    lead=start_steps,
    stood=initial,
    budget=st.integers(0, 3),
    least=st.integers(0, 1),
)
def test_no_plan_that_keeps_the_budget_costs_less_than_the_bound(
    values: list[int], lead: float, stood: int | None, budget: int, least: int
) -> None:
    need = need_of(values, lead, stood, least)
    found, truth = within_budget(need, budget), cheapest_by_search(need, budget)
    assert found.lower <= truth + EXACT
    assert found.upper >= truth - EXACT
    assert found.violated.sum() <= budget
    assert np.all((found.plan >= need.required) | found.violated)
    if budget == 0:
        assert found.lower == found.upper == pytest.approx(truth)


@settings(max_examples=50, deadline=None)
@given(values=required, lead=start_steps, stood=initial, budget=st.integers(0, 6))
def test_a_larger_budget_a_shorter_start_or_less_to_serve_never_raises_the_bound(
    values: list[int], lead: float, stood: int | None, budget: int
) -> None:
    """Up to what the search for the best price leaves."""
    bound = within_budget(need_of(values, lead, stood), budget).lower
    slack = 0.01 * bound + EXACT
    assert within_budget(need_of(values, lead, stood), budget + 1).lower <= bound + slack
    assert within_budget(need_of(values, lead + 1, stood), budget).lower >= bound - slack
    assert within_budget(need_of([v + 1 for v in values], lead, stood), budget).lower >= bound - slack


def test_a_gap_is_bridged_if_that_is_cheaper_than_a_start() -> None:
    need = need_of([2, 0, 0, 2, 0, 0, 0, 0, 0, 2], 3.0, stood=2)
    assert least_plan(need).tolist() == [2, 2, 2, 2, 0, 0, 0, 0, 0, 2]
    assert starts(need, least_plan(need)) == 2


def test_a_server_that_stands_at_the_beginning_is_kept_only_for_a_need_that_comes_soon() -> None:
    assert least_plan(need_of([0, 0, 1], 5.0, stood=1)).tolist() == [1, 1, 1]
    assert least_plan(need_of([0, 0, 1], 5.0, stood=0)).tolist() == [0, 0, 1]
    assert least_plan(need_of([0, 0, 1], 1.0, stood=1)).tolist() == [0, 0, 1]


def a_week(seed: int, servers: float) -> np.ndarray:
    """Seven days by minutes: a daily rhythm, slow noise and short bursts."""
    rng, minutes = np.random.default_rng(seed), np.arange(7 * 1440)
    slow = np.convolve(rng.standard_normal(len(minutes) + 9), np.full(10, 10**-0.5), "valid")
    bursts = np.where(rng.random(len(minutes)) < 0.004, 1 + 2 * rng.random(len(minutes)), 1.0)
    return servers * (0.6 - 0.4 * np.cos(2 * np.pi * minutes / 1440)) * np.exp(0.1 * slow) * bursts


@pytest.mark.parametrize(("servers", "lead"), [(8.0, 5.0), (40.0, 5.0), (15.0, 20.0)])
def test_a_week_with_a_budget_of_one_percent_has_a_gap_below_one_percent(servers: float, lead: float) -> None:
    load = a_week(1, servers)
    need = need_of(np.ceil(load).astype(int).tolist(), lead)
    found = within_budget(need, len(load) // 100)
    assert found.lower <= found.upper <= 1.01 * found.lower
    assert found.upper < unit_steps(need, least_plan(need))
    assert len(load) // 110 < found.violated.sum() <= len(load) // 100


def test_any_price_of_a_violation_gives_a_bound_and_none_the_cost_of_no_violation() -> None:
    need = need_of([1, 5, 1, 1, 3, 1], 2.0)
    whole = unit_steps(need, least_plan(need))
    assert best_price(need, 0, StepPrices.plain(6)).bound == pytest.approx(whole)
    assert best_price(need, 6, StepPrices.plain(6)).bound == pytest.approx(0.0, abs=0.01)


# Work that may wait.


def work_of(pieces: list[tuple[int, float, float]], steps: int) -> Deferrable:
    ordered = sorted(pieces)
    return deferrable(
        np.array([p[0] for p in ordered], dtype=np.int64),
        np.array([p[1] for p in ordered]),
        np.array([p[2] for p in ordered]),
        steps,
    )


def test_work_is_done_in_the_room_there_is_and_not_before_it_arrives() -> None:
    arrived = np.cumsum([1.0, 2.0, 2.0, 2.0, 0.0, 7.0])
    assert done(arrived, np.array([0.0, 1.0, 0.0, 5.0, 5.0, 1.0])).tolist() == [0.0, 1.0, 1.0, 6.0, 7.0, 8.0]


def test_work_goes_to_the_cheapest_step_of_its_window() -> None:
    prices = np.array([0.9, 0.2, 0.5, 0.1])
    assert cheapest_service(work_of([(0, 2.0, 2.0)], 4), prices, after=1.0) == pytest.approx(2 * 0.2)
    assert cheapest_service(work_of([(2, 2.0, 2.0)], 4), prices, after=1.0) == pytest.approx(2 * 0.5)
    assert cheapest_service(work_of([(0, 9.0, 2.0)], 4), prices, after=0.05) == pytest.approx(2 * 0.05)
    both = work_of([(0, 1.0, 1.0), (0, 3.0, 1.0)], 4)
    assert cheapest_service(both, prices, after=1.0) == pytest.approx(0.2 + 0.1)


def test_prices_that_would_pay_for_endless_units_are_scaled_down_until_they_do_not() -> None:
    need = need_of([1] * 6, 2.0, stood=1)
    prices = np.array([0.0, 3.0, 3.0, 0.0, 0.0, 0.0])
    fair = fair_prices(need, prices)
    assert 0 < fair[1] == fair[2] < 3.0
    assert (fair - 1)[1:3].sum() == pytest.approx(2.0, abs=1e-3)  # one start, bought back


def test_waiting_work_fills_the_valley_that_stands_anyway() -> None:
    """Two units for a need of two, then one: half a unit of work of the first steps fits beside the rest."""
    load = np.array([2.0, 2.0, 2.0, 0.5, 0.5, 0.5])
    need = need_of([2, 2, 2, 1, 1, 1], 1.0, stood=2)
    found = with_deferrable(need, load, work_of([(0, 5.0, 1.0)], 6), 0)
    assert found.lower == pytest.approx(9.0) and found.upper == pytest.approx(9.0)
    urgent = with_deferrable(need, load, work_of([(0, 1.0, 1.0)], 6), 0)
    assert urgent.lower >= 10.0 - EXACT


pieces = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 12), st.floats(0.1, 2.0)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    load=st.lists(st.floats(0, 3), min_size=8, max_size=8),
    pieces=pieces,
    lead=start_steps,
    stood=initial,
    budget=st.integers(0, 2),
)
def test_with_work_that_waits_the_plan_found_keeps_deadlines_and_costs_no_less_than_the_bound(
    load: list[float], pieces: list[tuple[int, int, float]], lead: float, stood: int | None, budget: int
) -> None:
    work = work_of([(a, float(a + wait), w) for a, wait, w in pieces], 8)
    need = need_of(np.ceil(load).astype(int).tolist(), lead, stood)
    found = with_deferrable(need, np.array(load), work, budget)
    assert found.lower <= found.upper + EXACT
    assert found.lower >= within_budget(need, budget).lower - EXACT
    assert found.violated.sum() <= budget
    if np.isfinite(found.upper):
        room = np.where(found.plan < load, found.plan, found.plan - np.array(load))
        assert np.all(done(work.arrived, room) >= work.due_in_turn - 1e-4)


@settings(max_examples=25, deadline=None)
@given(
    load=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    waits=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.5, 1.0, 1.5])), min_size=1, max_size=2
    ),
    lead=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_no_plan_that_keeps_every_deadline_costs_less_than_the_bound(
    load: list[int], waits: list[tuple[int, int, float]], lead: float
) -> None:
    work = work_of([(a, float(min(a + wait, 3)), w) for a, wait, w in waits], 4)
    need = need_of(load, lead, 0)
    search = min(
        cost_in_all(need, np.array(load, dtype=float), work, np.array(plan))
        for plan in itertools.product(range(6), repeat=4)
        if all(have >= want for have, want in zip(plan, load, strict=True))
    )
    assert with_deferrable(need, np.array(load, dtype=float), work, 0).lower <= search + EXACT


def test_longer_deadlines_never_raise_the_bound() -> None:
    load = a_week(3, 6.0)[:1440]
    need = need_of(np.ceil(load).astype(int).tolist(), 5.0)
    arrives = np.arange(1440)
    costs = []
    for wait in (1, 15, 60, 480):
        work = deferrable(arrives, arrives + float(wait), np.full(1440, 1.5), 1440)
        costs.append(with_deferrable(need, load, work, 0).lower)
    assert all(later <= sooner + EXACT for sooner, later in itertools.pairwise(costs))
    assert costs[-1] < 0.99 * costs[0]


def test_a_day_with_waiting_work_has_a_gap_below_three_percent() -> None:
    load = a_week(2, 10.0)[:1440]
    need = need_of(np.ceil(load).astype(int).tolist(), 5.0, stood=6)
    arrives = np.arange(1440)
    work = deferrable(arrives, arrives + 240.0, np.full(1440, 2.0), 1440)
    found = with_deferrable(need, load, work, 14)
    assert found.lower <= found.upper <= 1.03 * found.lower


def test_what_is_due_before_it_arrives_is_refused() -> None:
    arrived, due = np.array([0.0, 1.0]), np.array([1.0, 1.0])
    with pytest.raises(ValueError, match="deadline lies before"):
        Deferrable(arrived=arrived, due=due, due_in_turn=due, after_steps=np.empty(0), after_due=np.empty(0))


def test_a_need_below_its_least_is_refused() -> None:
    with pytest.raises(ValueError, match="none below a least"):
        Need(required=np.array([0, 1]), start_steps=1.0, least=1)

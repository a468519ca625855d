"""Frontiers: what a policy attains by its knob, policies at the same attainment, and who lies under whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.frontier import Frontier, frontier, saving, standing

Points = list[tuple[float, float]]

settings_ = st.lists(
    st.tuples(st.floats(0, 1), st.floats(1, 1000)),
    min_size=1,
    max_size=12,
    unique_by=lambda point: point[0],
)
shares = st.floats(0, 1)


def of(policy: str, points: Points) -> Frontier:
    """A policy whose knob's values are 0, 1, 2, ... at (missed, GPU-hours)."""
    return frontier(
        policy,
        [
            (float(value), {"missed": missed, "gpu_hours": hours, "wasted_gpu_hours": hours / 10})
            for value, (missed, hours) in enumerate(points)
        ],
    )


CURVE: Points = [(0.0, 200.0), (0.01, 140.0), (0.05, 100.0), (0.2, 80.0)]


def test_runs_of_one_knob_value_are_averaged_over_seeds() -> None:
    found = frontier("p", [(1.0, {"missed": 0.1, "gpu_hours": 10.0}), (1.0, {"missed": 0.3, "gpu_hours": 20.0})])
    (setting,) = found.settings
    assert (setting.seeds, setting.missed, setting.gpu_hours) == (2, pytest.approx(0.2), pytest.approx(15.0))


def test_a_measure_that_one_seed_lacks_is_not_averaged_over_the_others() -> None:
    found = frontier(
        "p", [(1.0, {"missed": 0.0, "gpu_hours": 1.0, "usd": 5.0}), (1.0, {"missed": 0.0, "gpu_hours": 1.0})]
    )
    assert "usd" not in found.settings[0].measures


def test_a_policy_without_runs_has_no_frontier() -> None:
    with pytest.raises(ValueError, match="policy p has no run"):
        frontier("p", [])


def test_a_setting_that_costs_more_and_misses_more_is_not_on_the_frontier() -> None:
    found = of("p", [(0.01, 100.0), (0.02, 120.0), (0.03, 90.0)])
    assert [setting.gpu_hours for setting in found.hull] == [100.0, 90.0]
    assert len(found.settings) == 3


def test_at_a_setting_the_policy_is_that_setting() -> None:
    at = of("p", CURVE).at(0.01)
    assert (at.how, at.values, at.measures["gpu_hours"]) == ("interpolated", (1.0,), 140.0)


def test_between_two_settings_every_measure_is_a_mixture_of_theirs_in_time() -> None:
    at = of("p", CURVE).at(0.03)
    assert (at.how, at.values) == ("interpolated", (1.0, 2.0))
    assert at.measures == pytest.approx({"missed": 0.03, "gpu_hours": 120.0, "wasted_gpu_hours": 12.0})


def test_beyond_its_settings_a_policy_stands_at_its_nearest_one_and_says_so() -> None:
    found = of("p", CURVE[1:])
    out_of_reach = found.at(0.001)
    assert (out_of_reach.how, out_of_reach.attained, out_of_reach.measures["missed"]) == ("nearest", False, 0.01)
    assert found.gpu_hours_at(0.001) is None
    always_better = found.at(0.5)
    assert (always_better.how, always_better.attained, always_better.measures["gpu_hours"]) == ("cheapest", True, 80.0)


@given(settings_, shares, shares)
def test_more_misses_never_cost_more(points: Points, one: float, other: float) -> None:
    found = of("p", points)
    strict, loose = found.gpu_hours_at(min(one, other)), found.gpu_hours_at(max(one, other))
    if strict is not None:
        assert loose is not None
        assert loose <= strict * (1 + 1e-9)


@given(settings_)
def test_no_setting_lies_under_its_own_frontier(points: Points) -> None:
    found = of("p", points)
    for setting in found.settings:
        least = found.gpu_hours_at(setting.missed)
        assert least is not None
        assert least <= setting.gpu_hours * (1 + 1e-9)
    for setting in found.hull:
        assert found.gpu_hours_at(setting.missed) == setting.gpu_hours


@given(settings_, shares, shares, shares)
def test_a_frontier_is_convex(points: Points, one: float, other: float, share: float) -> None:
    found = of("p", points)
    low, high = found.gpu_hours_at(one), found.gpu_hours_at(other)
    if low is None or high is None:
        return
    between = found.gpu_hours_at(share * one + (1 - share) * other)
    assert between is not None
    assert between <= (share * low + (1 - share) * high) * (1 + 1e-6)


@given(settings_, shares)
def test_what_is_attained_lies_within_the_settings(points: Points, missed: float) -> None:
    found = of("p", points)
    at = found.at(missed)
    hours = [setting.gpu_hours for setting in found.settings]
    assert min(hours) * (1 - 1e-9) <= at.measures["gpu_hours"] <= max(hours) * (1 + 1e-9)
    assert set(at.values) <= {setting.value for setting in found.settings}
    if at.attained:
        assert at.measures["missed"] <= missed + 1e-12


@given(settings_, settings_)
def test_more_settings_never_make_a_frontier_worse(points: Points, more: Points) -> None:
    few, many = of("p", points), of("p", points + more)
    for setting in few.hull:
        least = many.gpu_hours_at(setting.missed)
        assert least is not None
        assert least <= setting.gpu_hours * (1 + 1e-9)


def test_a_policy_that_costs_more_everywhere_lies_above() -> None:
    ours, other = of("mpc", [(m, 1.2 * h) for m, h in CURVE]), of("hpa", CURVE)
    found = standing(ours, other, 0.01)
    assert not found.on_or_under
    assert found.at_target.excess == pytest.approx(0.2)
    assert found.worst.excess == pytest.approx(0.2)


def test_a_policy_that_costs_less_everywhere_lies_under() -> None:
    found = standing(of("mpc", [(m, 0.7 * h) for m, h in CURVE]), of("hpa", CURVE), 0.01)
    assert found.on_or_under
    assert found.at_target.excess == pytest.approx(-0.3)


def test_one_setting_above_the_other_frontier_is_enough_to_lie_above() -> None:
    ours = of("mpc", [(0.01, 100.0), (0.05, 99.0), (0.2, 98.0)])
    found = standing(ours, of("hpa", CURVE), 0.01)
    assert found.at_target.excess is not None
    assert found.at_target.excess < 0
    assert not found.on_or_under
    assert found.worst.missed == 0.2


def test_where_the_other_policy_does_not_reach_there_is_nothing_to_lie_above() -> None:
    found = standing(of("mpc", [(0.001, 500.0)]), of("hpa", CURVE[1:]), 0.001)
    assert found.at_target.excess is None
    assert found.on_or_under


def test_a_saving_is_taken_at_equal_attainment() -> None:
    found = saving(of("mpc", [(0.01, 70.0)]), of("reactive", CURVE), 0.01, "gpu_hours", 0.25)
    assert found is not None
    assert (found.saved, found.missed, found.holds) == (pytest.approx(0.5), 0.01, True)


def test_a_policy_that_misses_too_much_is_compared_at_what_it_does_attain() -> None:
    found = saving(of("mpc", [(0.05, 90.0)]), of("reactive", CURVE), 0.01, "gpu_hours", 0.25)
    assert found is not None
    assert (found.missed, found.saved) == (0.05, pytest.approx(0.1))
    assert not found.holds


def test_against_a_policy_that_does_not_attain_as_much_the_saving_says_so() -> None:
    found = saving(of("mpc", [(0.0, 80.0)]), of("reactive", CURVE[1:]), 0.0, "gpu_hours", 0.25)
    assert found is not None
    assert not found.against_attained
    assert found.saved == pytest.approx(1 - 80 / 140)


def test_nothing_can_be_saved_of_nothing() -> None:
    free = frontier("static", [(None, {"missed": 0.0, "gpu_hours": 5.0, "wasted_gpu_hours": 0.0})])
    assert saving(of("mpc", CURVE), free, 0.01, "wasted_gpu_hours", 0.8) is None

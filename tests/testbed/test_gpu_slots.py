import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.gpu_slots import GpuSlots, deal_gpus

SIZES = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.75, 1.0, 2.0, 4.0])


def test_halves_share_a_gpu_and_leave_the_other_whole() -> None:
    slots = GpuSlots(range(2))
    assert slots.take(0.5) == (0,)
    assert slots.take(0.5) == (0,)
    assert slots.take(1) == (1,)
    assert slots.take(0.5) is None
    assert slots.used_gpus == 2


def test_a_server_over_several_gpus_takes_them_whole() -> None:
    slots = GpuSlots([4, 5, 6])
    assert slots.take(0.25) == (4,)
    assert slots.take(2) == (5, 6)
    assert slots.take(1) is None
    slots.give_back((4,), 0.25)
    assert slots.take(1) == (4,)


def test_a_share_goes_where_it_fits_most_tightly() -> None:
    slots = GpuSlots(range(3))
    assert slots.take(0.75) == (0,)
    assert slots.take(0.5) == (1,)
    assert slots.take(0.25) == (0,)


def test_three_thirds_fill_a_gpu() -> None:
    slots = GpuSlots([0])
    assert [slots.take(1 / 3) for _ in range(4)] == [(0,), (0,), (0,), None]
    for _ in range(3):
        slots.give_back((0,), 1 / 3)
    assert slots.used_gpus == 0
    assert slots.take(1) == (0,)


def test_a_region_may_own_a_share_of_a_gpu() -> None:
    slots = GpuSlots({0: 0.5, 1: 1.0})
    assert slots.take(1) == (1,)
    assert slots.take(1) is None
    assert slots.take(0.5) == (0,)
    assert slots.take(0.1) is None


def test_a_sleeper_takes_no_gpu_and_is_kept_free_of_others_while_there_is_room_elsewhere() -> None:
    slots = GpuSlots(range(3))
    assert slots.take(1) == (0,)
    slots.lay_down((0,), 1)
    assert slots.used_gpus == 0
    assert slots.take(1) == (1,)
    assert slots.take(0.5) == (2,)
    assert slots.can_wake((0,), 1)
    assert slots.take(1) == (0,), "for want of another"
    assert not slots.can_wake((0,), 1)
    assert not slots.wake((0,), 1)
    slots.give_back((0,), 1)
    assert slots.wake((0,), 1)
    assert slots.used_gpus == 2.5


def test_several_sleep_on_one_gpu_and_shares_wake_beside_each_other() -> None:
    slots = GpuSlots(range(2))
    for _ in range(3):
        assert slots.take(0.5) is not None
    slots.lay_down((0,), 0.5)
    slots.lay_down((0,), 0.5)
    assert slots.take(1) == (0,)
    assert not slots.wake((0,), 0.5)
    slots.give_back((0,), 1)
    assert slots.wake((0,), 0.5)
    assert slots.wake((0,), 0.5)
    assert slots.used_gpus == 1.5


def test_who_has_been_forgotten_or_woken_sleeps_no_more() -> None:
    slots = GpuSlots(range(1))
    slots.take(1)
    slots.lay_down((0,), 1)
    slots.forget((0,))
    for gone in (slots.forget, lambda indices: slots.wake(indices, 1)):
        with pytest.raises(ValueError, match="nobody sleeps on GPUs"):
            gone((0,))


@settings(max_examples=150, deadline=None)
@given(owned=st.integers(0, 5), wishes=st.lists(st.tuples(SIZES, st.booleans()), max_size=30))
def test_never_more_in_use_than_owned_and_giving_back_restores(owned: int, wishes: list[tuple[float, bool]]) -> None:
    slots = GpuSlots(range(owned))
    held: list[tuple[tuple[int, ...], float]] = []
    for gpus, give_one_back in wishes:
        taken = slots.take(gpus)
        if taken is not None:
            held.append((taken, gpus))
        if give_one_back and held:
            slots.give_back(*held.pop(0))
        on_gpu = dict.fromkeys(range(owned), 0.0)
        for indices, size in held:
            assert len(indices) == max(1, round(size))
            for index in indices:
                on_gpu[index] += min(size, 1.0)
        assert all(used <= 1 + 1e-6 for used in on_gpu.values())
        assert slots.used_gpus == pytest.approx(sum(on_gpu.values()))
    for indices, size in held:
        slots.give_back(indices, size)
    assert slots.used_gpus == 0
    if owned:
        assert slots.take(owned) == tuple(range(owned))


@pytest.mark.parametrize("gpus", [0.0, -1.0, 1.5, float("nan")])
def test_a_size_that_is_neither_share_nor_whole_is_refused(gpus: float) -> None:
    with pytest.raises(ValueError, match="wanted a fraction between 0 and 1, or a whole number"):
        GpuSlots(range(4)).take(gpus)


def test_what_was_not_taken_cannot_be_given_back() -> None:
    slots = GpuSlots(range(2))
    slots.take(0.5)
    for indices, gpus in (((1,), 0.5), ((0,), 1.0), ((0, 1), 0.5), ((7,), 0.5)):
        with pytest.raises(ValueError, match="give back what take"):
            slots.give_back(indices, gpus)
    slots.give_back((0,), 0.5)
    with pytest.raises(ValueError, match="once"):
        slots.give_back((0,), 0.5)


def test_a_machine_is_dealt_whole_gpus_first_and_fractions_together() -> None:
    assert deal_gpus([2, 1], [0, 1, 2]) == [{0: 1.0, 1: 1.0}, {2: 1.0}]
    assert deal_gpus([0.5, 0.25, 0.25], [3]) == [{3: 0.5}, {3: 0.25}, {3: 0.25}]
    assert deal_gpus([0.5, 1, 0.5], [0, 1]) == [{0: 0.5}, {1: 1.0}, {0: 0.5}]
    assert deal_gpus([1 / 3] * 3, [0]) == [{0: pytest.approx(1 / 3)}] * 3


def test_regions_that_want_more_than_the_machine_has_are_told() -> None:
    with pytest.raises(ValueError, match=r"the regions want 3 GPUs \(2, 1\), the machine has 2"):
        deal_gpus([2, 1], [0, 1])

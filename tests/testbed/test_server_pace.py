"""A server's own time is the run's, but for when it is slowed down."""

from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from testbed.server_pace import Afflictions, ServerTime


def test_nothing_slows_a_server_down_and_the_worst_of_several_counts() -> None:
    suffered = Afflictions()
    assert suffered.rate == 1.0
    suffered.begin(2.0)
    suffered.begin(4.0)
    assert suffered.rate == 0.25
    suffered.begin(float("inf"))
    assert suffered.rate == 0.0
    suffered.end(float("inf"))
    suffered.end(4.0)
    assert suffered.rate == 0.5


def test_a_server_that_stands_still_does_what_it_would_have_done_so_much_later() -> None:
    time = ServerTime()
    time.change(10.0, 0.0)
    assert (time.own_s(15.0), time.run_s(10.0), time.run_s(10.5)) == (10.0, 10.0, float("inf"))
    time.change(40.0, 1.0)
    assert (time.own_s(41.0), time.run_s(10.0), time.run_s(10.5)) == (11.0, 10.0, 40.5)
    assert time.run_s(3.0) == 3.0


def test_a_slow_server_takes_so_many_times_longer() -> None:
    time = ServerTime()
    time.change(10.0, 0.25)
    assert (time.own_s(18.0), time.run_s(12.0)) == (12.0, 18.0)
    time.change(18.0, 1.0)
    assert (time.run_s(12.0), time.run_s(13.0), time.run_s(11.0)) == (18.0, 19.0, 14.0)


@given(
    st.lists(st.tuples(st.floats(0.001, 100.0), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])), max_size=8),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8),
)
def test_time_never_runs_backwards_and_there_and_back_is_the_same(
    changes: list[tuple[float, float]], shares: list[float]
) -> None:
    time, now_s = ServerTime(), 0.0
    for after_s, rate in changes:
        now_s += after_s
        time.change(now_s, rate)
    end_own_s = time.own_s(now_s)
    own = sorted(share * end_own_s for share in shares)
    run = [time.run_s(own_s) for own_s in own]
    assert run == sorted(run)
    assert all(at_s <= now_s + 1e-9 for at_s in run)
    later = time.own_s(now_s + 5.0)
    if later > end_own_s:
        assert time.run_s(later) == approx(now_s + 5.0)

"""What arrives is served over the time that it stays."""

import numpy as np
import pytest

from controller.mpc.served_load import served_load


def test_what_stays_no_time_is_the_load_of_its_own_step():
    assert served_load(np.array([3.0, 0.0, 5.0]), 0.0).tolist() == [3.0, 0.0, 5.0]
    assert served_load(np.zeros(0), 2.0).tolist() == []


@pytest.mark.parametrize("stay_steps", [0.3, 1.0, 1.7, 4.0])
def test_all_that_arrives_is_served_once_and_never_before_it_came(stay_steps):
    arrivals = np.zeros(20)
    arrivals[8] = 6.0
    load = served_load(arrivals, stay_steps)
    assert load.sum() == pytest.approx(6.0)
    assert (load[:8] == 0).all() and load[8] > 0
    assert (load[8 + int(np.ceil(stay_steps)) + 1 :] < 1e-12).all()


def test_the_longer_requests_stay_the_lower_is_the_peak_of_a_burst():
    arrivals = np.where(np.arange(30) == 10, 9.0, 1.0)
    peaks = [served_load(arrivals, stay).max() for stay in (0.0, 0.5, 1.0, 3.0, 6.0)]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == len(peaks)
    assert served_load(arrivals, 1.0)[10:12].tolist() == [5.0, 5.0], "half in its own minute, half in the next"


def test_a_steady_rate_is_a_steady_load_from_the_first_step_on():
    assert served_load(np.full(5, 7.0), 3.3) == pytest.approx(np.full(5, 7.0))

import numpy as np

from results.niw_charts import oldest_age_s


def test_the_age_is_that_of_the_request_that_waits_longest():
    edges = np.array([0.0, 10.0, 20.0, 30.0])
    ages = oldest_age_s(np.array([2.0, 8.0, 12.0]), np.array([15.0, 25.0, 13.0]), edges)
    assert ages.tolist() == [8.0, 12.0, 0.0]


def test_a_queue_in_which_nobody_waits_has_no_age():
    assert oldest_age_s(np.array([1.0]), np.array([1.0]), np.array([0.0, 10.0])).tolist() == [0.0]

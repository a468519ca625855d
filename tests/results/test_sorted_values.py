import numpy as np
import pytest

from results.metrics import percentiles
from results.sorted_values import SortedValues


@pytest.mark.parametrize("rows", [0, 1, 2, 50, 5000])
def test_every_group_has_the_quantiles_that_the_summary_would_give_it(rows):
    rng = np.random.default_rng(rows)
    values = np.where(rng.random(rows) < 0.2, np.nan, rng.lognormal(size=rows))
    groups = rng.integers(-1, 6, rows)
    found = SortedValues(values).quantiles(groups, 7, (0.5, 0.9, 0.99))
    assert found.shape == (7, 3)
    for group in range(7):
        told = percentiles(values[groups == group])
        expected = [np.nan if value is None else value for value in (told.p50, told.p90, told.p99)]
        np.testing.assert_allclose(found[group], expected, rtol=1e-12)


def test_a_row_of_no_group_counts_nowhere():
    found = SortedValues(np.array([1.0, 100.0])).quantiles(np.array([0, -1]), 1, (0.0, 1.0))
    assert found.tolist() == [[1.0, 1.0]]


def test_many_groups_are_told_apart():
    count = 70_000
    found = SortedValues(np.arange(count, dtype=np.float64)).quantiles(np.arange(count), count, (0.5,))
    assert found[:, 0].tolist() == list(range(count))

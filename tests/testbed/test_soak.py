"""A run stays as large as it was, however long it goes on."""

import numpy as np
import pytest

from benchmarks.soak import Course, Soaked, soak


@pytest.mark.slow
def test_a_long_run_needs_no_more_memory_descriptors_and_tasks_at_its_end() -> None:
    found = soak(minutes=1.0, hours=4.0)
    assert found.requests > 1000
    assert found.starts > 10, "nothing came and went"
    assert found.grown() == [], found.courses


def test_what_grows_is_named() -> None:
    flat, growing = np.full(100, 200.0), np.linspace(200.0, 300.0, 100)
    quantities = {name: Course(name=name, values=flat, hours=4.0) for name in ("memory", "descriptors", "tasks")}
    assert Soaked(courses=quantities, requests=1, starts=1).grown() == []
    for name in quantities:
        grows = {**quantities, name: Course(name=name, values=growing, hours=4.0)}
        assert Soaked(courses=grows, requests=1, starts=1).grown() == [name]
    assert Course(name="memory", values=growing, hours=4.0).per_hour == pytest.approx(25.0)

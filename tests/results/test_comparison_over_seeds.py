"""Groups of runs that differ in their seed: means, changes paired by seed, and intervals over seeds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from results.bootstrap import change_interval
from results.comparison import Cell, SeedGroup, compare_groups
from results.comparison_page import ComparedCase
from results.comparison_quantities import PolicyResult
from results.manifest import PolicyRecord
from results.recorder import RunRecorder
from results.run_folder import RunFolder
from results.summarise import summarise


@pytest.fixture
def group(tmp_path: Any, completion: Any, manifest: Any, server_row: Any) -> Callable[..., SeedGroup]:
    """A group whose runs hold so many GPUs for an hour, by seed."""

    def make(label: str, gpus_by_seed: Mapping[int, float], status: str = "finished") -> SeedGroup:
        results = {}
        for seed, gpus in gpus_by_seed.items():
            path = tmp_path / label / str(seed)
            path.mkdir(parents=True)
            record = PolicyRecord(status=status, end_s=3600.0)
            manifest(records={label: record}, offered_requests=1, status=status).write(path)
            with RunRecorder(path / label) as recorder:
                server_row(recorder, 0.0, "s", "READY", gpus=gpus)
                recorder.completion(completion(1))
            results[seed] = PolicyResult(summary=summarise(RunFolder.open(path)).policies[label])
        return SeedGroup(label=label, by_seed=results)

    return make


def gpu_hours(*groups: SeedGroup) -> tuple[Cell, ...]:
    return compare_groups(groups).rows[0].cells


def test_a_value_is_the_mean_over_seeds(group: Any) -> None:
    first, second = gpu_hours(group("base", {1: 4, 2: 6}), group("ours", {1: 2, 2: 4}))
    assert (first.value, second.value) == (5.0, 3.0)
    assert (second.change, second.better) == ("-40.0 %", True)


def test_one_seed_has_no_interval(group: Any) -> None:
    assert gpu_hours(group("base", {1: 4}), group("ours", {1: 3}))[1].interval == ""


def test_seeds_that_all_change_alike_leave_no_doubt_however_they_differ(group: Any) -> None:
    second = gpu_hours(group("base", {1: 4, 2: 40, 3: 400}), group("ours", {1: 3, 2: 30, 3: 300}))[1]
    assert (second.change, second.interval, second.better) == ("-25.0 %", "-25.0 to -25.0", True)


def test_without_a_seed_in_common_each_side_is_drawn_on_its_own(group: Any) -> None:
    second = gpu_hours(group("base", {1: 4, 2: 40}), group("ours", {3: 3, 4: 30}))[1]
    low, high = (float(end) for end in second.interval.split(" to "))
    assert second.change == "-25.0 %"
    assert low < -80 and high > 100
    assert second.better is None  # it may be either


def test_policies_of_other_seeds_are_named_and_their_change_is_neither_good_nor_bad(group: Any) -> None:
    groups = group("base", {1: 4}), group("ours", {2: 3})
    second = gpu_hours(*groups)[1]
    assert (second.change, second.better) == ("-25.0 %", None)
    text = ComparedCase(name="", comparison=compare_groups(groups)).seeds_text
    assert "base 1; ours 2" in text and "base and ours share no seed: their requests differ." in text


def test_the_same_seeds_in_another_order_are_the_same(group: Any) -> None:
    groups = group("base", {1: 4, 2: 4}), group("ours", {2: 3, 1: 3})
    assert ComparedCase(name="", comparison=compare_groups(groups)).seeds_text.startswith("Means over 2 seeds;")


def test_a_base_with_a_zero_among_its_seeds_has_a_change_without_an_interval(group: Any) -> None:
    second = gpu_hours(group("base", {1: 0, 2: 4}), group("ours", {1: 1, 2: 2}))[1]
    assert (second.change, second.interval) == ("-25.0 %", "")


def test_a_change_is_over_the_seeds_that_both_have(group: Any) -> None:
    second = gpu_hours(group("base", {1: 4, 2: 100}), group("ours", {1: 2, 9: 1}))[1]
    assert (second.value, second.change) == (1.5, "-50.0 %")


def test_a_group_with_a_run_that_was_cut_short_is_not_compared(group: Any) -> None:
    second = gpu_hours(group("base", {1: 4}), group("ours", {1: 3}, status="interrupted"))[1]
    assert (second.text, second.change) == ("3.00", "")


def test_an_interval_holds_the_change_and_narrows_with_more_seeds() -> None:
    draws = np.random.default_rng(1)
    widths = []
    for seeds in (5, 500):
        base = 10 + draws.standard_normal(seeds)
        ours = base * 0.8 + draws.standard_normal(seeds)
        interval = change_interval(ours, base, lambda a, b: a / b - 1, paired=True)
        assert interval is not None
        low, high = interval
        assert low < ours.mean() / base.mean() - 1 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_an_interval_is_the_same_every_time() -> None:
    ours, base = np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0, 3.5])
    found = {change_interval(ours, base, np.subtract, paired=False) for _ in range(2)}
    assert len(found) == 1

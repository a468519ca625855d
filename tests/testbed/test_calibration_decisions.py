"""Decisions of two runs side by side: by their time, with the first difference told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.calibration_decisions import decision_agreement
from results.run_folder import PolicyFolder

Static = Callable[..., PolicyFolder]


@pytest.fixture
def static(small_scenario: Any, run_policy: Any, tmp_path: Path) -> Static:
    """Run `static` for 50 s with so many servers in each pool, deciding so often."""

    def run(name: str, servers: int, interval_s: int = 5) -> PolicyFolder:
        policies = f"policies={{static: {{servers_per_pool: {servers}, interval_s: {interval_s}}}}}"
        experiment = small_scenario.experiment("workload.synthetic.horizon_h=6", policies)
        folder: PolicyFolder = run_policy(experiment, "static", tmp_path / name)
        return folder

    return run


def test_a_run_agrees_with_itself(static: Static) -> None:
    run = static("one", 1)
    agreement = decision_agreement(run, run)
    assert agreement.real == agreement.matched == agreement.same > 5
    assert (agreement.unmatched, agreement.largest_gap, agreement.first) == (0, 0, ())


def test_policies_that_want_other_numbers_differ_from_the_first_decision_on_at_every_placement(static: Static) -> None:
    agreement = decision_agreement(static("one", 1), static("two", 3))
    assert agreement.same == agreement.same_counts == 0
    assert agreement.largest_gap == 2
    assert [(one.placement, one.real_count, one.emulated_count) for one in agreement.first] == [
        ("a@east/h100", 1, 3),
        ("a@west/h100", 1, 3),
    ]
    assert agreement.first[0].at_s == 0.0
    assert "1 ready" in agreement.first[0].real_saw
    assert "3 servers to keep" in agreement.first[0].emulated_because


def test_a_decision_without_one_of_the_other_within_half_an_interval_is_counted_and_not_compared(
    static: Static,
) -> None:
    often, seldom = static("often", 1), static("seldom", 1, interval_s=10)
    agreement = decision_agreement(often, seldom)
    assert agreement.matched == agreement.emulated < agreement.real
    assert agreement.unmatched == agreement.real - agreement.emulated

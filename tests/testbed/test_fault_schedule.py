"""Faults are drawn before the run, from its seed alone."""

from itertools import pairwise

import pytest
from pydantic import ValidationError

from testbed.fault import FaultKind
from testbed.fault_parts import FaultConfig, RecoveryConfig
from testbed.fault_schedule import fault_schedule

DAY_S = 86_400.0


def test_faults_come_in_order_and_the_same_seed_gives_the_same() -> None:
    configs = [FaultConfig(kind=FaultKind.KILL, per_h=5.0), FaultConfig(kind=FaultKind.HANG, at_s=100.0, servers=3)]
    struck = fault_schedule(configs, DAY_S, seed=3)
    assert struck == fault_schedule(configs, DAY_S, seed=3)
    assert struck != fault_schedule(configs, DAY_S, seed=4)
    assert all(one.at_s <= other.at_s for one, other in pairwise(struck))
    assert [fault.at_s for fault in struck if fault.kind is FaultKind.HANG] == [100.0] * 3
    assert all(0.0 <= fault.draw < 1.0 and 0.0 <= fault.at_s <= DAY_S for fault in struck)


def test_a_rate_gives_that_many_faults_on_the_average() -> None:
    config = [FaultConfig(kind=FaultKind.KILL, per_h=2.0)]
    counts = [len(fault_schedule(config, DAY_S, seed)) for seed in range(200)]
    assert sum(counts) / len(counts) == pytest.approx(48, rel=0.05)
    assert len(set(counts)) > 10


def test_one_more_kind_of_fault_leaves_the_others_when_they_were() -> None:
    kill, slow = FaultConfig(kind=FaultKind.KILL, per_h=2.0), FaultConfig(kind=FaultKind.SLOW, per_h=1.0, factor=3.0)
    alone = fault_schedule([kill], DAY_S, seed=1)
    together = fault_schedule([kill, slow], DAY_S, seed=1)
    assert tuple(fault for fault in together if fault.kind is FaultKind.KILL) == alone


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "kill"}, "exactly one of at_s and per_h"),
        ({"kind": "kill", "at_s": 1.0, "per_h": 1.0}, "exactly one of at_s and per_h"),
        ({"kind": "slow", "at_s": 1.0}, "factor"),
        ({"kind": "kill", "at_s": 1.0, "factor": 2.0}, "factor"),
        ({"kind": "kill", "at_s": 1.0, "for_s": 2.0}, "for_s"),
        ({"kind": "slow", "at_s": 1.0, "factor": 1.0}, "greater than 1"),
        ({"kind": "hang", "at_s": float("nan")}, "at_s"),
        ({"kind": "explode", "at_s": 1.0}, "'kill', 'hang', 'slow' or 'fail_start'"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        FaultConfig.model_validate(given)


def test_restarts_wait_twice_as_long_each_time_up_to_the_longest_and_end() -> None:
    recovery = RecoveryConfig(restart_after_s=10.0, restart_after_at_most_s=60.0, give_up_after=5)
    assert [recovery.restart_s(failures) for failures in range(1, 8)] == [10.0, 20.0, 40.0, 60.0, 60.0, None, None]
    assert RecoveryConfig(give_up_after=0).restart_s(1) is None
    with pytest.raises(ValidationError, match="swap them"):
        RecoveryConfig(restart_after_s=10.0, restart_after_at_most_s=5.0)

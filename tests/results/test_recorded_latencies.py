"""The definitions on columns against those on single completions."""

import math

import numpy as np
import pytest

from results.metrics import latencies, percentiles, slo_met
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from workloads.completion import Outcome
from workloads.request import Tier
from workloads.slo import Slo

SLOS = {
    Tier.IW_F: Slo(ttft_s=1.0, tpot_s=0.1),
    Tier.IW_N: Slo(ttft_s=3.0),
    Tier.NIW: Slo(deadline_s=10.0),
}


@pytest.fixture
def recorded(policy_path, completion):
    rng = np.random.default_rng(5)
    made = []
    for index in range(400):
        first = None if rng.random() < 0.1 else float(rng.choice([0.5, 1.0, 3.0, rng.uniform(0, 5)]))
        made.append(
            completion(
                index,
                tier=list(Tier)[index % 3],
                arrival_s=float(rng.integers(0, 100)),
                first=first,
                last=float((first or 0) + rng.choice([0.4, 9.0, rng.uniform(0, 12)])),
                output_tokens=int(rng.choice([1, 2, 5, 50])),
                late=float(rng.uniform(0, 0.1)),
                outcome=list(Outcome)[0 if rng.random() < 0.8 else int(rng.integers(1, 3))],
            )
        )
    with RunRecorder(policy_path) as recorder:
        for one in made:
            recorder.completion(one)
    return made, PolicyFolder(name="reactive", path=policy_path).completions()


@pytest.mark.parametrize("name", ["ttft_s", "tpot_s", "e2e_s"])
def test_a_latency_on_columns_is_the_completions_own(recorded, name):
    made, frame = recorded
    expected = [math.nan if getattr(one, name) is None else getattr(one, name) for one in made]
    np.testing.assert_array_equal(getattr(latencies(frame), name), expected)


def test_meeting_an_slo_on_columns_is_what_the_slo_says_of_each_completion(recorded):
    made, frame = recorded
    expected = [SLOS[one.request.tier].met_by(one) for one in made]
    assert slo_met(frame, latencies(frame), SLOS).tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_percentiles_leave_out_what_is_not_there_and_interpolate():
    # Of 0..10 the p-th percentile is p / 10 by linear interpolation.
    values = np.array([np.nan, *range(10, -1, -1), np.nan], dtype=np.float64)
    of = percentiles(values)
    assert (of.n, of.mean) == (11, 5.0)
    assert [of.p50, of.p75, of.p90, of.p95, of.p99] == pytest.approx([5.0, 7.5, 9.0, 9.5, 9.9])


def test_percentiles_of_nothing_are_none():
    of = percentiles(np.array([np.nan]))
    assert of.n == 0
    assert of.p50 is None and of.mean is None

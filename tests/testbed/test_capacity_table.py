"""Capacity follows the lengths that are asked for: when they have moved, and not before."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capacities import capacities, load_profiles
from testbed.capacity_table import CapacityTable
from testbed.demand_meter import DemandMeter
from testbed.length_meter import LengthMeter
from testbed.offered_load import LengthMix
from testbed.scenario import Scenario
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import SAGESERVE_SLOS

MIX = LengthMix(
    prompt_mean=1000.0, prompt_cv=1.0, output_mean=200.0, output_cv=1.0, tiers=frozenset({Tier.IW_N, Tier.NIW})
)
LLAMA = ("llama", "h100")


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.model_validate(
        {
            "name": "two models",
            "seed": 1,
            "models": {
                "llama": {"profiles": {"h100": "llama-3.1-8b-h100", "a100": "llama-3.1-8b-a100-80gb"}},
                "bloom": {"profiles": {"h100": "bloom-176b-h100-tp8"}, "tensor_parallel_size": 8},
            },
            "regions": {"west": {"gpus": {"h100": 32, "a100": 8}}},
            "workload": {"trace": "none.parquet"},
            "policies": {"reactive": {}},
        }
    )


def table(scenario: Scenario) -> CapacityTable:
    profiles = load_profiles(scenario)
    mix = {"llama": MIX, "bloom": MIX}
    return CapacityTable(scenario, profiles, capacities(scenario, profiles, mix), mix)


def moved(**changes: Any) -> LengthMix:
    return dataclasses.replace(MIX, **changes)


def test_the_limits_hold_both_parts_of_a_capacity_at_the_utilisation_planned_for(scenario: Scenario) -> None:
    capacity = table(scenario).limits({}).capacity[LLAMA]
    assert capacity.prefill_tokens_per_s is not None and capacity.decode_tokens_per_s is not None
    rate = capacity.theta_tokens_per_s / 1200
    servers = rate * 1000 / capacity.prefill_tokens_per_s + rate * 200 / capacity.decode_tokens_per_s
    assert servers == pytest.approx(1.0)


def test_nothing_is_computed_anew_until_a_mean_has_moved_by_a_tenth(scenario: Scenario) -> None:
    capacity = table(scenario)
    before = capacity.limits({})
    assert capacity.limits({"llama": moved(prompt_mean=1090.0, output_mean=185.0)}) is before
    after = capacity.limits({"llama": moved(prompt_mean=1500.0)})
    assert after is not before
    assert after.capacity[LLAMA] != before.capacity[LLAMA]
    assert after.capacity["llama", "a100"] != before.capacity["llama", "a100"]
    assert after.capacity["bloom", "h100"] == before.capacity["bloom", "h100"]
    assert capacity.limits({"llama": moved(prompt_mean=1500.0)}) is after


def test_small_movements_add_up(scenario: Scenario) -> None:
    capacity = table(scenario)
    before = capacity.limits({})
    for mean in range(1000, 1400, 30):
        after = capacity.limits({"llama": moved(prompt_mean=float(mean))})
    assert after.capacity[LLAMA] != before.capacity[LLAMA]


def test_a_stricter_tier_that_appears_lowers_theta_and_stays_known(scenario: Scenario) -> None:
    capacity = table(scenario)
    without = table(scenario).limits({"llama": moved(prompt_mean=4000.0)}).capacity[LLAMA].theta_tokens_per_s
    strict = capacity.limits({"llama": moved(prompt_mean=4000.0, tiers=frozenset({Tier.IW_F}))}).capacity[LLAMA]
    assert strict.theta_tokens_per_s < 0.95 * without
    capacity.limits({"llama": moved(prompt_mean=2000.0, tiers=frozenset({Tier.NIW}))})
    silent = capacity.limits({"llama": moved(prompt_mean=4000.0, tiers=frozenset({Tier.NIW}))}).capacity[LLAMA]
    assert silent == strict


def test_a_mix_that_a_server_cannot_serve_at_all_keeps_the_capacity_and_says_why(scenario: Scenario) -> None:
    capacity = table(scenario)
    before = capacity.limits({})
    longer = moved(prompt_mean=1900.0, tiers=frozenset({Tier.IW_F}))
    after = capacity.limits({"bloom": longer})
    assert after.capacity["bloom", "h100"] == before.capacity["bloom", "h100"]
    assert "max_model_len=2048" in capacity.kept_because["bloom", "h100"]
    capacity.limits({"bloom": moved(prompt_mean=500.0)})
    assert capacity.kept_because == {}


def test_the_same_mixes_in_the_same_order_give_the_same_limits(scenario: Scenario) -> None:
    mixes = [moved(prompt_mean=m, output_mean=o) for m, o in ((1200.0, 180.0), (800.0, 300.0), (2000.0, 90.0))]
    one, other = table(scenario), table(scenario)
    assert [one.limits({"llama": m}) for m in mixes] == [other.limits({"llama": m}) for m in mixes]


def test_models_that_have_not_been_seen_are_left_as_they_are(scenario: Scenario) -> None:
    capacity = table(scenario)
    assert capacity.limits({"ghost": MIX}) is capacity.limits({})


# The lengths themselves.


def request(prompt: int, output: int, tier: Tier = Tier.IW_F) -> Request:
    return Request(
        request_id="r", arrival_s=0.0, model="m", region="west", tier=tier, prompt_tokens=prompt, output_tokens=output
    )


def ended(asked: Request, outcome: Outcome = Outcome.COMPLETED) -> Completion:
    return Completion(
        request=asked,
        server_id="s",
        region="west",
        sent_s=0.0,
        first_token_s=None,
        last_token_s=1.0,
        output_tokens=asked.output_tokens,
        outcome=outcome,
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 2_000)), min_size=2, max_size=50))
def test_means_and_spreads_are_those_of_the_requests(lengths: list[tuple[int, int]]) -> None:
    meter = LengthMeter(["m"], bin_s=60.0, window_s=600.0)
    for index, (prompt, output) in enumerate(lengths):
        if index and index % 10 == 0:
            meter.go_to(index // 10)
        meter.arrived(request(prompt, output))
        meter.ended(ended(request(prompt, output)))
    meter.go_to(6)
    mix = meter.mix(least_requests=1)["m"]
    prompts, outputs = np.array(lengths, dtype=float).T
    assert mix.prompt_mean == pytest.approx(prompts.mean())
    assert mix.prompt_cv == pytest.approx(prompts.std() / prompts.mean(), abs=1e-6)
    assert mix.output_mean == pytest.approx(outputs.mean())
    assert mix.output_cv == pytest.approx(outputs.std() / outputs.mean(), abs=1e-6)


def test_only_whole_bins_within_the_window_count() -> None:
    meter = LengthMeter(["m"], bin_s=60.0, window_s=180.0)
    for at_bin in range(6):
        meter.arrived(request(100 * (at_bin + 1), 10))
        meter.ended(ended(request(1, 10)))
        if at_bin == 5:
            assert meter.mix(least_requests=1)["m"].prompt_mean == pytest.approx(400.0)  # bins 2, 3, 4
        meter.go_to(at_bin + 1)
    assert meter.mix(least_requests=1)["m"].prompt_mean == pytest.approx(500.0)
    meter.go_to(60)
    assert meter.mix(least_requests=1) == {}


def test_a_tier_counts_from_the_end_of_its_first_bin_and_for_good() -> None:
    meter = LengthMeter(["m"], bin_s=60.0, window_s=240.0)
    for at_bin, tier in enumerate([Tier.NIW, Tier.IW_F, Tier.NIW, Tier.NIW]):
        meter.arrived(request(10, 10, tier))
        meter.ended(ended(request(10, 10, tier)))
        if at_bin == 1:
            assert meter.mix(least_requests=1)["m"].tiers == {Tier.NIW}
        meter.go_to(at_bin + 1)
    meter.go_to(9)
    meter.arrived(request(10, 10, Tier.NIW))
    meter.ended(ended(request(10, 10, Tier.NIW)))
    meter.go_to(10)
    assert meter.mix(least_requests=1)["m"].tiers == {Tier.NIW, Tier.IW_F}


def test_the_demand_meter_tells_the_mix_of_what_has_passed() -> None:
    meter = DemandMeter(
        [("m", "west")], bin_s=60.0, interactive_before={}, output_before={}, niw_before={}, slos=SAGESERVE_SLOS
    )
    for index in range(200):
        asked = request(1000 + index % 2, 50)
        meter.arrived(asked, 0.1 * index)
        meter.ended(ended(asked, Outcome.COMPLETED if index % 4 else Outcome.FAILED), 0.1 * index)
    assert meter.mix(59.0) == {}
    mix = meter.mix(60.0, least_requests=100)["m"]
    assert (mix.prompt_mean, mix.output_mean, mix.output_cv) == (pytest.approx(1000.5), 50.0, 0.0)
    assert meter.mix(60.0, least_requests=151) == {}

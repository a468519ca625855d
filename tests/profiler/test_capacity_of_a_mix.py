"""Capacity taken apart into prompts and outputs: exact at its mix, near around it, and how wrong far away."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analytical import analytical_profile
from profiler.capacity import theta_tokens_per_s
from profiler.gpu_types import A100_80GB, H100
from profiler.mix_capacity import MixCapacity, mix_capacity
from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, LLAMA_3_1_8B
from profiler.profile import ServerProfile

SMALL = analytical_profile(LLAMA_3_1_8B, H100, 1)
SMALL_ON_A100 = analytical_profile(LLAMA_3_1_8B, A100_80GB, 1)
LARGE = analytical_profile(LLAMA_2_70B, H100, 4)
BLOOM = analytical_profile(BLOOM_176B, H100, 8)
MIXES = [(1500, 220, 1.0), (1500, 220, 60.0), (300, 600, 60.0), (800, 200, 1.0)]


def needed(split: MixCapacity, profile: ServerProfile, prompt: float, output: float, ttft_s: float) -> float:
    """Servers that the split says for a load that one server just sustains: 1 where it is right."""
    rate = theta_tokens_per_s(profile, prompt, output, ttft_s).requests_per_s
    return split.servers(rate * prompt, rate * output)


@pytest.mark.parametrize("profile", [SMALL, LARGE, BLOOM], ids=["8b", "70b", "176b"])
@pytest.mark.parametrize(("prompt", "output", "ttft_s"), MIXES)
def test_at_the_mix_itself_the_load_of_theta_takes_one_server(
    profile: ServerProfile, prompt: float, output: float, ttft_s: float
) -> None:
    split = mix_capacity(profile, prompt, output, ttft_s)
    assert needed(split, profile, prompt, output, ttft_s) == pytest.approx(1.0, rel=1e-9)
    assert split.theta == theta_tokens_per_s(profile, prompt, output, ttft_s)


@settings(max_examples=15, deadline=None)
@given(
    prompt=st.floats(1, 3000),
    output=st.floats(1, 600),
    ttft_s=st.sampled_from([1.0, 60.0, None]),
    cv=st.sampled_from([0.0, 0.7, 1.5]),
)
def test_both_parts_are_positive_and_finite_wherever_theta_is(
    prompt: float, output: float, ttft_s: float | None, cv: float
) -> None:
    split = mix_capacity(SMALL, prompt, output, ttft_s, prompt_cv=cv, output_cv=cv)
    assert 0 < split.prefill_tokens_per_s < float("inf")
    assert 0 < split.decode_tokens_per_s < float("inf")
    low, high = sorted((split.prefill_tokens_per_s, split.decode_tokens_per_s))
    assert low <= split.theta.theta_tokens_per_s * (1 + 1e-9) <= high * (1 + 1e-6)


@pytest.mark.parametrize(("prompt", "output", "ttft_s"), MIXES)
def test_more_load_of_either_kind_takes_more_servers(prompt: float, output: float, ttft_s: float) -> None:
    split = mix_capacity(LARGE, prompt, output, ttft_s)
    loads = [split.servers(p, o) for p, o in ((0, 0), (1000, 0), (1000, 500), (2000, 500))]
    assert loads == sorted(loads)
    assert loads[0] == 0 < loads[1] < loads[2] < loads[3]


def test_an_output_token_takes_more_of_a_server_than_a_prompt_token_where_decoding_binds() -> None:
    split = mix_capacity(SMALL, 300, 600, 60.0)
    assert split.decode_tokens_per_s < split.prefill_tokens_per_s


def test_a_stricter_slo_never_raises_what_the_mix_takes() -> None:
    strict, loose = (mix_capacity(LARGE, 1500, 220, ttft_s).servers(1500, 220) for ttft_s in (1.0, 60.0))
    assert strict > loose


def test_a_slower_gpu_takes_more_servers_for_the_same_load() -> None:
    fast, slow = (mix_capacity(profile, 1500, 220, 60.0) for profile in (SMALL, SMALL_ON_A100))
    assert slow.servers(10_000, 2_000) > fast.servers(10_000, 2_000)


@pytest.mark.parametrize("profile", [SMALL, LARGE], ids=["8b", "70b"])
@pytest.mark.parametrize(("prompt", "output", "ttft_s"), MIXES)
def test_a_tenth_away_from_the_mix_it_is_a_tenth_wrong_at_most(
    profile: ServerProfile, prompt: float, output: float, ttft_s: float
) -> None:
    split = mix_capacity(profile, prompt, output, ttft_s)
    for by_prompt, by_output in product((0.9, 1.0, 1.1), repeat=2):
        assert needed(split, profile, prompt * by_prompt, output * by_output, ttft_s) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("prompt", "output"), [(1500, 220), (300, 600)])
def test_twice_away_from_the_mix_it_is_a_third_wrong_at_most_where_throughput_binds(prompt: int, output: int) -> None:
    """Where the time to the first token binds, twice as long prompts are out of reach of any line: up to two thirds."""
    split = mix_capacity(SMALL, prompt, output, 60.0)
    for by_prompt, by_output in product((0.5, 1.0, 2.0), repeat=2):
        assert needed(split, SMALL, prompt * by_prompt, output * by_output, 60.0) == pytest.approx(1.0, abs=1 / 3)


@pytest.mark.parametrize(("prompt", "output"), [(1500, 220), (300, 600), (800, 200)])
def test_where_prompts_halve_and_answers_double_two_parts_are_nearer_than_one_number(prompt: int, output: int) -> None:
    split = mix_capacity(SMALL, prompt, output, 60.0)
    true = theta_tokens_per_s(SMALL, prompt / 2, output * 2, 60.0)
    by_one_number = true.theta_tokens_per_s / split.theta.theta_tokens_per_s
    by_two_parts = needed(split, SMALL, prompt / 2, output * 2, 60.0)
    assert abs(by_two_parts - 1) < abs(by_one_number - 1)


def test_a_mix_next_to_what_the_slo_allows_has_one_sided_slopes() -> None:
    with pytest.raises(ValueError, match="max_model_len=4096"):
        theta_tokens_per_s(LARGE, 3890 * 1.05, 200, 60.0)
    split = mix_capacity(LARGE, 3890, 200, 60.0)
    assert needed(split, LARGE, 3890, 200, 60.0) == pytest.approx(1.0)
    assert needed(split, LARGE, 3700, 200, 60.0) == pytest.approx(1.0, abs=0.05)


def test_a_mix_that_misses_the_slo_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="exceed ttft even on an idle server"):
        mix_capacity(LARGE, 3500, 200, 0.1)

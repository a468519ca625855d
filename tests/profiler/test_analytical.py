from pathlib import Path

import pytest

import profiler
from profiler.analytical import Assumptions, analytical_profile, bundled_analytical_profiles
from profiler.gpu_types import A100_80GB, GPU_TYPES, H100, H200, gpu_type
from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, LLAMA_3_1_8B, LLAMA_3_2_3B
from profiler.profile import ServerProfile

BUNDLED = Path(profiler.__file__).parent / "profiles"


@pytest.mark.parametrize("profile", bundled_analytical_profiles(), ids=lambda profile: profile.name)
def test_a_bundled_analytical_profile_is_what_the_code_computes(profile: ServerProfile, tmp_path: Path) -> None:
    profile.save(tmp_path / "again.json")
    assert (BUNDLED / f"{profile.name}.json").read_text() == (tmp_path / "again.json").read_text()


@pytest.mark.parametrize("profile", bundled_analytical_profiles(), ids=lambda profile: profile.name)
def test_an_analytical_profile_says_so_and_names_its_assumptions(profile: ServerProfile) -> None:
    assert profile.kind == "analytical"
    assert profile.provenance.n == 0
    assert len(profile.provenance.assumptions) >= 8
    assert profile.samples is None


def test_an_idle_decode_step_lies_between_the_bandwidth_limit_and_twice_that() -> None:
    step_s = analytical_profile(LLAMA_3_1_8B, H100, 1).step_time.step_s(0, 0, 1, 1000)
    reading_16_gb_at_peak_s = 15.0e9 / 3.35e12
    assert reading_16_gb_at_peak_s < step_s < 2 * reading_16_gb_at_peak_s


def test_a_newer_gpu_is_never_slower_and_bandwidth_shows_in_decode_only() -> None:
    a100, h100, h200 = (analytical_profile(LLAMA_3_1_8B, gpu, 1).step_time for gpu in (A100_80GB, H100, H200))
    assert a100.step_s(0, 0, 16, 30_000) > h100.step_s(0, 0, 16, 30_000) > h200.step_s(0, 0, 16, 30_000)
    assert a100.step_s(8192, 0, 0, 0) > h100.step_s(8192, 0, 0, 0) == pytest.approx(h200.step_s(8192, 0, 0, 0))


def test_more_gpus_are_faster_but_less_than_in_proportion() -> None:
    two, four = (analytical_profile(LLAMA_2_70B, H100, gpus).step_time for gpus in (2, 4))
    for batch in ((0, 0, 32, 60_000), (8192, 8192 * 1024, 0, 0)):
        assert two.step_s(*batch) / 2 < four.step_s(*batch) < two.step_s(*batch)


def test_kv_cache_and_weights_fit_the_memory_that_vllm_may_use() -> None:
    for profile, shape in (
        (analytical_profile(LLAMA_2_70B, H100, 4), LLAMA_2_70B),
        (analytical_profile(BLOOM_176B, A100_80GB, 8), BLOOM_176B),
    ):
        used = profile.kv_cache.max_tokens * shape.kv_bytes_per_token() + shape.weight_bytes()
        allowed = profile.gpu.count * GPU_TYPES[profile.gpu.type].memory_bytes * 0.9
        assert 0.85 * allowed < used < allowed


def test_a_model_too_large_for_its_gpus_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match="take more GPUs"):
        analytical_profile(LLAMA_2_70B, A100_80GB, 1)


def test_heads_that_do_not_split_over_the_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="must divide"):
        analytical_profile(LLAMA_3_2_3B, H100, 5)


def test_large_models_take_minutes_to_start_and_small_ones_about_one() -> None:
    starts = {p.name: p.lifecycle for p in bundled_analytical_profiles()}
    for name, low_s, high_s in (("llama-3.2-3b-h100", 45, 90), ("llama-2-70b-h100-tp4", 150, 400)):
        cold_s, warm_s = starts[name].cold_start_s, starts[name].warm_start_s
        assert cold_s is not None and warm_s is not None
        assert low_s < cold_s < high_s
        assert warm_s < cold_s


def test_an_assumption_that_is_changed_shows_in_the_numbers_and_in_the_words() -> None:
    default = analytical_profile(LLAMA_3_1_8B, H100, 1)
    slower = analytical_profile(LLAMA_3_1_8B, H100, 1, assume=Assumptions(memory_efficiency=0.375))
    beyond_launch_s = [profile.step_time.step_s(0, 0, 1, 0) - 1e-3 for profile in (default, slower)]
    assert beyond_launch_s[1] == pytest.approx(2 * beyond_launch_s[0], rel=0.01)
    assert slower.provenance.assumptions != default.provenance.assumptions


def test_an_unknown_gpu_type_gets_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="h100"):
        gpu_type("h1000")

import numpy as np
import pytest

from profiler.fit import fit_step_time
from profiler.profile import StepSample
from profiler.step_time import StepTimeModel, prefill_pairs

TRUTH = StepTimeModel(
    overhead_s=1.2e-3,
    weights_s=6.0e-3,
    per_token_s=3.0e-5,
    per_sequence_s=1.5e-5,
    per_kv_token_s=6e-8,
    per_prefill_pair_s=2e-9,
)
REQUEST_OVERHEAD_S = 4e-3
NAMES = ("overhead_s", "weights_s", "per_token_s", "per_sequence_s", "per_kv_token_s", "per_prefill_pair_s")


def samples(noise: float, repeats: int, seed: int = 0, budget: int = 8192) -> list[StepSample]:
    rng = np.random.default_rng(seed)
    made = []
    for repeat in range(repeats):
        for length in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384):
            steps = -(-length // budget)
            chunk, pairs = length / steps, prefill_pairs(length) / steps
            seconds = steps * TRUTH.step_s(chunk, pairs, 0, 0) + REQUEST_OVERHEAD_S
            made.append(
                StepSample(
                    kind="prefill",
                    point=f"prefill {length}",
                    repeat=repeat,
                    prefill_tokens=chunk,
                    prefill_pairs=pairs,
                    decode_seqs=0,
                    kv_tokens=0,
                    steps=steps,
                    observed_s=seconds * (1 + noise * rng.standard_normal()),
                )
            )
        for seqs in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            for context in (64, 512, 2048):
                kv = seqs * (context + 20.0)
                made.append(
                    StepSample(
                        kind="decode",
                        point=f"decode {seqs} x {context}",
                        repeat=repeat,
                        prefill_tokens=0,
                        prefill_pairs=0,
                        decode_seqs=seqs,
                        kv_tokens=kv,
                        steps=32,
                        observed_s=32 * TRUTH.step_s(0, 0, seqs, kv) * (1 + noise * rng.standard_normal()),
                    )
                )
    return made


def test_the_fit_recovers_known_coefficients() -> None:
    fit = fit_step_time(samples(noise=0.0, repeats=1))
    for name in NAMES:
        assert getattr(fit.step_time, name) == pytest.approx(getattr(TRUTH, name), rel=0.02), name
    assert fit.request_overhead_s == pytest.approx(REQUEST_OVERHEAD_S, rel=0.02)
    assert fit.quality.max_ape < 1e-3


def test_noise_of_two_percent_leaves_predictions_within_two_percent() -> None:
    fit = fit_step_time(samples(noise=0.02, repeats=5))
    for batch in ((0, 0, 1, 500), (0, 0, 200, 200_000), (2048, 2048 * 1024, 0, 0), (512, 512 * 256, 64, 64_000)):
        assert fit.step_time.step_s(*batch) == pytest.approx(TRUTH.step_s(*batch), rel=0.02)
    assert 0 < fit.quality.mape < 0.02


def test_a_disturbed_repeat_does_not_bend_the_fit() -> None:
    clean = samples(noise=0.0, repeats=3)
    disturbed = [
        sample.model_copy(update={"observed_s": sample.observed_s * 5}) if sample.repeat == 1 else sample
        for sample in clean
    ]
    assert fit_step_time(disturbed).step_time == fit_step_time(clean).step_time


def test_points_that_stay_disturbed_pull_the_fit_less_than_their_share() -> None:
    worse = [
        sample.model_copy(update={"observed_s": sample.observed_s * 1.6})
        if sample.point == "decode 8 x 512"
        else sample
        for sample in samples(noise=0.0, repeats=3)
    ]
    fit = fit_step_time(worse)
    assert fit.step_time.step_s(0, 0, 8, 8 * 532) == pytest.approx(TRUTH.step_s(0, 0, 8, 8 * 532), rel=0.03)
    assert fit.quality.max_ape > 0.3


def test_no_coefficient_comes_out_negative_from_noise() -> None:
    fit = fit_step_time(samples(noise=0.3, repeats=1, seed=3))
    assert all(getattr(fit.step_time, name) >= 0 for name in NAMES)


def test_the_domain_is_what_the_samples_covered() -> None:
    domain = fit_step_time(samples(noise=0.0, repeats=1)).domain
    assert domain.prefill_tokens == (0, 8192)
    assert domain.decode_seqs == (0, 256)
    assert domain.kv_tokens == (0, 256 * 2068)


def test_repeats_count_as_one_point() -> None:
    quality = fit_step_time(samples(noise=0.01, repeats=4)).quality
    assert (quality.n_points, quality.n_samples) == (38, 152)


def test_too_few_points_are_refused() -> None:
    only_decode = [sample for sample in samples(noise=0.0, repeats=1) if sample.kind == "decode"]
    with pytest.raises(ValueError, match="0 prefill and 27 decode points"):
        fit_step_time(only_decode)

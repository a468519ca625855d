from dataclasses import replace

import numpy as np
import pytest

from profiler.fit import fit_step_time
from profiler.profile_parts import StepSample
from profiler.step_time import StepTimeModel, prefill_pairs

TRUTH = StepTimeModel.roofline(
    overhead_s=1.2e-3,
    weights_s=6.0e-3,
    per_token_s=3.0e-5,
    per_sequence_s=1.5e-5,
    per_kv_token_s=6e-8,
    per_prefill_pair_s=2e-9,
)
REQUEST_OVERHEAD_S = 4e-3


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
    for name in ("overhead_s", "per_sequence_s", "per_kv_token_s", "per_prefill_pair_s"):
        assert getattr(fit.step_time, name) == pytest.approx(getattr(TRUTH, name), rel=0.02), name
    ((from_tokens, per_token_s),) = fit.step_time.slopes
    assert (from_tokens, per_token_s) == (pytest.approx(200, rel=0.02), pytest.approx(3e-5, rel=0.02))
    assert fit.request_overhead_s == pytest.approx(REQUEST_OVERHEAD_S, rel=0.02)
    assert fit.quality.residuals.max_ape < 1e-3


def test_noise_of_two_percent_leaves_predictions_within_two_percent() -> None:
    fit = fit_step_time(samples(noise=0.02, repeats=5))
    for batch in ((0, 0, 1, 500), (0, 0, 200, 200_000), (2048, 2048 * 1024, 0, 0), (512, 512 * 256, 64, 64_000)):
        assert fit.step_time.step_s(*batch) == pytest.approx(TRUTH.step_s(*batch), rel=0.02)
    assert 0 < fit.quality.residuals.mape < 0.02


def test_a_disturbed_repeat_does_not_bend_the_fit() -> None:
    clean = samples(noise=0.0, repeats=3)
    disturbed = [
        sample.model_copy(update={"observed_s": sample.observed_s * 5}) if sample.repeat == 1 else sample
        for sample in clean
    ]
    for batch in ((0, 0, 8, 4000), (4096, 4096 * 2048, 0, 0)):
        assert fit_step_time(disturbed).step_time.step_s(*batch) == pytest.approx(
            fit_step_time(clean).step_time.step_s(*batch), rel=1e-6
        )


def test_points_that_stay_disturbed_pull_the_fit_less_than_their_share() -> None:
    worse = [
        sample.model_copy(update={"observed_s": sample.observed_s * 1.6})
        if sample.point == "decode 8 x 512"
        else sample
        for sample in samples(noise=0.0, repeats=3)
    ]
    fit = fit_step_time(worse)
    assert fit.step_time.step_s(0, 0, 8, 8 * 532) == pytest.approx(TRUTH.step_s(0, 0, 8, 8 * 532), rel=0.03)
    assert fit.quality.residuals.max_ape > 0.3


def test_no_coefficient_comes_out_negative_from_noise() -> None:
    fit = fit_step_time(samples(noise=0.3, repeats=1, seed=3))
    tokens = [fit.step_time.step_s(n, 0, 0, 0) for n in (1, 10, 100, 1000, 10_000)]
    widths = [fit.step_time.step_s(0, 0, n, 100 * n) for n in (1, 10, 100, 256)]
    assert tokens == sorted(tokens)
    assert widths == sorted(widths)


def test_the_domain_is_what_the_samples_covered() -> None:
    domain = fit_step_time(samples(noise=0.0, repeats=1)).domain
    assert domain.prefill_tokens == (0, 8192)
    assert domain.decode_seqs == (0, 256)
    assert domain.kv_tokens == (0, 256 * 2068)


def test_repeats_count_as_one_point() -> None:
    quality = fit_step_time(samples(noise=0.01, repeats=4)).quality
    assert (quality.residuals.n, quality.n_samples) == (38, 152)


def test_what_is_held_out_judges_the_fit_and_has_no_part_in_it() -> None:
    clean = samples(noise=0.0, repeats=2)
    wrong = [
        sample.model_copy(update={"point": "decode 5 x 99", "observed_s": sample.observed_s * 2, "held_out": True})
        for sample in clean
        if sample.point == "decode 4 x 64"
    ]
    fit = fit_step_time(clean + wrong)
    assert fit.quality.held_out is not None
    assert (fit.quality.held_out.n, round(fit.quality.held_out.mape, 3)) == (1, 0.5)
    assert fit.step_time == fit_step_time(clean).step_time


def test_the_error_of_leaving_a_point_out_shows_where_a_bend_is_known_from_that_point_alone() -> None:
    sparse = [
        sample
        for sample in samples(noise=0.0, repeats=1)
        if sample.kind == "decode" or sample.point in ("prefill 16", "prefill 64", "prefill 512", "prefill 16384")
    ]
    errors = fit_step_time(sparse).leave_one_out
    assert max(errors, key=lambda name: abs(errors[name])) in ("prefill 512", "prefill 16384", "decode 256 x 64")


def test_regions_together_hold_every_point() -> None:
    quality = fit_step_time(samples(noise=0.01, repeats=3)).quality
    assert sum(errors.n for errors in quality.regions.values()) == quality.residuals.n
    assert any(name.startswith("prefill, 16-") for name in quality.regions)


def test_mixed_samples_tell_the_overhead_of_a_prompt_from_that_of_its_request() -> None:
    truth = replace(TRUTH, prefill_overhead_s=2e-3)
    made = []
    for sample in samples(noise=0.0, repeats=1):
        extra_s = sample.steps * 2e-3 if sample.kind == "prefill" else 0.0
        made.append(sample.model_copy(update={"observed_s": sample.observed_s + extra_s}))
    for prompt in (64, 1024, 8000):
        pairs = prefill_pairs(prompt)
        made.append(
            StepSample(
                kind="mixed",
                point=f"mixed {prompt} beside 4 x 64",
                repeat=0,
                prefill_tokens=prompt,
                prefill_pairs=pairs,
                decode_seqs=4,
                kv_tokens=400,
                steps=1,
                observed_s=truth.step_s(prompt, pairs, 4, 400),
            )
        )
    fit = fit_step_time(made)
    assert fit.step_time.prefill_overhead_s == pytest.approx(2e-3, rel=0.05)
    assert fit.request_overhead_s == pytest.approx(REQUEST_OVERHEAD_S, rel=0.05)


def test_too_few_points_are_refused() -> None:
    only_decode = [sample for sample in samples(noise=0.0, repeats=1) if sample.kind == "decode"]
    with pytest.raises(ValueError, match="0 prefill and 27 decode points"):
        fit_step_time(only_decode)

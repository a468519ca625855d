from collections.abc import Callable
from typing import Any

import pytest

from profiler.fit import fit_step_time
from profiler.iterations import Iterations
from profiler.layers import extend_samples, extended_kv_cache, extension_errors
from profiler.plan import MeasurementPlan
from profiler.points import step_point
from profiler.profile_parts import KvCache, StepSample
from profiler.session import Session
from profiler.step_time import StepTimeModel

PLAN = MeasurementPlan(budget_s=3600, most_points=26, held_out=4)


def of_layers(layers: int) -> StepTimeModel:
    """A model of 32 layers at full size: 1 ms for embedding and head, the rest in the layers."""
    part = layers / 32
    return StepTimeModel(
        overhead_s=1e-3 + 9e-3 * part,
        slopes=((150, 3e-5 * part),),
        per_sequence_s=1e-5,
        per_kv_token_s=6e-8 * part,
        per_prefill_pair_s=2e-9 * part,
    )


@pytest.fixture
def samples_of(on_emulated: Callable[..., Any]) -> Callable[..., tuple[StepSample, ...]]:
    def measure(layers: int, points: tuple[str, ...] = ()) -> tuple[StepSample, ...]:
        async def work(target: Any, session: Session) -> tuple[StepSample, ...]:
            iterations = Iterations(session)
            if points:
                await iterations.measure_points([step_point(name) for name in points])
            else:
                await iterations.measure()
            return tuple(iterations.samples)

        samples: tuple[StepSample, ...] = on_emulated(work, plan=PLAN, step_time=of_layers(layers), journal=str(layers))
        return samples

    return measure


def test_two_cut_copies_predict_the_whole_model_within_5_percent(samples_of: Callable[..., Any]) -> None:
    more = samples_of(8)
    points = tuple(dict.fromkeys(sample.point for sample in more))
    fewer, whole = samples_of(4, points), samples_of(32, points)
    extended = extend_samples(fewer, more, 4, 8, 32)
    assert extension_errors(extended, whole).mape < 0.05
    fit, truth = fit_step_time(extended), of_layers(32)
    for batch in ((0, 0, 1, 500), (0, 0, 64, 60_000), (2048, 2048 * 1024, 0, 0)):
        assert fit.step_time.step_s(*batch) == pytest.approx(truth.step_s(*batch), rel=0.05)


def a_sample(observed_s: float, repeat: int = 0) -> StepSample:
    return StepSample(
        kind="decode",
        point="decode 1 x 64",
        repeat=repeat,
        prefill_tokens=0,
        prefill_pairs=0,
        decode_seqs=1,
        kv_tokens=80,
        steps=10,
        observed_s=observed_s,
    )


def test_a_point_is_extended_along_the_line_through_both_counts() -> None:
    (extended,) = extend_samples([a_sample(0.2)], [a_sample(0.3)], 4, 8, 16)
    assert extended.observed_s == pytest.approx(0.5)


def test_repeats_with_other_numbers_of_iterations_are_compared_by_the_iteration() -> None:
    twice_as_long = replace_steps(a_sample(0.4), 20)
    (extended,) = extend_samples([twice_as_long], [a_sample(0.3)], 4, 8, 16)
    assert extended.observed_s == pytest.approx(0.5)


def replace_steps(sample: StepSample, steps: int) -> StepSample:
    return sample.model_copy(update={"steps": steps})


def test_fewer_layers_that_look_slower_are_noise_and_the_line_is_level() -> None:
    (extended,) = extend_samples([a_sample(0.4)], [a_sample(0.3)], 4, 8, 16)
    assert extended.observed_s == pytest.approx(0.3)


@pytest.mark.parametrize(("fewer", "more"), [(8, 8), (8, 4), (0, 4), (4, 40)])
def test_layer_counts_that_make_no_line_are_refused(fewer: int, more: int) -> None:
    with pytest.raises(ValueError, match="give two different counts"):
        extend_samples([a_sample(0.2)], [a_sample(0.3)], fewer, more, 32)


def test_the_kv_cache_of_the_whole_pays_for_the_weights_of_the_other_layers() -> None:
    cut = KvCache(num_gpu_blocks=1000, block_size=16, max_tokens=16_000)
    whole, note = extended_kv_cache(cut, 4, 8, weight_bytes_per_layer=16_000, kv_bytes_per_token_and_layer=10)
    assert whole.max_tokens == (16_000 * 4 * 10 - 4 * 16_000) // (10 * 8 * 16) * 16
    assert "leave of the same memory" in note


def test_a_model_that_does_not_fit_keeps_the_bytes_of_its_cache_and_says_so() -> None:
    cut = KvCache(num_gpu_blocks=1000, block_size=16, max_tokens=16_000)
    whole, note = extended_kv_cache(cut, 4, 8, weight_bytes_per_layer=10**9, kv_bytes_per_token_and_layer=10)
    assert whole.num_gpu_blocks == 500
    assert "do not fit" in note

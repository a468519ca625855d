import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.step_time import StepTimeModel, prefill_pairs

A_GPU = StepTimeModel.roofline(
    overhead_s=0.001,
    weights_s=0.010,
    per_token_s=2e-5,
    per_sequence_s=1e-5,
    per_kv_token_s=5e-8,
    per_prefill_pair_s=1e-9,
)

seconds = st.floats(0, 0.1)
models = st.builds(
    StepTimeModel.roofline,
    overhead_s=st.floats(1e-5, 0.1),
    weights_s=seconds,
    per_token_s=st.floats(0, 1e-3),
    per_sequence_s=st.floats(0, 1e-3),
    per_kv_token_s=st.floats(0, 1e-5),
    per_prefill_pair_s=st.floats(0, 1e-7),
)


def test_a_small_batch_costs_reading_the_weights_and_a_large_one_computing() -> None:
    assert A_GPU.step_s(0, 0, 1, 0) == pytest.approx(0.01101)
    assert A_GPU.step_s(100, 0, 0, 0) == pytest.approx(0.011)
    assert A_GPU.step_s(1000, 0, 0, 0) == pytest.approx(0.021)


def test_attention_costs_by_kv_token_and_by_pair() -> None:
    idle = A_GPU.step_s(0, 0, 0, 0)
    assert A_GPU.step_s(0, 0, 0, 100_000) - idle == pytest.approx(0.005)
    assert A_GPU.step_s(0, 2_000_000, 0, 0) - idle == pytest.approx(0.002)


@given(models, st.integers(1, 512), st.floats(0, 1e6), st.integers(0, 300))
def test_a_decode_run_is_the_sum_of_its_steps(model: StepTimeModel, seqs: int, kv: float, steps: int) -> None:
    walked = math.fsum(model.step_s(0, 0, seqs, kv + i * seqs) for i in range(steps))
    assert model.decode_run_s(seqs, kv, steps) == pytest.approx(walked, rel=1e-9, abs=1e-12)


@given(models, st.integers(1, 512), st.floats(0, 1e6), st.floats(0, 1e4))
def test_steps_within_a_time_are_the_fewest_that_fill_it(
    model: StepTimeModel, seqs: int, kv: float, time_s: float
) -> None:
    steps = model.decode_steps_within(seqs, kv, time_s)
    assert model.decode_run_s(seqs, kv, steps) >= time_s
    assert steps == 0 or model.decode_run_s(seqs, kv, steps - 1) < time_s


@given(models, st.integers(1, 512), st.floats(0, 1e6), st.integers(1, 100_000))
def test_a_run_of_n_steps_holds_n_steps(model: StepTimeModel, seqs: int, kv: float, steps: int) -> None:
    assert model.decode_steps_within(seqs, kv, model.decode_run_s(seqs, kv, steps)) == steps


def test_no_time_holds_no_step_and_a_moment_holds_one() -> None:
    assert A_GPU.decode_steps_within(4, 1000, 0.0) == 0
    assert A_GPU.decode_steps_within(4, 1000, 1e-9) == 1


def test_the_shortest_time_holds_one_step_though_only_kv_tokens_cost() -> None:
    model = StepTimeModel(overhead_s=1e-5, slopes=(), per_sequence_s=0, per_kv_token_s=1e-5, per_prefill_pair_s=0)
    assert model.decode_steps_within(3, 0.0, 1e-308) == 1


def test_a_model_in_which_nothing_takes_time_is_refused_when_asked_for_steps() -> None:
    nothing = StepTimeModel.roofline(
        overhead_s=0, weights_s=0, per_token_s=0, per_sequence_s=0, per_kv_token_s=0, per_prefill_pair_s=0
    )
    with pytest.raises(ValueError, match="in no time"):
        nothing.decode_steps_within(1, 0, 1.0)


@pytest.mark.parametrize("value", [-1e-9, math.inf, math.nan])
def test_a_coefficient_must_be_finite_and_not_negative(value: float) -> None:
    with pytest.raises(ValueError, match="per_kv_token_s"):
        StepTimeModel(overhead_s=0, slopes=(), per_sequence_s=0, per_kv_token_s=value, per_prefill_pair_s=0)
    with pytest.raises(ValueError, match=r"slopes\[0\]"):
        StepTimeModel(overhead_s=0, slopes=((0, value),), per_sequence_s=0, per_kv_token_s=0, per_prefill_pair_s=0)


def test_slopes_begin_at_more_and_more_tokens() -> None:
    with pytest.raises(ValueError, match="each must begin at more tokens"):
        StepTimeModel(
            overhead_s=0, slopes=((8, 1e-3), (8, 1e-3)), per_sequence_s=0, per_kv_token_s=0, per_prefill_pair_s=0
        )


def test_slopes_add_up_where_they_overlap() -> None:
    bent = StepTimeModel(
        overhead_s=1, slopes=((10, 0.1), (20, 0.2)), per_sequence_s=0, per_kv_token_s=0, per_prefill_pair_s=0
    )
    assert [bent.step_s(tokens, 0, 0, 0) for tokens in (5, 20, 30)] == pytest.approx([1, 2, 5])


def test_an_iteration_with_a_prompt_in_it_pays_for_that_once() -> None:
    model = replace(A_GPU, prefill_overhead_s=0.5)
    assert model.step_s(1, 0, 7, 0) - model.step_s(0, 0, 8, 0) == pytest.approx(0.5, abs=1e-4)
    assert model.step_s(0, 0, 8, 0) == A_GPU.step_s(0, 0, 8, 0)


@given(st.lists(st.integers(1, 8192), min_size=1, max_size=6))
def test_cutting_a_prompt_into_chunks_keeps_its_pairs(chunks: list[int]) -> None:
    context, pairs = 0, 0.0
    for chunk in chunks:
        pairs += prefill_pairs(chunk, context)
        context += chunk
    assert pairs == pytest.approx(sum(chunks) ** 2 / 2)

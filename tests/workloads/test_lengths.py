"""Lengths of prompts and outputs follow their tables and fit the context."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from workloads.lengths import QuantileTable, at_quantiles, clipped, mean_total_tokens
from workloads.model_workload import BUILT_IN_MODELS

TABLE = ((0.0, 10), (0.5, 100), (0.8, 400), (0.9, 400), (1.0, 1600))


def test_a_table_is_met_at_its_points():
    assert at_quantiles(TABLE, np.array([0.0, 0.5, 0.8, 0.85, 0.9, 1.0])).tolist() == [10, 100, 400, 400, 400, 1600]


def test_between_two_points_the_logarithm_is_linear():
    # Half-way between 400 and 1600 lies their geometric mean.
    assert at_quantiles(TABLE, np.array([0.95])).tolist() == [800]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2))
def test_lengths_never_fall_with_the_quantile_and_stay_within_the_table(quantiles):
    lengths = at_quantiles(TABLE, np.sort(quantiles))
    assert (np.diff(lengths) >= 0).all()
    assert lengths.min() >= 10
    assert lengths.max() <= 1600


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 100_000), st.integers(1, 100_000)), min_size=1),
    st.integers(2, 50_000),
)
def test_what_is_clipped_fits_and_what_fits_is_not_clipped(pairs, max_model_len):
    prompt, output = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    short_prompt, short_output, cut = clipped(prompt, output, max_model_len)
    assert (short_prompt + short_output <= max_model_len).all()
    assert (short_prompt >= 1).all()
    assert (short_output >= 1).all()
    assert (cut == (prompt.astype(np.int64) + output > max_model_len)).all()
    assert (short_prompt[~cut] == prompt[~cut]).all()
    assert (short_output[~cut] == output[~cut]).all()


def test_the_prompt_gives_way_to_the_output():
    prompt, output, _ = clipped(np.array([3000], dtype=np.int32), np.array([500], dtype=np.int32), 2048)
    assert (prompt.tolist(), output.tolist()) == ([1548], [500])


def test_the_expected_length_is_the_mean_of_many_draws():
    model = BUILT_IN_MODELS["bloom-176b"]
    draws = np.random.default_rng(6).random((200_000, 2))
    prompt, output, _ = clipped(
        at_quantiles(model.prompt_tokens, draws[:, 0]), at_quantiles(model.output_tokens, draws[:, 1]), 2048
    )
    expected = mean_total_tokens(model.prompt_tokens, model.output_tokens, 2048)
    assert expected == pytest.approx((prompt + output).mean(), rel=0.01)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (((0.1, 5), (1.0, 9)), "must begin at 0"),
        (((0.0, 5), (0.9, 9)), "end at 1"),
        (((0.0, 5), (0.5, 7), (0.5, 8), (1.0, 9)), "must rise"),
        (((0.0, 5), (1.0, 4)), "never fall"),
        (((0.0, 0), (1.0, 4)), "at least 1"),
    ],
)
def test_a_table_that_is_no_distribution_is_refused(table, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(QuantileTable).validate_python(table)


@pytest.mark.parametrize("name", BUILT_IN_MODELS)
def test_built_in_models_are_as_long_as_production_requests(name):
    model = BUILT_IN_MODELS[name]
    p50, p90, p98 = at_quantiles(model.prompt_tokens, np.array([0.5, 0.9, 0.98]))
    assert 3400 <= p50 <= 5600
    assert 9000 <= p90 <= 16000
    assert 11000 <= p98 <= 35000
    o50, o90, o99 = at_quantiles(model.output_tokens, np.array([0.5, 0.9, 0.99]))
    assert 60 <= o50 <= 140
    assert 170 <= o90 <= 840
    assert o99 <= 2000

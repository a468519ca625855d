import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.grid import first_grid, random_points
from profiler.points import (
    DecodePoint,
    MixedPoint,
    PrefillPoint,
    ServerLimits,
    StepPoint,
    in_whole_chunks,
    step_point,
)

A_GPU = ServerLimits(max_num_seqs=256, max_num_batched_tokens=8192, max_model_len=131_072, kv_tokens=900_000)
servers = st.builds(
    ServerLimits,
    max_num_seqs=st.integers(1, 512),
    max_num_batched_tokens=st.integers(64, 16_384),
    max_model_len=st.integers(128, 131_072),
    kv_tokens=st.integers(256, 2_000_000),
)


@given(servers)
def test_whatever_the_server_every_point_of_the_first_grid_fits_it(limits: ServerLimits) -> None:
    assert all(point.fits(limits) for point in first_grid(limits))


@given(servers, st.integers(0, 100))
def test_random_points_fit_and_differ(limits: ServerLimits, seed: int) -> None:
    points = random_points(limits, 8, np.random.default_rng(seed))
    assert all(point.fits(limits) for point in points)
    assert len(set(points)) == len(points) <= 8


@given(servers)
def test_a_name_gives_its_point_back(limits: ServerLimits) -> None:
    points = first_grid(limits)
    assert tuple(step_point(str(point)) for point in points) == points


def test_the_first_grid_reaches_every_corner_and_is_small() -> None:
    points = first_grid(A_GPU)
    decode = [point for point in points if isinstance(point, DecodePoint)]
    prompts = [point.prompt_tokens for point in points if isinstance(point, PrefillPoint)]
    assert len(points) <= 28
    assert {1, 17, 256} <= {point.decode_seqs for point in decode}
    assert max(point.decode_seqs * point.context_tokens for point in decode) > 0.75 * A_GPU.kv_tokens
    assert min(prompts) == 16
    assert max(prompts) == 16_384


def test_no_point_goes_beyond_the_longest_prompt_asked_for() -> None:
    rng = np.random.default_rng(0)
    for point in (*first_grid(A_GPU, 2048), *random_points(A_GPU, 30, rng, 2048)):
        longest = point.context_tokens if isinstance(point, DecodePoint) else point.prompt_tokens
        assert longest <= 2048


def test_more_sequences_than_the_server_runs_never_fit() -> None:
    assert not DecodePoint(decode_seqs=257, context_tokens=1).fits(A_GPU)
    narrow = ServerLimits(max_num_seqs=512, max_num_batched_tokens=64, max_model_len=4096, kv_tokens=900_000)
    assert not DecodePoint(decode_seqs=65, context_tokens=1).fits(narrow)


@pytest.mark.parametrize(
    ("point", "tokens", "steps"),
    [
        (PrefillPoint(prompt_tokens=5000), 5000, 1),
        (PrefillPoint(prompt_tokens=20_000), 16_384, 2),
        (MixedPoint(prompt_tokens=20_000, decode_seqs=192, context_tokens=64), 16_000, 2),
    ],
)
def test_a_prompt_that_takes_several_iterations_fills_them_all(point: StepPoint, tokens: int, steps: int) -> None:
    whole = in_whole_chunks(point, A_GPU)
    assert not isinstance(whole, DecodePoint)
    assert (whole.prompt_tokens, whole.steps(A_GPU)) == (tokens, steps)


def test_a_text_that_is_no_point_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="'decode 8' is no point; as in 'prefill 512'"):
        step_point("decode 8")

import numpy as np
import pytest

from profiler.points import DecodePoint, MixedPoint, ServerLimits
from profiler.sampling import decode_sample, mixed_sample
from profiler.target import MeasurementError

DECODE = DecodePoint(decode_seqs=2, context_tokens=100)
LIMITS = ServerLimits(max_num_seqs=8, max_num_batched_tokens=101, max_model_len=4096, kv_tokens=60_000)


def test_the_steady_window_leaves_out_what_ran_before_the_last_sequence_began() -> None:
    early = np.concatenate([np.arange(10) * 0.5, 5.0 + np.arange(32) * 0.01])
    late = 4.995 + np.arange(42) * 0.01
    sample = decode_sample(np.array([early, late]), DECODE, 0)
    assert sample.observed_s / sample.steps == pytest.approx(0.01)


def test_tokens_that_arrive_in_chunks_give_the_pace_of_single_ones() -> None:
    single = 1.0 + np.arange(42) * 0.01
    chunked = np.ceil(np.arange(42) / 4) * 0.04 + 1.0
    sample = decode_sample(np.array([single, chunked]), DECODE, 0)
    assert sample.observed_s / sample.steps == pytest.approx(0.01, rel=0.02)


def test_the_kv_tokens_of_a_window_are_prompt_and_progress_of_all_sequences() -> None:
    row = 1.0 + np.arange(42) * 0.01
    sample = decode_sample(np.array([row, row]), DECODE, 0)
    assert 2 * (100 + 20) < sample.kv_tokens < 2 * (100 + 24)


def test_sequences_that_never_ran_together_are_refused() -> None:
    row = np.arange(42) * 0.01
    with pytest.raises(MeasurementError, match="ran together for 0 tokens"):
        decode_sample(np.array([row, row + 10]), DECODE, 0)


def with_long_gaps(at: tuple[int, ...], gap_s: float) -> np.ndarray:
    """40 tokens 0.01 s apart, with longer gaps before those in `at`."""
    gaps = np.full(40, 0.01)
    gaps[list(at)] = gap_s
    return 1.0 + np.cumsum(gaps)


def test_a_prompt_that_passes_by_is_seen_in_the_gaps_before_its_first_token() -> None:
    point = MixedPoint(prompt_tokens=200, decode_seqs=1, context_tokens=64)
    assert point.steps(LIMITS) == 2
    row = with_long_gaps((10, 11, 20, 21), 0.05)
    passing = [(row[9] - 0.001, row[11] + 0.0004), (row[19] - 0.002, row[21] - 0.0004)]
    sample = mixed_sample([row], passing, point, LIMITS, 3)
    assert (sample.kind, sample.steps, sample.repeat) == ("mixed", 2, 3)
    assert sample.observed_s == pytest.approx(0.1)
    assert (sample.prefill_tokens, sample.decode_seqs) == (100, 1)
    assert 64 + 10 <= sample.kv_tokens <= 64 + 20


def test_a_prompt_that_came_after_its_sequences_had_ended_does_not_count() -> None:
    point = MixedPoint(prompt_tokens=50, decode_seqs=1, context_tokens=64)
    row = with_long_gaps((), 0.01)
    with pytest.raises(MeasurementError, match="no prompt passed"):
        mixed_sample([row], [(row[-1] + 0.1, row[-1] + 0.2)], point, LIMITS, 0)

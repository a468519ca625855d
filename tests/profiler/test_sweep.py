import pytest

from profiler.sweep import ClosedLoop, DecodePoint, PrefillPoint, ServerLimits, Sweep

LIMITS = ServerLimits(max_num_seqs=32, max_num_batched_tokens=2048, max_model_len=2048, kv_tokens=20_000)


def test_no_point_exceeds_the_server() -> None:
    points = Sweep().points(LIMITS)
    for point in points.steps:
        if isinstance(point, DecodePoint):
            assert point.decode_seqs <= 32
            assert point.context_tokens + point.output_tokens <= 2048
            assert point.decode_seqs * (point.context_tokens + point.output_tokens) <= 20_000
        else:
            assert point.prompt_tokens < 2048
    assert all(loop.concurrency * (loop.prompt_tokens + loop.output_tokens) <= 20_000 for loop in points.loops)


def test_the_longest_prompt_and_the_fullest_cache_are_among_the_points() -> None:
    points = Sweep().points(LIMITS).steps
    assert PrefillPoint(prompt_tokens=2047) in points
    fullest = max(p.decode_seqs * (p.context_tokens + p.output_tokens) for p in points if isinstance(p, DecodePoint))
    assert fullest > 0.9 * 20_000


def test_points_have_different_names() -> None:
    points = Sweep().points(LIMITS).steps
    assert len({str(point) for point in points}) == len(points)


def test_a_server_too_small_for_the_closed_loop_gets_none() -> None:
    tiny = ServerLimits(max_num_seqs=4, max_num_batched_tokens=256, max_model_len=256, kv_tokens=1024)
    assert Sweep().points(tiny).loops == ()
    assert ClosedLoop(concurrency=1, prompt_tokens=512, output_tokens=128, requests=12) in Sweep().points(LIMITS).loops


def test_fewer_than_three_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        Sweep(repeats=2)

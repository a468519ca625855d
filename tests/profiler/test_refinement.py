import math

from profiler.points import DecodePoint, PrefillPoint, ServerLimits
from profiler.refinement import MOST_REPEATS, Measured, next_points

LIMITS = ServerLimits(max_num_seqs=256, max_num_batched_tokens=8192, max_model_len=32_768, kv_tokens=900_000)


def prefill(tokens: int, error: float = 0.001, noise: float = 0.0, repeats: int = 3) -> Measured:
    return Measured(point=PrefillPoint(prompt_tokens=tokens), error=error, noise=noise, repeats=repeats)


def test_the_next_point_lies_between_the_worst_and_its_neighbour() -> None:
    (point,) = next_points([prefill(16), prefill(256, error=0.2), prefill(4096, error=0.1)], LIMITS, 1, room=9)
    assert isinstance(point, PrefillPoint)
    assert 256 < point.prompt_tokens < 4096


def test_a_point_whose_repeats_explain_its_error_is_measured_again() -> None:
    worst = prefill(256, error=-0.2, noise=0.15)
    assert next_points([prefill(16), worst, prefill(4096)], LIMITS, 1, room=9) == (worst.point,)


def test_enough_repeats_are_enough() -> None:
    worst = prefill(256, error=0.2, noise=0.15, repeats=MOST_REPEATS)
    (point,) = next_points([prefill(16), worst, prefill(4096)], LIMITS, 1, room=9)
    assert point != worst.point


def test_a_single_repeat_says_nothing_about_noise_so_it_is_repeated() -> None:
    worst = prefill(256, error=0.2, noise=math.nan, repeats=1)
    assert next_points([prefill(16), worst], LIMITS, 1, room=9) == (worst.point,)


def test_points_of_other_kinds_are_no_neighbours() -> None:
    alone = Measured(point=DecodePoint(decode_seqs=4, context_tokens=64), error=0.5, noise=0, repeats=3)
    points = next_points([prefill(16), prefill(4096), alone], LIMITS, 3, room=9)
    assert all(isinstance(point, PrefillPoint) for point in points)


def test_where_neighbours_are_close_already_there_is_nothing_to_measure() -> None:
    assert next_points([prefill(100, error=0.3), prefill(110, error=0.3)], LIMITS, 4, room=9) == ()


def test_no_more_points_come_than_asked_for_and_none_twice() -> None:
    measured = [prefill(16 * 4**i, error=0.1 * (i + 1)) for i in range(5)]
    points = next_points(measured, LIMITS, 3, room=9)
    assert len(points) == len(set(points)) == 3


def test_without_room_for_new_points_the_worst_ones_are_repeated() -> None:
    measured = [prefill(16, error=0.1), prefill(256, error=0.3), prefill(4096, error=0.2)]
    assert next_points(measured, LIMITS, 2, room=0) == (measured[1].point, measured[2].point)
    assert len([p for p in next_points(measured, LIMITS, 3, room=1) if p not in {m.point for m in measured}]) == 1

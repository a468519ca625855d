"""Where to measure next: where the fit to all other points is most wrong. Pure.

A point whose own repeats scatter by as much as the fit misses it is measured again; elsewhere a new point goes between
it and the neighbour across which the error is largest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from profiler.points import DecodePoint, MixedPoint, PrefillPoint, ServerLimits, StepPoint, in_whole_chunks

# Beyond this many repeats the median hardly moves.
MOST_REPEATS = 9
# The noise explains an error of up to this many standard errors of the median.
_EXPLAINED = 2.0
# Points closer than 15 % on every axis are the same.
_CLOSEST = math.log(1.15)
_NEIGHBOURS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A point of the fit: relative `error` (signed) by a fit to the others; `noise`: standard error of its median."""

    point: StepPoint
    error: float
    noise: float
    repeats: int


def next_points(measured: Sequence[Measured], limits: ServerLimits, count: int, room: int) -> tuple[StepPoint, ...]:
    """Up to `count` points to measure next, worst first; one that was measured already wants more repeats.

    No more than `room` are new. Empty when nothing is left that would tell more.
    """
    known = {m.point for m in measured}
    chosen: dict[StepPoint, None] = {}
    for worst in sorted(measured, key=lambda m: -abs(m.error)):
        if len(chosen) == count:
            break
        new = len(chosen.keys() - known)
        noisy = new >= room or math.isnan(worst.noise) or abs(worst.error) <= _EXPLAINED * worst.noise
        if noisy and worst.repeats < MOST_REPEATS:
            chosen[worst.point] = None
            continue
        if new >= room:
            continue
        between = _between(worst, measured, limits, known | set(chosen))
        if between is not None:
            chosen[between] = None
    return tuple(chosen)


def _between(
    worst: Measured, measured: Sequence[Measured], limits: ServerLimits, known: set[StepPoint]
) -> StepPoint | None:
    """A new point halfway from `worst` to one of its neighbours; None when all are too close or do not fit."""
    others = [m for m in measured if m.point != worst.point and type(m.point) is type(worst.point)]
    nearest = sorted(others, key=lambda m: _distance(m.point, worst.point))[: 2 * _NEIGHBOURS]

    def gain(other: Measured) -> float:
        return (abs(worst.error) + abs(other.error)) * _distance(other.point, worst.point)

    for other in sorted(nearest, key=gain, reverse=True):
        point = in_whole_chunks(_halfway(worst.point, other.point), limits)
        far_enough = all(_distance(point, there) >= _CLOSEST for there in known if type(there) is type(point))
        if far_enough and point.fits(limits):
            return point
    return None


def _axes(point: StepPoint) -> tuple[int, ...]:
    match point:
        case PrefillPoint():
            return (point.prompt_tokens,)
        case DecodePoint():
            return (point.decode_seqs, point.context_tokens)
        case MixedPoint():
            return (point.prompt_tokens, point.decode_seqs, point.context_tokens)


def _distance(one: StepPoint, other: StepPoint) -> float:
    """Largest difference of logarithms over the axes."""
    return max(abs(math.log(a / b)) for a, b in zip(_axes(one), _axes(other), strict=True))


def _halfway(one: StepPoint, other: StepPoint) -> StepPoint:
    """The geometric middle of two points of one kind."""
    middle = [round(math.sqrt(a * b)) for a, b in zip(_axes(one), _axes(other), strict=True)]
    match one:
        case PrefillPoint():
            return PrefillPoint(prompt_tokens=middle[0])
        case DecodePoint():
            return DecodePoint(decode_seqs=middle[0], context_tokens=middle[1])
        case MixedPoint():
            return MixedPoint(prompt_tokens=middle[0], decode_seqs=middle[1], context_tokens=middle[2])

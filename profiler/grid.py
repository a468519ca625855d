"""Which points to measure first, and which at random. Pure."""

import math
from collections.abc import Iterable

import numpy as np

from profiler.points import DecodePoint, MixedPoint, PrefillPoint, ServerLimits, StepPoint, in_whole_chunks

# A prompt beyond this costs seconds at every repeat; a profile that must reach further is asked for it.
LONGEST_PROMPT = 16_384
_SHORTEST = 16
_CONTEXTS = (64, 1024)


def first_grid(limits: ServerLimits, longest_prompt: int = LONGEST_PROMPT) -> tuple[StepPoint, ...]:
    """A coarse geometric grid with the corners of the domain: about 28 points, fewer where the server holds less.

    Widths are CUDA graph capture sizes (vLLM captures 1, 2, 4 and multiples of 8), one of them with its successor,
    which is padded to the next: what padding costs is in the profile.
    """
    longest = min(limits.longest_prompt, longest_prompt)
    budget = limits.max_num_batched_tokens
    widest = limits.widest
    widths = [n for n in _geometric(1, widest, 4) if n <= widest]
    found: list[StepPoint] = [PrefillPoint(prompt_tokens=n) for n in _geometric(_SHORTEST, longest, 4)]
    found += [DecodePoint(decode_seqs=n, context_tokens=context) for n in widths for context in _CONTEXTS]
    found.append(DecodePoint(decode_seqs=min(17, widest), context_tokens=_CONTEXTS[0]))
    found += [_fullest(n, limits, longest) for n in (1, _middle(widest), widest)]
    for prompt in (min(256, longest), min(budget // 2, longest), min(2 * budget, longest)):
        found.append(MixedPoint(prompt_tokens=prompt, decode_seqs=1, context_tokens=_SHORTEST))
    # What a server under load does most: a prompt of middling length beside many. With longer prompts alone, or fewer
    # sequences, a fit cannot tell what a prompt costs from what its request does.
    for prompt, seqs in ((1024, _middle(widest)), (256, _middle(widest)), (64, _middle(widest)), (256, widest // 2)):
        found.append(MixedPoint(prompt_tokens=min(prompt, longest), decode_seqs=seqs, context_tokens=_CONTEXTS[0]))
    return _unique(in_whole_chunks(point, limits) for point in found if point.fits(limits))


def random_points(
    limits: ServerLimits, count: int, rng: np.random.Generator, longest_prompt: int = LONGEST_PROMPT
) -> tuple[StepPoint, ...]:
    """`count` points drawn log-uniformly where `first_grid` reaches: half of them decode, three in ten prefill.

    Fewer when the server is so small that there are not as many.
    """
    longest = min(limits.longest_prompt, longest_prompt)

    def draw(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(max(low, high)))))

    found: tuple[StepPoint, ...] = ()
    for attempt in range(50 * count):
        point: StepPoint
        match attempt % 10:
            case 0 | 3 | 6:
                point = PrefillPoint(prompt_tokens=draw(_SHORTEST, longest))
            case 4 | 9:
                seqs = draw(1, _middle(limits.widest))
                point = MixedPoint(prompt_tokens=draw(64, longest), decode_seqs=seqs, context_tokens=_CONTEXTS[0])
            case _:
                seqs = draw(1, limits.widest)
                most = min(longest, limits.max_model_len, limits.kv_tokens // seqs)
                point = DecodePoint(decode_seqs=seqs, context_tokens=draw(_SHORTEST, max(_SHORTEST, most)))
        if point.fits(limits):
            found = _unique([*found, in_whole_chunks(point, limits)])
        if len(found) == count:
            break
    return found


def _geometric(first: int, last: int, factor: int) -> list[int]:
    """first, first x factor, ... and `last` itself."""
    row = []
    while first < last:
        row.append(first)
        first *= factor
    return [*row, last]


def _middle(widest: int) -> int:
    """A power of two near the geometric middle of 1 and `widest`."""
    return int(2 ** round(math.log2(widest) / 2)) if widest > 1 else 1


def _fullest(seqs: int, limits: ServerLimits, longest: int) -> DecodePoint:
    """`seqs` sequences with as much context as the server holds."""
    each = min(limits.max_model_len, int(limits.kv_tokens * 0.9) // seqs, longest)
    spent = DecodePoint(decode_seqs=seqs, context_tokens=each).output_tokens(limits)
    return DecodePoint(decode_seqs=seqs, context_tokens=max(1, each - spent))


def _unique(points: Iterable[StepPoint]) -> tuple[StepPoint, ...]:
    return tuple(dict.fromkeys(points))

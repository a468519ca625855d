"""Prompts share exactly what their traces say they share."""

import numpy as np
import pytest

from workloads.prompts import prompt_ids, prompt_of
from workloads.request import Request, Tier

VOCABULARY = 32_000


def prompt(request_id: int, n: int, *hashes: int) -> list[int]:
    ids: list[int] = prompt_ids(
        request_id, n, VOCABULARY, prefix_hashes=hashes, prefix_block_tokens=16 if hashes else 0
    ).tolist()
    return ids


def common(a: list[int], b: list[int]) -> int:
    """Tokens that two prompts have in common from their start."""
    differ = np.flatnonzero(np.array(a[: len(b)]) != np.array(b[: len(a)]))
    return int(differ[0]) if len(differ) else min(len(a), len(b))


def test_prompts_are_equal_as_far_as_their_hashes_are_and_no_further() -> None:
    a, b = prompt(1, 100, 7, 8, 9), prompt(2, 80, 7, 8, 10)
    assert (len(a), len(b)) == (100, 80)
    assert common(a, b) == 32


def test_what_follows_the_last_hash_is_the_requests_own() -> None:
    assert common(prompt(1, 100, 7), prompt(2, 100, 7)) == 16
    assert prompt(1, 100, 7) == prompt(1, 100, 7)


def test_a_last_block_that_the_prompt_does_not_fill_is_cut() -> None:
    short = prompt(1, 24, 7, 8)
    assert len(short) == 24
    assert common(short, prompt(2, 100, 7, 8)) == 24


def test_the_same_hash_after_another_block_is_the_same_block() -> None:
    assert prompt(1, 48, 7, 8)[16:32] == prompt(2, 48, 9, 8)[16:32]


def test_negative_hashes_are_hashes_too() -> None:
    assert common(prompt(1, 64, -7), prompt(2, 64, -7)) == 16
    assert common(prompt(1, 64, -7), prompt(1, 64, 7)) == 0


def test_a_request_without_hashes_shares_with_none() -> None:
    assert common(prompt(7, 64), prompt(1, 64, 7)) == 0


def test_hashes_without_a_block_size_are_refused() -> None:
    with pytest.raises(ValueError, match="prefix_block_tokens=0"):
        prompt_ids(1, 10, VOCABULARY, prefix_hashes=(1,))


def test_the_prompt_of_a_request_is_as_long_as_it_asks() -> None:
    request = Request(
        request_id=1,
        arrival_s=0.0,
        model="m",
        region="west",
        tier=Tier.IW_F,
        prompt_tokens=40,
        output_tokens=1,
        prefix_hashes=(7, 8),
        prefix_block_tokens=16,
    )
    assert prompt_of(request, VOCABULARY).tolist() == prompt(1, 40, 7, 8)

"""Prompts of random token ids: no two share a prefix, so no cache shortens what is measured."""

import numpy as np


def prompt_ids(request_id: int, n: int, vocab_size: int) -> list[int]:
    """`n` token ids of request `request_id`, the same at every call, uniform over the plain part of the vocabulary.

    The first and the last quarter, 256 ids at most, are left out: special tokens live there (an id outside the
    vocabulary would kill the engine). Raises ValueError for n < 1, a negative request_id or a vocabulary below 8.
    """
    if n < 1 or vocab_size < 8 or request_id < 0:
        raise ValueError(
            f"prompt_ids(request_id={request_id}, n={n}, vocab_size={vocab_size}): "
            "n must be at least 1, vocab_size at least 8, request_id 0 or more"
        )
    margin = min(256, vocab_size // 4)
    drawn: list[int] = np.random.default_rng(request_id).integers(margin, vocab_size - margin, n).tolist()
    return drawn

"""Prompts of random token ids: no two share a prefix, but for what a trace says that they share."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from workloads.request import Request

TokenIds = npt.NDArray[np.int64]

# For a model whose config is not at hand: none in common use has fewer tokens, and an id outside of the vocabulary
# could end the server.
SMALL_VOCABULARY = 32_000
# Seeds of shared blocks: apart from those of requests, which are one number.
_SHARED = 1


def prompt_ids(
    request_id: int, n: int, vocab_size: int, *, prefix_hashes: Sequence[int] = (), prefix_block_tokens: int = 0
) -> TokenIds:
    """`n` token ids of request `request_id`, shape (n,), the same at every call.

    Ids are uniform over the plain part of the vocabulary: the first and the last quarter, 256 ids at most, are left
    out, for special tokens live there (an id outside the vocabulary would kill the engine).

    The prompt begins with one block of `prefix_block_tokens` ids for each of `prefix_hashes`, as far as they fit: equal
    hashes give equal blocks, so prompts share what their traces say they share. All after it is the request's own.

    Raises ValueError for n < 1, a negative request_id, a vocabulary below 8 or hashes without a block size.
    """
    if n < 1 or vocab_size < 8 or request_id < 0:
        raise ValueError(
            f"prompt_ids(request_id={request_id}, n={n}, vocab_size={vocab_size}): "
            "n must be at least 1, vocab_size at least 8, request_id 0 or more"
        )
    if len(prefix_hashes) and prefix_block_tokens < 1:
        raise ValueError(
            f"prompt_ids: prefix_block_tokens={prefix_block_tokens}; hashes need blocks of 1 token or more"
        )
    if not len(prefix_hashes):
        return _drawn(np.random.default_rng(request_id), n, vocab_size)
    # A last block that the prompt does not fill is cut: its hash stands for its content all the same.
    blocks = [_block(int(hashed), prefix_block_tokens, vocab_size) for hashed in prefix_hashes]
    shared = np.concatenate(blocks)[:n]
    if len(shared) == n:
        return shared
    return np.concatenate((shared, _drawn(np.random.default_rng(request_id), n - len(shared), vocab_size)))


def prompt_of(request: Request, vocab_size: int) -> TokenIds:
    """The prompt of a request, as `prompt_ids` makes it."""
    return prompt_ids(
        request.request_id,
        request.prompt_tokens,
        vocab_size,
        prefix_hashes=request.prefix_hashes,
        prefix_block_tokens=request.prefix_block_tokens,
    )


# A few megabytes; the blocks of system prompts come again and again.
@lru_cache(maxsize=2048)
def _block(hashed: int, tokens: int, vocab_size: int) -> TokenIds:
    # A seed must not be negative, and an int64 hash may be.
    return _drawn(np.random.default_rng((hashed & (2**64 - 1), _SHARED)), tokens, vocab_size)


def _drawn(rng: np.random.Generator, n: int, vocab_size: int) -> TokenIds:
    margin = min(256, vocab_size // 4)
    return rng.integers(margin, vocab_size - margin, n)

"""Prompts of random token ids."""

import zlib

import numpy as np

# Ids that every vocabulary has, past the special ones at its beginning.
FIRST_TOKEN_ID, LAST_TOKEN_ID = 10, 1000

# How much longer than asked for a prompt may be: an eighth, and no more than so many tokens.
_EIGHTH, _MOST_MORE = 8, 32


class RandomPrompts:
    """`fresh` ones are never alike, so that no prefix cache answers them; `nonce` tells one use of a seed from another.

    `repeated` ones are the same for the same key: a server that caches prefixes need not prefill the context of a
    decode point again at each repeat, and decodes it all the same.
    """

    def __init__(self, seed: int, nonce: int) -> None:
        self._seed = seed
        self._rng = np.random.default_rng([seed, nonce])
        self._nonce = nonce
        self._count = 0

    def fresh(self, tokens: int) -> list[int]:
        """`tokens` ids, unlike any drawn before."""
        return _draw(self._rng, tokens)

    def about(self, tokens: int, most: int) -> int:
        """A number of tokens for a prompt: `tokens` or a little more, `most` at most, drawn anew at every call.

        A server may prepare something for every length that it meets (kernels for the shape of a matrix, of which it
        keeps some). A workload of many lengths pays for that; repeats of one length would not show it.
        """
        drawn = tokens + int(self._rng.integers(min(tokens // _EIGHTH, _MOST_MORE) + 1))
        return max(tokens, min(drawn, most))

    def repeated(self, tokens: int, key: str) -> list[int]:
        """`tokens` ids that depend on the seed and `key` alone."""
        return _draw(np.random.default_rng([self._seed, zlib.crc32(key.encode())]), tokens)

    def request_id(self) -> str:
        self._count += 1
        return f"profile-{self._nonce}-{self._count}"


def _draw(rng: np.random.Generator, tokens: int) -> list[int]:
    ids: list[int] = rng.integers(FIRST_TOKEN_ID, LAST_TOKEN_ID, size=tokens).tolist()
    return ids

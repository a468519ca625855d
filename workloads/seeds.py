"""Random streams by name: the same seed and name always give the same numbers, whatever else is drawn."""

import hashlib

import numpy as np


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The random stream that `names` stand for under `seed`.

    Streams of different names are independent, so that adding, changing or leaving out one leaves the others alone.
    Spawned SeedSequences would not do: their children are numbered, and a new one in the middle renumbers the rest.
    """
    key = "\x1f".join([str(seed), *(str(name) for name in names)])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))

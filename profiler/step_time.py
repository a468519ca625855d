"""How long one iteration of a server takes, as a function of what is in its batch.

Affine in the KV tokens read, for a fixed batch: a run of decode iterations sums in closed form, so an emulated server
jumps from one event to the next instead of walking through every iteration.
"""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar

from pydantic import ConfigDict

from profiler.iteration_times import DecodeTimes, IterationTimes, prefill_pairs

__all__ = ["DecodeTimes", "StepTimeModel", "prefill_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeModel:
    """Iteration latency in seconds; every coefficient is 0 or more.

    step_s = overhead_s + sum over slopes of per_token_s * max(0, tokens - from_tokens) + per_sequence_s * decode_seqs
             + per_kv_token_s * kv_tokens + per_prefill_pair_s * prefill_pairs
             + prefill_overhead_s if anything is prefilled;     tokens = prefill_tokens + decode_seqs

    `slopes` are pairs (from_tokens, per_token_s), ascending: what the matrices of the layers cost as a function of the
    tokens in the batch, convex and piecewise linear. A roofline (Williams, Waterman, Patterson, CACM 52(4), 2009) is
    one slope that begins where computing takes longer than reading the weights: see `roofline`. Attention is apart:
    its cost follows the KV tokens that decoding sequences read, and the query-key pairs of prefill chunks (see
    `prefill_pairs`). `prefill_overhead_s`: iterations that only decode replay a CUDA graph of the whole model, those
    with a prompt in them do not.

    A plain dataclass, not a pydantic model, for speed; pydantic validates it all the same as part of a profile.
    Raises ValueError for a negative or infinite coefficient, and for slopes that do not ascend.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    overhead_s: float
    slopes: tuple[tuple[float, float], ...]
    per_sequence_s: float
    per_kv_token_s: float
    per_prefill_pair_s: float
    prefill_overhead_s: float = 0.0

    def __post_init__(self) -> None:
        named = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "slopes"]
        named += [(f"slopes[{i}]", value) for i, slope in enumerate(self.slopes) for value in slope]
        for name, value in named:
            if not 0 <= value < math.inf:
                raise ValueError(f"step time {name}={value}; must be 0 or more, and finite")
        if any(later <= earlier for (earlier, _), (later, _) in pairwise(self.slopes)):
            raise ValueError(f"step time slopes={self.slopes}; each must begin at more tokens than the one before")

    @classmethod
    def roofline(
        cls,
        *,
        overhead_s: float,
        weights_s: float,
        per_token_s: float,
        per_sequence_s: float,
        per_kv_token_s: float,
        per_prefill_pair_s: float,
    ) -> "StepTimeModel":
        """overhead_s + max(weights_s, per_token_s * tokens) + the rest."""
        ridge_tokens = weights_s / per_token_s if per_token_s else math.inf
        return cls(
            overhead_s=overhead_s + weights_s,
            slopes=((ridge_tokens, per_token_s),) if ridge_tokens < math.inf else (),
            per_sequence_s=per_sequence_s,
            per_kv_token_s=per_kv_token_s,
            per_prefill_pair_s=per_prefill_pair_s,
        )

    def iterations(self) -> IterationTimes:
        """What tells the times of iterations with these coefficients, for whoever asks for many."""
        return IterationTimes(
            overhead_s=self.overhead_s,
            slopes=self.slopes,
            per_sequence_s=self.per_sequence_s,
            per_kv_token_s=self.per_kv_token_s,
            per_prefill_pair_s=self.per_prefill_pair_s,
            prefill_overhead_s=self.prefill_overhead_s,
        )

    def step_s(self, prefill_tokens: float, prefill_pairs: float, decode_seqs: float, kv_tokens: float) -> float:
        """One iteration that prefills `prefill_tokens` and decodes `decode_seqs` sequences reading `kv_tokens`."""
        return self.iterations().step_s(prefill_tokens, prefill_pairs, decode_seqs, kv_tokens)

    def decode_run_s(self, decode_seqs: int, kv_tokens: float, steps: int) -> float:
        """`steps` iterations that only decode; the first reads `kv_tokens`, each later one `decode_seqs` more."""
        return self.decoding(decode_seqs).run_s(kv_tokens, steps)

    def decode_steps_within(self, decode_seqs: int, kv_tokens: float, seconds: float) -> int:
        """The smallest number of decode iterations with `decode_run_s` >= `seconds`; 0 for no time.

        Raises ValueError when iterations take no time at all.
        """
        return self.decoding(decode_seqs).steps_within(kv_tokens, seconds)

    def decoding(self, decode_seqs: int) -> DecodeTimes:
        """The two above for a batch of this size, ready to be asked again and again."""
        return self.iterations().decoding(decode_seqs)

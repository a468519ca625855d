"""How long one iteration of a server takes, as a function of what is in its batch.

Affine in the KV tokens read, for a fixed batch: a run of decode iterations sums in closed form, so an emulated server
jumps from one event to the next instead of walking through every iteration.
"""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import ClassVar

from pydantic import ConfigDict


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

    def base_s(self, prefill_tokens: float, decode_seqs: float) -> float:
        """The part that does not depend on attention: launch, matrices, per-sequence work."""
        tokens = prefill_tokens + decode_seqs
        seconds = self.overhead_s + self.per_sequence_s * decode_seqs
        if prefill_tokens:
            seconds += self.prefill_overhead_s
        for from_tokens, per_token_s in self.slopes:
            if tokens <= from_tokens:
                break
            seconds += per_token_s * (tokens - from_tokens)
        return seconds

    def step_s(self, prefill_tokens: float, prefill_pairs: float, decode_seqs: float, kv_tokens: float) -> float:
        """One iteration that prefills `prefill_tokens` and decodes `decode_seqs` sequences reading `kv_tokens`."""
        return (
            self.base_s(prefill_tokens, decode_seqs)
            + self.per_kv_token_s * kv_tokens
            + self.per_prefill_pair_s * prefill_pairs
        )

    def decode_run_s(self, decode_seqs: int, kv_tokens: float, steps: int) -> float:
        """`steps` iterations that only decode; the first reads `kv_tokens`, each later one `decode_seqs` more."""
        return self.decoding(decode_seqs).run_s(kv_tokens, steps)

    def decode_steps_within(self, decode_seqs: int, kv_tokens: float, seconds: float) -> int:
        """The smallest number of decode iterations with `decode_run_s` >= `seconds`; 0 for no time.

        Raises ValueError when iterations take no time at all.
        """
        return self.decoding(decode_seqs).steps_within(kv_tokens, seconds)

    def decoding(self, decode_seqs: int) -> "DecodeTimes":
        """The two above for a batch of this size, ready to be asked again and again."""
        return DecodeTimes(
            decode_seqs,
            base_s=self.base_s(0, decode_seqs),
            per_kv_token_s=self.per_kv_token_s,
        )


class DecodeTimes:
    """Iterations of `decode_seqs` sequences that only decode: each reads one KV token per sequence more than the one
    before. The methods are those of StepTimeModel."""

    __slots__ = ("_base_s", "_growth_s", "_per_kv_token_s", "_seqs")

    def __init__(self, decode_seqs: int, *, base_s: float, per_kv_token_s: float) -> None:
        self._seqs = decode_seqs
        self._base_s = base_s
        self._per_kv_token_s = per_kv_token_s
        self._growth_s = per_kv_token_s * decode_seqs

    def run_s(self, kv_tokens: float, steps: int) -> float:
        first_s = self._base_s + self._per_kv_token_s * kv_tokens
        return steps * first_s + self._growth_s * (0.5 * steps * (steps - 1))

    def steps_within(self, kv_tokens: float, seconds: float) -> int:
        if seconds <= 0:
            return 0
        first_s = self._base_s + self._per_kv_token_s * kv_tokens
        growth_s = self._growth_s
        # growth/2 n^2 + (first - growth/2) n = seconds, solved in the form that does not cancel for a small growth.
        linear_s = first_s - 0.5 * growth_s
        root_s = linear_s + math.sqrt(linear_s * linear_s + 2.0 * growth_s * seconds)
        if not (first_s > 0 or growth_s > 0):
            raise ValueError(f"{self._seqs} sequences decode in no time with these coefficients; fit them again")
        # Rounding may leave nothing of a root that is next to 0: then the time is too short for a second iteration.
        steps = math.ceil(2.0 * seconds / root_s) if root_s > 0 else 1
        # The root is rounded; the sum itself decides on which side of a boundary `seconds` lies.
        while steps > 0 and self.run_s(kv_tokens, steps - 1) >= seconds:
            steps -= 1
        while self.run_s(kv_tokens, steps) < seconds:
            steps += 1
        return steps


def prefill_pairs(chunk_tokens: float, context_tokens: float = 0.0) -> float:
    """Query-key pairs of a prefill chunk that follows `context_tokens` of its prompt, under a causal mask.

    The pairs of a prompt's chunks add up to those of the whole prompt, however it is cut.
    """
    return chunk_tokens * (context_tokens + 0.5 * chunk_tokens)

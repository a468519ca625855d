"""The formulas of `profiler.step_time`, ready to be asked again and again."""

import math


class IterationTimes:
    """Of one server: see StepTimeModel, whose coefficients these are."""

    __slots__ = (
        "overhead_s",
        "per_kv_token_s",
        "per_prefill_pair_s",
        "per_sequence_s",
        "prefill_overhead_s",
        "slopes",
    )

    def __init__(
        self,
        *,
        overhead_s: float,
        slopes: tuple[tuple[float, float], ...],
        per_sequence_s: float,
        per_kv_token_s: float,
        per_prefill_pair_s: float,
        prefill_overhead_s: float,
    ) -> None:
        self.overhead_s = overhead_s
        self.slopes = slopes
        self.per_sequence_s = per_sequence_s
        self.per_kv_token_s = per_kv_token_s
        self.per_prefill_pair_s = per_prefill_pair_s
        self.prefill_overhead_s = prefill_overhead_s

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

    def decoding(self, decode_seqs: int) -> "DecodeTimes":
        """Iterations that only decode a batch of this size."""
        return DecodeTimes(
            decode_seqs,
            base_s=self.base_s(0, decode_seqs),
            per_kv_token_s=self.per_kv_token_s,
        )


class DecodeTimes:
    """Iterations of `decode_seqs` sequences that only decode: each reads one KV token per sequence more than the one
    before."""

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

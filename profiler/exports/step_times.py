"""A profile read as a table: step times within what it covers, and how far that reaches on each axis."""

import math
from collections.abc import Iterator

from profiler.profile import OutsideDomainError, ServerProfile
from profiler.step_time import prefill_pairs


class StepTimes:
    """Evaluates a profile within its domain and the server's own limits.

    Raises OutsideDomainError for a batch that a measured profile does not cover, unless `extrapolate`.
    `max_context_tokens` lowers the reach of every grid further.
    """

    def __init__(
        self, profile: ServerProfile, *, extrapolate: bool = False, max_context_tokens: int | None = None
    ) -> None:
        self.profile = profile
        self._domain = None if extrapolate else profile.domain
        engine_longest = profile.engine.max_model_len or profile.kv_cache.max_tokens
        self._longest = min(engine_longest, profile.kv_cache.max_tokens, max_context_tokens or engine_longest)

    def step_s(self, prefill_tokens: float, pairs: float, decode_seqs: float, kv_tokens: float) -> float:
        """Seconds of one iteration of this composition."""
        if self._domain is not None:
            self.profile.require_within_domain(
                prefill_tokens=prefill_tokens, prefill_pairs=pairs, decode_seqs=decode_seqs, kv_tokens=kv_tokens
            )
        return self.profile.step_time.step_s(prefill_tokens, pairs, decode_seqs, kv_tokens)

    def covers(self, prefill_tokens: float, pairs: float, decode_seqs: float, kv_tokens: float) -> bool:
        """Whether `step_s` answers for this composition."""
        try:
            self.step_s(prefill_tokens, pairs, decode_seqs, kv_tokens)
        except OutsideDomainError:
            return False
        return True

    def decode_s(self, decode_seqs: float, context_tokens: float) -> float:
        """Seconds of an iteration in which `decode_seqs` sequences read `context_tokens` of KV each."""
        return self.step_s(0, 0, decode_seqs, decode_seqs * context_tokens)

    def prefill_s(self, tokens: int) -> float:
        """Seconds to prefill `tokens`: one prompt, or several of the longest where the server takes none so long.

        Iterations hold max_num_batched_tokens, as the server would cut them.
        """
        return sum(self.step_s(new, pairs, 0, 0) for new, pairs in self.iterations(tokens))

    def covers_prefill(self, tokens: int) -> bool:
        """Whether `prefill_s` answers for so many tokens."""
        return all(self.covers(new, pairs, 0, 0) for new, pairs in self.iterations(tokens))

    def iterations(self, tokens: int) -> Iterator[tuple[int, float]]:
        """New tokens and query-key pairs of each iteration."""
        longest, batch = self._longest, self.profile.engine.max_num_batched_tokens
        done = 0
        while done < tokens:
            room, pairs = min(batch, tokens - done), 0.0
            new = room
            while room:
                context = done % longest
                chunk = min(room, longest - context)
                pairs += prefill_pairs(chunk, context)
                done += chunk
                room -= chunk
            yield new, pairs

    @property
    def largest_batch_tokens(self) -> int:
        """Most prompt tokens of one iteration."""
        most = self.profile.engine.max_num_batched_tokens
        return most if self._domain is None else min(most, int(self._domain.prefill_tokens[1]))

    @property
    def largest_prompt_tokens(self) -> int:
        """Longest prompt whose iterations are all covered."""
        longest, batch = self._longest, self.profile.engine.max_num_batched_tokens
        if self._domain is None:
            return longest
        if self.largest_batch_tokens < batch:
            # A prompt that the server would prefill at once must have been measured at once.
            longest = min(longest, self.largest_batch_tokens)
        most_pairs = self._domain.prefill_pairs[1]
        # The last chunk of a prompt of p tokens has batch * (p - batch / 2) pairs, a prompt within one batch p^2 / 2.
        by_pairs = math.sqrt(2 * most_pairs) if 2 * most_pairs <= batch**2 else most_pairs / batch + batch / 2
        # Measured pairs are rounded in a file: a prompt that was itself measured counts as covered.
        return max(1, min(longest, math.floor(by_pairs * (1 + 1e-9))))

    @property
    def largest_context_tokens(self) -> int:
        """Most KV tokens that one decoding sequence reads."""
        return max(1, min(self._longest, self.largest_kv_tokens))

    def largest_seqs(self, context_tokens: float) -> int:
        """Most sequences of that context which decode together; at least 1."""
        most = self.profile.engine.max_num_seqs
        if self._domain is not None:
            most = min(most, int(self._domain.decode_seqs[1]))
        return max(1, min(most, int(self.largest_kv_tokens // max(1.0, context_tokens))))

    @property
    def largest_kv_tokens(self) -> int:
        """Most KV tokens that one iteration reads."""
        held = self.profile.kv_cache.max_tokens
        return held if self._domain is None else min(held, int(self._domain.kv_tokens[1]))

    def is_cut(self) -> bool:
        """Whether the domain reaches less far than the server."""
        if self._domain is None:
            return False
        whole = StepTimes(self.profile, extrapolate=True, max_context_tokens=self._longest)
        return (
            self.largest_prompt_tokens < whole.largest_prompt_tokens
            or self.largest_batch_tokens < whole.largest_batch_tokens
            or self.largest_seqs(1) < whole.largest_seqs(1)
            or self.largest_context_tokens < whole.largest_context_tokens
        )

    def bends(self) -> list[int]:
        """Token counts at which a slope of the step-time model begins: points that a linear table needs."""
        return [round(start) for start, _ in self.profile.step_time.slopes if start >= 1]


def geometric(lowest: int, highest: int, per_octave: float) -> list[int]:
    """Whole numbers from `lowest` to `highest`, both included, about `per_octave` to a doubling."""
    if highest <= lowest:
        return [max(1, highest)]
    steps = max(1, math.ceil(math.log2(highest / lowest) * per_octave))
    return sorted({round(lowest * (highest / lowest) ** (i / steps)) for i in range(steps + 1)})

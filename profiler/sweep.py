"""Which points of a server to measure. Pure: a grid, and what of it fits into the server."""

from dataclasses import dataclass

# Share of the KV cache that a point may fill: every sequence rounds up to whole blocks.
FULL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What the server holds at once: the first two are vLLM's arguments, the others what it tells of itself."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    kv_tokens: int

    def hold(self, seqs: int, tokens_each: int) -> bool:
        """Whether `seqs` sequences of `tokens_each` tokens, prompt and output, run side by side."""
        return (
            seqs <= self.max_num_seqs
            and tokens_each <= self.max_model_len
            and seqs * tokens_each <= self.kv_tokens * FULL
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPoint:
    """TTFT of one prompt on an idle server."""

    prompt_tokens: int

    def __str__(self) -> str:
        return f"prefill {self.prompt_tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePoint:
    """ITL of `decode_seqs` sequences at once, each of `output_tokens` behind a prompt of `context_tokens`."""

    decode_seqs: int
    context_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"decode {self.decode_seqs} x {self.context_tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """`requests` requests, `concurrency` of them in flight at any time."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    requests: int

    def __str__(self) -> str:
        return f"load {self.concurrency} x ({self.prompt_tokens} + {self.output_tokens})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoints:
    """What of a sweep fits a server."""

    steps: tuple[PrefillPoint | DecodePoint, ...]
    loops: tuple[ClosedLoop, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The grid, before the server's limits cut it. `decode_steps`: iterations of a decode point's steady window.

    `repeats` passes go over the whole grid in different orders, so that a drift of the machine falls on all points
    alike; one more, unrecorded, comes first, for a first request of a shape is 3 to 20 times slower.
    Raises ValueError for fewer than 3 repeats.
    """

    prompt_tokens: tuple[int, ...] = tuple(2**power for power in range(4, 18))
    decode_seqs: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    context_tokens: tuple[int, ...] = (64, 512, 2048, 8192)
    closed_loop_concurrency: tuple[int, ...] = (1, 8, 32, 128)
    closed_loop_prompt_tokens: int = 512
    closed_loop_output_tokens: int = 128
    decode_steps: int = 32
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 3:
            raise ValueError(f"sweep repeats={self.repeats}; a median wants at least 3")

    def points(self, limits: ServerLimits) -> SweepPoints:
        """The points that fit, and at the edges: the longest prompt, and the widest batch with a full KV cache."""
        longest = min(limits.max_model_len, int(limits.kv_tokens * FULL)) - 1
        prompts = sorted({min(n, longest) for n in self.prompt_tokens})
        widths = [n for n in self.decode_seqs if n <= limits.max_num_seqs]
        decode = [self._decode(n, context) for n in widths for context in self.context_tokens]
        if widths:
            each = min(limits.max_model_len, int(limits.kv_tokens * FULL) // widths[-1])
            fullest = self._decode(widths[-1], each - self._output_tokens(widths[-1]))
            if fullest.context_tokens >= 1 and fullest not in decode:
                decode.append(fullest)
        prompt, output = self.closed_loop_prompt_tokens, self.closed_loop_output_tokens
        return SweepPoints(
            steps=(
                *(PrefillPoint(prompt_tokens=n) for n in prompts),
                *(
                    point
                    for point in decode
                    if limits.hold(point.decode_seqs, point.context_tokens + point.output_tokens)
                ),
            ),
            loops=tuple(
                ClosedLoop(concurrency=n, prompt_tokens=prompt, output_tokens=output, requests=max(12, 4 * n))
                for n in self.closed_loop_concurrency
                if limits.hold(n, prompt + output)
            ),
        )

    def _output_tokens(self, decode_seqs: int) -> int:
        # Sequences start one after the other, and the last must still find all others running.
        return self.decode_steps + decode_seqs + 2

    def _decode(self, decode_seqs: int, context_tokens: int) -> DecodePoint:
        return DecodePoint(
            decode_seqs=decode_seqs, context_tokens=context_tokens, output_tokens=self._output_tokens(decode_seqs)
        )

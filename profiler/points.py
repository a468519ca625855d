"""What one measurement is: a batch of known composition, or a load. Pure; names are unique and can be read back."""

import re
from dataclasses import dataclass, replace

# Share of the KV cache that a point may fill: every sequence rounds up to whole blocks.
FULL = 0.95

# Iterations of a decode point's steady window, and prompts that pass by the decoding sequences of a mixed one.
DECODE_STEPS = 32
MIXED_PROMPTS = 3
# Iterations that pass between two prompts of a mixed point: an answer's way to the client, and the next prompt's back.
_BETWEEN_PROMPTS = 12
# Requests of a crowd, the tokens of their prompts, and iterations from one to the next.
CROWD_REQUESTS = 12
CROWD_TOKENS = 16
_BETWEEN_CROWDED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What the server holds at once: the first two are vLLM's arguments, the others what it tells of itself."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    kv_tokens: int

    def hold(self, seqs: int, tokens_each: int) -> bool:
        """Whether `seqs` sequences of `tokens_each` tokens, prompt and output, run side by side."""
        return seqs <= self.widest and tokens_each <= self.max_model_len and seqs * tokens_each <= self.kv_tokens * FULL

    @property
    def widest(self) -> int:
        """Sequences that can decode side by side: each takes a token of the batch."""
        return min(self.max_num_seqs, self.max_num_batched_tokens)

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that leaves room for its answer's first token."""
        return min(self.max_model_len, int(self.kv_tokens * FULL)) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPoint:
    """TTFT of one prompt on an idle server."""

    prompt_tokens: int

    def __str__(self) -> str:
        return f"prefill {self.prompt_tokens}"

    def in_whole_chunks(self, limits: ServerLimits) -> "PrefillPoint":
        """Without a shorter last iteration: all iterations of a sample are to be alike."""
        return replace(self, prompt_tokens=_whole_chunks(self.prompt_tokens, limits.max_num_batched_tokens))

    def fits(self, limits: ServerLimits) -> bool:
        return 1 <= self.prompt_tokens <= limits.longest_prompt

    def longest_alike(self, limits: ServerLimits) -> int:
        """A prompt so long takes as many iterations, and fits; in several, all are to stay alike."""
        return min(limits.max_num_batched_tokens, limits.longest_prompt)

    def steps(self, limits: ServerLimits) -> int:
        """Iterations: a prompt longer than the budget takes several."""
        return -(-self.prompt_tokens // limits.max_num_batched_tokens)

    def prefill_tokens(self) -> int:
        """Tokens to prefill before it can be measured, and while it is."""
        return self.prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePoint:
    """ITL of `decode_seqs` sequences at once, each behind a prompt of `context_tokens`."""

    decode_seqs: int
    context_tokens: int

    def __str__(self) -> str:
        return f"decode {self.decode_seqs} x {self.context_tokens}"

    def output_tokens(self, limits: ServerLimits) -> int:
        """Long enough that the sequences run together for `DECODE_STEPS`, though they start one after the other."""
        prefill_steps = -(-self.decode_seqs * self.context_tokens // limits.max_num_batched_tokens)
        return DECODE_STEPS + max(self.decode_seqs, prefill_steps) + 2

    def fits(self, limits: ServerLimits) -> bool:
        return min(self.decode_seqs, self.context_tokens) >= 1 and limits.hold(
            self.decode_seqs, self.context_tokens + self.output_tokens(limits)
        )

    def prefill_tokens(self) -> int:
        return self.decode_seqs * self.context_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPoint:
    """Iterations that prefill a chunk of one prompt while `decode_seqs` sequences decode.

    The decoding sequences see each iteration from outside, so no overhead of the request is in it.
    """

    prompt_tokens: int
    decode_seqs: int
    context_tokens: int

    def __str__(self) -> str:
        return f"mixed {self.prompt_tokens} beside {self.decode_seqs} x {self.context_tokens}"

    def in_whole_chunks(self, limits: ServerLimits) -> "MixedPoint":
        """Without a shorter last iteration, as `PrefillPoint.in_whole_chunks`."""
        return replace(self, prompt_tokens=_whole_chunks(self.prompt_tokens, self._chunk_tokens(limits)))

    def _chunk_tokens(self, limits: ServerLimits) -> int:
        """What is left of the budget: each decoding sequence keeps a token of it."""
        return max(1, limits.max_num_batched_tokens - self.decode_seqs)

    def longest_alike(self, limits: ServerLimits) -> int:
        """As `PrefillPoint.longest_alike`."""
        return min(self._chunk_tokens(limits), limits.longest_prompt)

    def steps(self, limits: ServerLimits) -> int:
        """Iterations that the prompt takes."""
        return -(-self.prompt_tokens // self._chunk_tokens(limits))

    def output_tokens(self, limits: ServerLimits) -> int:
        return (MIXED_PROMPTS + 1) * (self.steps(limits) + _BETWEEN_PROMPTS) + self.decode_seqs + 2

    def fits(self, limits: ServerLimits) -> bool:
        if min(self.prompt_tokens, self.decode_seqs, self.context_tokens) < 1:
            return False
        if self.decode_seqs >= limits.widest or not PrefillPoint(prompt_tokens=self.prompt_tokens).fits(limits):
            return False
        each = self.context_tokens + self.output_tokens(limits)
        free = limits.kv_tokens * FULL - self.decode_seqs * each
        return limits.hold(self.decode_seqs, each) and self.prompt_tokens <= free

    def prefill_tokens(self) -> int:
        return self.decode_seqs * self.context_tokens + MIXED_PROMPTS * self.prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdPoint:
    """Short requests sent one after the other while `decode_seqs` sequences decode: what they wait for besides."""

    decode_seqs: int
    context_tokens: int = CROWD_TOKENS

    def __str__(self) -> str:
        return f"crowd of {self.decode_seqs}"

    def output_tokens(self) -> int:
        """Enough that all sequences decode while the requests pass, though they start one after the other."""
        return CROWD_REQUESTS * _BETWEEN_CROWDED + self.decode_seqs

    def fits(self, limits: ServerLimits) -> bool:
        """Whether there is room for one more beside the sequences, all at their longest."""
        each = self.context_tokens + self.output_tokens()
        return self.decode_seqs >= 1 and limits.hold(self.decode_seqs + 1, each)


def _whole_chunks(prompt_tokens: int, chunk_tokens: int) -> int:
    return prompt_tokens if prompt_tokens <= chunk_tokens else prompt_tokens // chunk_tokens * chunk_tokens


StepPoint = PrefillPoint | DecodePoint | MixedPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """`requests` requests, `concurrency` of them in flight at any time."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    requests: int

    def __str__(self) -> str:
        return f"closed loop {self.concurrency} x ({self.prompt_tokens} + {self.output_tokens})"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """`requests` requests that arrive as a Poisson process; lengths are means, gamma-distributed with these CVs.

    Those of the first `filling_s` seconds fill the server and are not counted.
    """

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float
    prompt_cv: float
    output_cv: float
    requests: int
    filling_s: float

    def __str__(self) -> str:
        return f"open loop {self.requests_per_s:.4g}/s x ({self.prompt_tokens:g} + {self.output_tokens:g})"


_NAME = re.compile(r"(prefill|decode|mixed) (\d+)(?: x (\d+))?(?: beside (\d+) x (\d+))?")


def step_point(name: str) -> StepPoint:
    """The point whose `str` is `name`. Raises ValueError for any other text."""
    found = _NAME.fullmatch(name)
    numbers = [int(number) for number in found.groups()[1:] if number is not None] if found else []
    match found and found[1], numbers:
        case "prefill", [prompt]:
            return PrefillPoint(prompt_tokens=prompt)
        case "decode", [seqs, context]:
            return DecodePoint(decode_seqs=seqs, context_tokens=context)
        case "mixed", [prompt, seqs, context]:
            return MixedPoint(prompt_tokens=prompt, decode_seqs=seqs, context_tokens=context)
    raise ValueError(f"{name!r} is no point; as in 'prefill 512', 'decode 8 x 512', 'mixed 512 beside 8 x 64'")


def in_whole_chunks(point: StepPoint, limits: ServerLimits) -> StepPoint:
    """The point without an iteration that differs from its others."""
    return point if isinstance(point, DecodePoint) else point.in_whole_chunks(limits)

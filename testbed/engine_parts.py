"""What goes through an emulated engine, and what bounds it."""

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What bounds a batch, in vLLM's names; `num_gpu_blocks` KV blocks of `block_size` tokens."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    num_gpu_blocks: int
    block_size: int

    def refusal(self, prompt_tokens: int, output_tokens: int) -> str:
        """Why a request could never be served here; "" when it can."""
        total = prompt_tokens + output_tokens
        if total > self.max_model_len:
            return f"{total} tokens (prompt and output) are over max_model_len {self.max_model_len}"
        if total > self.kv_tokens:
            return f"{total} tokens are over the KV cache of {self.kv_tokens} tokens"
        return ""

    @property
    def kv_tokens(self) -> int:
        return self.num_gpu_blocks * self.block_size

    @property
    def most_tokens(self) -> int:
        """Prompt and output tokens of the longest request that is not refused."""
        return min(self.max_model_len, self.kv_tokens)


class Sequence:
    """One request inside the engine. `to_prefill` tokens are to be computed before the next token comes out, but for
    the `cached_tokens` at the beginning of the prompt that the server holds already.

    The engine sets `first_token_s` and, of a sequence that got all its tokens, `ended_s`: absolute seconds.
    """

    __slots__ = (
        "arrived_s",
        "blocks",
        "cached_tokens",
        "ended_s",
        "first_token_s",
        "kv_offset",
        "last_decode_step",
        "left",
        "number",
        "output_tokens",
        "phase",
        "prefilled",
        "priority",
        "prompt_tokens",
        "to_prefill",
    )

    # Set by the engine in the phase that reads them.
    number: int
    arrived_s: float
    blocks: int
    last_decode_step: int
    kv_offset: int

    def __init__(self, prompt_tokens: int, output_tokens: int, priority: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.priority = priority
        self.phase = Phase.WAITING
        self.to_prefill = prompt_tokens
        self.prefilled = 0
        self.cached_tokens = 0
        self.left = output_tokens
        self.first_token_s: float | None = None
        self.ended_s: float | None = None

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
        if -(-total // self.block_size) > self.num_gpu_blocks:
            return f"{total} tokens are over the KV cache of {self.num_gpu_blocks * self.block_size} tokens"
        return ""


class Sequence:
    """One request inside the engine. `to_prefill` tokens are to be computed before the next token comes out.

    The engine sets `first_token_s` and, of a sequence that got all its tokens, `ended_s`: absolute seconds.
    """

    __slots__ = (
        "blocks",
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

    def __init__(self, prompt_tokens: int, output_tokens: int, priority: int = 0) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.priority = priority
        self.number = 0
        self.phase = Phase.WAITING
        self.to_prefill = prompt_tokens
        self.prefilled = 0
        self.left = output_tokens
        self.blocks = 0
        self.first_token_s: float | None = None
        self.ended_s: float | None = None
        self.last_decode_step = 0
        self.kv_offset = 0

"""The terms of BLIS's models of an iteration for a dense decoder: how many operations and bytes it counts.

Read off sim/latency/roofline.go and trained_physics_model.go of inference-sim; they count differently.
"""

from dataclasses import dataclass

from profiler.exports.dimensions import Dimensions

_KV_ELEMENT_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BlisBasis:
    """Counts for one GPU of `tensor_parallel_size`; an iteration prefills one chunk or decodes equal sequences."""

    dimensions: Dimensions
    element_bytes: int
    tensor_parallel_size: int

    @property
    def _kv_width(self) -> float:
        return self.dimensions.kv_heads * self._head_dim

    @property
    def _head_dim(self) -> float:
        return self.dimensions.hidden_size / self.dimensions.heads

    def roofline_flops(self, tokens: float, context: float) -> float:
        """`tokens` new ones of one sequence after `context` (decoding: 1)."""
        d = self.dimensions
        width, heads = d.hidden_size, d.heads
        reach = context + (tokens - 1) / 2 if tokens > 1 else context
        matrices = 2 * tokens * (2 * width**2 + 2 * width * self._kv_width + 2 * width * d.intermediate_size)
        attention = 4 * heads * tokens * reach * self._head_dim + 5 * heads * tokens * reach + 2 * tokens * width
        return d.layers * (matrices + attention) / self.tensor_parallel_size

    def roofline_weight_bytes(self) -> float:
        d = self.dimensions
        width = d.hidden_size
        matrices = 2 * width**2 + 2 * width * self._kv_width + 2 * width * d.intermediate_size
        return d.layers * matrices * self.element_bytes / self.tensor_parallel_size

    def roofline_request_bytes(self, tokens: float, context: float) -> float:
        """KV written and read, and activations, of one sequence."""
        d = self.dimensions
        kv = 2 * self._kv_width * (tokens + context)
        return d.layers * (kv + d.hidden_size * tokens) * self.element_bytes / self.tensor_parallel_size

    def trained_terms(self, *, prompt: float, seqs: float, context: float) -> dict[str, float]:
        """Operations and bytes by term: one whole prompt, or `seqs` sequences of `context`; the other is 0.

        Keys: prefill_flops, prefill_bytes, decode_bytes, weight_bytes, all_reduce_bytes.
        """
        d, shards = self.dimensions, self.tensor_parallel_size
        width = d.hidden_size
        projections = 2 * prompt * width * (2 * width + 2 * self._kv_width) / shards
        # BLIS attends to the whole prompt and half of the chunk again.
        attention = 4 * d.heads / shards * prompt * 1.5 * prompt * self._head_dim
        mlp = 6 * prompt * width * d.intermediate_size / shards
        kv_bytes = 2 * self._kv_width / shards * _KV_ELEMENT_BYTES
        weights = width * (2 * width + 2 * self._kv_width) + 3 * width * d.intermediate_size
        moved = 2 * (prompt + seqs) * width * self.element_bytes * 2 * (shards - 1) / shards
        return {
            "prefill_flops": d.layers * (projections + attention + mlp),
            "prefill_bytes": d.layers * kv_bytes * prompt,
            "decode_bytes": d.layers * kv_bytes * (seqs * context + seqs),
            "weight_bytes": d.layers * weights * self.element_bytes / shards,
            "all_reduce_bytes": d.layers * moved,
        }

"""The sizes of a model that decide what a server can do: parameters, KV bytes, floating-point operations."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Architecture = Literal["LlamaForCausalLM", "BloomForCausalLM"]

BYTES_PER_ELEMENT: dict[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Rope:
    """Llama 3's stretching of RoPE from `original_max_positions` by `factor`."""

    factor: float
    original_max_positions: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder's dimensions, under the names that papers and configs share.

    `rope_theta` None means ALiBi. `tied`: one matrix is both embedding and LM head. Whether the MLP is gated (three
    matrices instead of two) and whether layers carry biases follows from the architecture.
    Raises ValueError when the heads do not divide evenly.
    """

    name: str
    architecture: Architecture
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int
    tied: bool
    rope_theta: float | None = None
    rope_scaling: Llama3Rope | None = None
    bos_token_id: int = 1
    eos_token_id: int = 2

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads or self.heads * self.head_dim != self.hidden_size:
            raise ValueError(
                f"model {self.name}: heads={self.heads}, kv_heads={self.kv_heads}, head_dim={self.head_dim}, "
                f"hidden_size={self.hidden_size}; heads must be a multiple of kv_heads, and heads x head_dim the width"
            )

    @property
    def gated(self) -> bool:
        return self.architecture == "LlamaForCausalLM"

    def layer_matrix_parameters(self) -> int:
        """Weights of all layers' matrices: query, key, value, output, and the MLP."""
        query_and_output = 2 * self.hidden_size * self.heads * self.head_dim
        key_and_value = 2 * self.hidden_size * self.kv_heads * self.head_dim
        mlp = (3 if self.gated else 2) * self.hidden_size * self.intermediate_size
        return self.layers * (query_and_output + key_and_value + mlp)

    def parameters(self) -> int:
        """Every weight of the model; a tied LM head counts once."""
        embeddings = (1 if self.tied else 2) * self.vocab_size * self.hidden_size
        if self.gated:  # RMSNorm: one scale before attention, one before the MLP, one at the end
            vectors = self.hidden_size * (2 * self.layers + 1)
        else:
            # LayerNorm has a scale and a shift; two in a layer, one after the embedding, one at the end. Biases: query,
            # key and value, attention output, both halves of the MLP.
            norms = 2 * self.hidden_size * (2 * self.layers + 2)
            biases = (self.heads + 2 * self.kv_heads) * self.head_dim + 2 * self.hidden_size + self.intermediate_size
            vectors = norms + self.layers * biases
        return embeddings + self.layer_matrix_parameters() + vectors

    def weight_bytes(self, dtype: str = "bfloat16") -> int:
        return self.parameters() * element_bytes(dtype)

    def read_bytes_per_step(self, dtype: str = "bfloat16") -> int:
        """Bytes of weights that one iteration reads: an untied input embedding is left out but for a few rows."""
        embedding = 0 if self.tied else self.vocab_size * self.hidden_size
        return (self.parameters() - embedding) * element_bytes(dtype)

    def kv_bytes_per_token(self, dtype: str = "bfloat16") -> int:
        """Bytes of KV cache per token over all layers and KV heads."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes(dtype)

    def flops_per_token(self) -> int:
        """Multiply and add of one token through all layers' matrices, attention scores and LM head apart."""
        return 2 * self.layer_matrix_parameters()

    def flops_per_logits(self) -> int:
        """The LM head for one position; vLLM computes it only where a token is sampled."""
        return 2 * self.vocab_size * self.hidden_size

    def flops_per_attention_pair(self) -> int:
        """One query against one key, and its value, over all layers and heads."""
        return 4 * self.layers * self.heads * self.head_dim


def element_bytes(dtype: str) -> int:
    """Bytes of one element of `dtype`. Raises ValueError for one that is not known."""
    if dtype not in BYTES_PER_ELEMENT:
        raise ValueError(f"dtype {dtype!r} is not known; use one of {', '.join(sorted(BYTES_PER_ELEMENT))}")
    return BYTES_PER_ELEMENT[dtype]


# From the models' public config.json files.
LLAMA_2_70B = ModelShape(
    name="llama-2-70b",
    architecture="LlamaForCausalLM",
    layers=80,
    hidden_size=8192,
    heads=64,
    kv_heads=8,
    head_dim=128,
    intermediate_size=28672,
    vocab_size=32000,
    max_positions=4096,
    tied=False,
    rope_theta=1e4,
)
BLOOM_176B = ModelShape(
    name="bloom-176b",
    architecture="BloomForCausalLM",
    layers=70,
    hidden_size=14336,
    heads=112,
    kv_heads=112,
    head_dim=128,
    intermediate_size=4 * 14336,
    vocab_size=250880,
    max_positions=2048,
    tied=True,
)
LLAMA_3_1_8B = ModelShape(
    name="llama-3.1-8b",
    architecture="LlamaForCausalLM",
    layers=32,
    hidden_size=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=128256,
    max_positions=131072,
    tied=False,
    rope_theta=5e5,
    rope_scaling=Llama3Rope(factor=8.0),
    bos_token_id=128000,
    eos_token_id=128001,
)
LLAMA_3_2_3B = ModelShape(
    name="llama-3.2-3b",
    architecture="LlamaForCausalLM",
    layers=28,
    hidden_size=3072,
    heads=24,
    kv_heads=8,
    head_dim=128,
    intermediate_size=8192,
    vocab_size=128256,
    max_positions=131072,
    tied=True,
    rope_theta=5e5,
    rope_scaling=Llama3Rope(factor=32.0),
    bos_token_id=128000,
    eos_token_id=128001,
)
# Small enough for vLLM's CPU build on two cores, with every mechanism of the large ones.
TINY_LLAMA = ModelShape(
    name="tiny-llama",
    architecture="LlamaForCausalLM",
    layers=2,
    hidden_size=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    intermediate_size=384,
    vocab_size=2048,
    max_positions=4096,
    tied=True,
    rope_theta=1e4,
)
TINY_BLOOM = ModelShape(
    name="tiny-bloom",
    architecture="BloomForCausalLM",
    layers=2,
    hidden_size=128,
    heads=4,
    kv_heads=4,
    head_dim=32,
    intermediate_size=4 * 128,
    vocab_size=2048,
    max_positions=2048,
    tied=True,
)
# Large enough that on one core an iteration is arithmetic, as on a GPU, and not what the server's processes do around
# it; small enough for some requests per second.
SMALL_LLAMA = ModelShape(
    name="small-llama",
    architecture="LlamaForCausalLM",
    layers=4,
    hidden_size=512,
    heads=8,
    kv_heads=4,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=8192,
    max_positions=4096,
    tied=True,
    rope_theta=1e4,
)

MODEL_SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (LLAMA_2_70B, BLOOM_176B, LLAMA_3_1_8B, LLAMA_3_2_3B, SMALL_LLAMA, TINY_LLAMA, TINY_BLOOM)
}


def model_shape(name: str) -> ModelShape:
    """The shape called `name`, upper or lower case. Raises ValueError naming the nearest ones."""
    shape = MODEL_SHAPES.get(name.lower())
    if shape is None:
        near = get_close_matches(name.lower(), MODEL_SHAPES, n=3, cutoff=0.3) or sorted(MODEL_SHAPES)
        raise ValueError(f"model shape {name!r} is not known; the nearest are {', '.join(near)}")
    return shape

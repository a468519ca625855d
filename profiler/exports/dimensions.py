"""The sizes of a model that other simulators ask for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.model_folder import model_config
from profiler.model_shapes import MODEL_SHAPES, element_bytes

# Families whose MLP has two matrices; all newer ones gate it with a third.
_UNGATED = {"bloom", "falcon", "gpt2", "gpt_neox", "gptj", "mpt", "opt", "phi"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """A decoder as its config.json describes it; `config` is that file's content."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    gated: bool
    config: dict[str, Any]

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Bytes of KV cache per token over all layers and KV heads."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element_bytes(dtype)


def dimensions_of(model: str, config: Path | None) -> Dimensions:
    """Dimensions from the file `config`, or of a model whose shape is known by name.

    Raises ValueError when the file does not tell them, and without a file for a model that is not known.
    """
    if config is None:
        shape = MODEL_SHAPES.get(model.lower())
        if shape is None:
            raise ValueError(f"the shape of model {model!r} is not known; give its config.json with --model-config")
        return _from_config(model_config(shape))
    try:
        return _from_config(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{config}: not a readable config.json: {error}") from error
    except KeyError as error:
        raise ValueError(f"{config}: no {error} in it; give the config.json of a decoder") from error


def _from_config(config: dict[str, Any]) -> Dimensions:
    def first(*names: str) -> int:
        for name in names:
            if config.get(name) is not None:
                return int(config[name])
        raise KeyError(names[0])

    heads = first("num_attention_heads", "n_head")
    hidden_size = first("hidden_size", "n_embed")
    intermediate = config.get("intermediate_size") or 4 * hidden_size  # Bloom's config has none
    return Dimensions(
        layers=first("num_hidden_layers", "n_layer"),
        hidden_size=hidden_size,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden_size // heads),
        intermediate_size=int(intermediate),
        vocab_size=first("vocab_size"),
        gated=config.get("model_type") not in _UNGATED,
        config=config,
    )

"""A folder from which vLLM starts a model without a download: config and tokenizer, weights drawn at random.

Start with `--load-format dummy`. The speed is that of the real model, the text is not.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from profiler.model_shapes import ModelShape


def model_config(shape: ModelShape) -> dict[str, Any]:
    """`config.json` of `shape` under the keys that Hugging Face's own configs use."""
    return _llama_config(shape) if shape.architecture == "LlamaForCausalLM" else _bloom_config(shape)


def config_sha256(shape: ModelShape) -> str:
    """What identifies the shape in a profile: the digest of its config."""
    return config_digest(model_config(shape))


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of a model's config with sorted keys, however its file is laid out."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def write_model_folder(shape: ModelShape, folder: Path) -> Path:
    """Write `config.json`, `tokenizer.json` and `tokenizer_config.json` into `folder`, made if missing; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("config.json", model_config(shape)),
        ("tokenizer.json", _tokenizer(shape)),
        ("tokenizer_config.json", _tokenizer_config(shape)),
    ):
        (folder / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def _llama_config(shape: ModelShape) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [shape.architecture],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": shape.bos_token_id,
        "eos_token_id": shape.eos_token_id,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_positions,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }
    if shape.rope_scaling is not None:
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": shape.rope_scaling.factor,
            "low_freq_factor": shape.rope_scaling.low_freq_factor,
            "high_freq_factor": shape.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": shape.rope_scaling.original_max_positions,
        }
    return config


def _bloom_config(shape: ModelShape) -> dict[str, Any]:
    # Hugging Face's BLOOM has no key for the MLP's width: it is 4 x hidden by definition.
    if shape.intermediate_size != 4 * shape.hidden_size or shape.kv_heads != shape.heads:
        raise ValueError(
            f"model {shape.name}: BLOOM wants intermediate_size = 4 x hidden_size and kv_heads = heads, "
            f"given {shape.intermediate_size} and {shape.kv_heads}"
        )
    return {
        "architectures": [shape.architecture],
        "model_type": "bloom",
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0,
        "bos_token_id": shape.bos_token_id,
        "eos_token_id": shape.eos_token_id,
        "hidden_dropout": 0.0,
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "n_head": shape.heads,
        "n_layer": shape.layers,
        "pad_token_id": 3,
        "seq_length": shape.max_positions,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "unk_token_id": 0,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def _special_tokens(shape: ModelShape) -> dict[int, str]:
    return {0: "<unk>", shape.bos_token_id: "<s>", shape.eos_token_id: "</s>"}


def _tokenizer(shape: ModelShape) -> dict[str, Any]:
    """One word per token id ("t17" is 17), so that every id the engine can draw has a text."""
    special = _special_tokens(shape)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token_id, text in sorted(special.items())
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {special.get(token_id, f"t{token_id}"): token_id for token_id in range(shape.vocab_size)},
            "unk_token": "<unk>",
        },
    }


def _tokenizer_config(shape: ModelShape) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.max_positions,
    }

import json
from pathlib import Path

import pytest

from profiler.model_folder import config_sha256, model_config, write_model_folder
from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, LLAMA_3_1_8B, LLAMA_3_2_3B, MODEL_SHAPES, TINY_LLAMA


def test_the_folder_holds_a_config_and_a_tokenizer(tmp_path: Path) -> None:
    folder = write_model_folder(TINY_LLAMA, tmp_path / "new" / "tiny")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("name", sorted(MODEL_SHAPES))
def test_every_token_id_has_one_word_and_special_tokens_are_where_the_config_says(name: str, tmp_path: Path) -> None:
    folder = write_model_folder(MODEL_SHAPES[name], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(config["vocab_size"]))
    assert vocab["<s>"] == config["bos_token_id"]
    assert vocab["</s>"] == config["eos_token_id"]
    assert all(vocab[token["content"]] == token["id"] for token in tokenizer["added_tokens"])


def test_llama_3_writes_its_rope_scaling_and_llama_2_none() -> None:
    assert model_config(LLAMA_3_1_8B)["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert model_config(LLAMA_3_2_3B)["rope_scaling"]["factor"] == 32.0
    assert model_config(LLAMA_2_70B)["rope_scaling"] is None


def test_bloom_uses_its_own_key_names() -> None:
    config = model_config(BLOOM_176B)
    assert (config["n_layer"], config["n_head"], config["seq_length"]) == (70, 112, 2048)
    assert "num_key_value_heads" not in config


def test_two_shapes_never_share_a_config_hash() -> None:
    assert len({config_sha256(shape) for shape in MODEL_SHAPES.values()}) == len(MODEL_SHAPES)

import json
from pathlib import Path
from typing import Any

import pytest

from profiler.cut_layers import cut_config, cut_shape, layer_count, uneven_layers, write_cut_folder
from profiler.model_folder import model_config, write_model_folder
from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, TINY_LLAMA

# The layout of a model that also sees pictures: its language model has a config of its own.
NESTED: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "num_hidden_layers": 6,
        "hidden_size": 64,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "rope_local_base_freq": 1e4,
    },
    "vision_config": {"num_hidden_layers": 27},
}


@pytest.mark.parametrize("shape", [LLAMA_2_70B, BLOOM_176B])
def test_a_config_keeps_all_but_its_layers(shape: Any) -> None:
    config = model_config(shape)
    assert layer_count(config) == shape.layers
    cut = cut_config(config, 4)
    assert layer_count(cut) == 4
    changed = {key for key in config if cut[key] != config[key]}
    assert changed == {"num_hidden_layers"} or changed == {"n_layer"}
    assert layer_count(config) == shape.layers


def test_the_language_model_of_a_config_of_several_is_cut_and_the_others_are_not() -> None:
    assert layer_count(NESTED) == 6
    cut = cut_config(NESTED, 2)
    assert cut["text_config"]["num_hidden_layers"] == 2
    assert cut["text_config"]["layer_types"] == ["sliding_attention", "sliding_attention"]
    assert cut["vision_config"] == {"num_hidden_layers": 27}
    assert NESTED["text_config"]["num_hidden_layers"] == 6


def test_two_names_for_the_layers_are_both_replaced() -> None:
    cut = cut_config({"n_layer": 8, "num_hidden_layers": 8}, 3)
    assert cut == {"n_layer": 3, "num_hidden_layers": 3}


@pytest.mark.parametrize("layers", [0, -1, 81])
def test_a_model_cannot_be_cut_to_no_layers_or_to_more_than_it_has(layers: int) -> None:
    with pytest.raises(ValueError, match=f"{layers} layers wanted of a model that has 80; give a number from 1 to 80"):
        cut_config(model_config(LLAMA_2_70B), layers)
    with pytest.raises(ValueError, match="give a number from 1 to 80"):
        cut_shape(LLAMA_2_70B, layers)


def test_a_config_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="none of num_hidden_layers"):
        cut_config({"hidden_size": 64}, 1)


def test_layers_cost_what_a_shape_says_they_cost() -> None:
    half = cut_shape(LLAMA_2_70B, 40)
    assert 2 * half.layer_matrix_parameters() == LLAMA_2_70B.layer_matrix_parameters()
    assert half.vocab_size == LLAMA_2_70B.vocab_size


def test_layers_that_differ_from_each_other_are_named() -> None:
    assert uneven_layers(NESTED) == ("layer_types",)
    assert uneven_layers(model_config(LLAMA_2_70B)) == ()
    assert uneven_layers({"num_hidden_layers": 61, "first_k_dense_replace": 3}) == ("first_k_dense_replace",)
    assert uneven_layers({"num_hidden_layers": 4, "hybrid_override_pattern": "M-M*"}) == ("hybrid_override_pattern",)
    assert uneven_layers({"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}) == ()


def test_a_copy_has_config_and_tokenizer_and_no_weights(tmp_path: Path) -> None:
    source = write_model_folder(TINY_LLAMA, tmp_path / "whole")
    (source / "model-00001-of-00002.safetensors").write_bytes(b"weights")
    (source / "model.safetensors.index.json").write_text("{}")
    folder = write_cut_folder(source, 1, tmp_path / "cut")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 1
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert json.loads((source / "config.json").read_text())["num_hidden_layers"] == 2

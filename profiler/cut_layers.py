"""A model cut to fewer layers, so that one too large for a GPU can be measured in two sizes and extended.

Decoder layers of most models are alike: what one costs is the difference of two cuts. Only for random weights.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from profiler.model_shapes import ModelShape

# Under these names configs tell the number of decoder layers.
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Where a config of several models keeps that of its language model.
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
# A list or pattern whose name has one of these words, with as many entries as there are layers, has one per layer.
_PER_LAYER = ("layer", "block", "pattern")
# Keys by which some layers differ from others, when they are neither 0 nor empty.
_UNEVEN = ("first_k_dense_replace", "mlp_only_layers")
# Weights, and the index that would name files which the copy lacks.
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".index.json")


def layer_count(config: Mapping[str, Any]) -> int:
    """Decoder layers of a Hugging Face config. Raises ValueError when it does not tell."""
    keys = _count_keys(config)
    if keys:
        return int(config[keys[0]])
    for part in _nested(config):
        return layer_count(part)
    raise ValueError(f"the config has none of {', '.join(_COUNTS)}; the number of layers is not known")


def cut_config(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The config with its first `layers` layers. Raises ValueError for fewer than 1 or more than it has."""
    have = layer_count(config)
    _require(layers, have)
    keys = _count_keys(config)
    if not keys:
        name = next(name for name in _NESTED if _tells(config.get(name)))
        return {**config, name: cut_config(config[name], layers)}
    shorter = {key: config[key][:layers] for key in _per_layer(config, have)}
    return {**config, **shorter, **dict.fromkeys(keys, layers)}


def cut_shape(shape: ModelShape, layers: int) -> ModelShape:
    """The shape with `layers` layers. Raises ValueError for fewer than 1 or more than it has."""
    _require(layers, shape.layers)
    return replace(shape, layers=layers)


def uneven_layers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys by which a config's layers differ from each other: then a cut does not stand for the whole."""
    if not _count_keys(config):
        return tuple(key for part in _nested(config) for key in uneven_layers(part))
    per_layer = _per_layer(config, layer_count(config))
    mixed = [key for key in per_layer if any(entry != config[key][0] for entry in config[key])]
    return (*mixed, *(key for key in _UNEVEN if config.get(key)))


def write_cut_folder(source: Path, layers: int, folder: Path) -> Path:
    """Copy a model folder without its weights, its config cut to `layers`; return `folder`, made if missing.

    Raises ValueError as `cut_config`, OSError when a file cannot be read or written.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    cut = cut_config(config, layers)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name != "config.json" and not file.name.endswith(_NOT_COPIED):
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(cut, indent=1) + "\n", encoding="utf-8")
    return folder


def _require(layers: int, have: int) -> None:
    if not 1 <= layers <= have:
        raise ValueError(f"{layers} layers wanted of a model that has {have}; give a number from 1 to {have}")


def _count_keys(config: Mapping[str, Any]) -> list[str]:
    return [key for key in _COUNTS if isinstance(config.get(key), int)]


def _tells(part: object) -> bool:
    return isinstance(part, Mapping) and bool(_count_keys(part) or _nested(part))


def _nested(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [config[name] for name in _NESTED if _tells(config.get(name))]


def _per_layer(config: Mapping[str, Any], layers: int) -> list[str]:
    return [
        key
        for key, value in config.items()
        if isinstance(value, list | str) and len(value) == layers and any(word in key for word in _PER_LAYER)
    ]

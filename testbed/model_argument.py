"""What `testbed profile MODEL` is given: a built-in model, a model folder, or a Hugging Face id."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from profiler.cut_layers import cut_shape, layer_count, uneven_layers, write_cut_folder
from profiler.model_folder import config_digest, model_config, write_model_folder
from profiler.model_shapes import MODEL_SHAPES, ModelShape
from testbed.bad_input import BadInput

Weights = Literal["real", "dummy"]

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")
# All that vLLM reads of a model but its weights.
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.py"]
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelToProfile:
    """A model that vLLM can start from this machine's files.

    `path` is vLLM's model argument and `config_sha256` the digest of the config there, None when it is not at hand.
    `layers` are those it is served with, `whole_layers` those of the uncut model. `weights_possible` comes with the
    preferred first. `notes` say what a reader of the profile should know of the model.
    """

    name: str
    path: str
    config_sha256: str | None
    built_in_shape: ModelShape | None
    weights_possible: tuple[Weights, ...]
    layers: int | None
    whole_layers: int | None
    notes: tuple[str, ...] = ()


def resolve_model(argument: str, work_folder: Path, layers: int | None = None) -> ModelToProfile:
    """Find MODEL; a built-in name wins over a folder of that name (`./name` is the folder).

    What has to be written goes below `work_folder`/models. `layers` cuts the model to so many; then its weights can be
    random only. Raises BadInput when there is no such model, it cannot be had, or it cannot be cut so.
    """
    models = (work_folder / "models").absolute()
    shape = MODEL_SHAPES.get(argument.lower())
    try:
        if shape is not None:
            return _built_in(shape, models, layers)
        if Path(argument).expanduser().is_dir():
            folder = Path(argument).expanduser().resolve()
            return _from_folder(folder.name, folder, models, layers)
        if _HUB_ID.fullmatch(argument):
            return _from_hub(argument, models, layers)
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"model {argument}: {error}") from error
    near = get_close_matches(argument.lower(), MODEL_SHAPES, n=3, cutoff=0.3) or sorted(MODEL_SHAPES)
    raise BadInput(
        f"model {argument!r} is neither built in nor a folder nor a Hugging Face id like ORG/NAME; "
        f"nearest built in: {', '.join(near)}"
    )


def _built_in(shape: ModelShape, models: Path, layers: int | None) -> ModelToProfile:
    whole_layers = shape.layers
    name = _name(shape.name, layers, whole_layers)
    if layers is not None:
        shape = cut_shape(shape, layers)
    return ModelToProfile(
        name=name,
        path=str(write_model_folder(shape, models / name)),
        config_sha256=config_digest(model_config(shape)),
        built_in_shape=shape,
        weights_possible=("dummy",),
        layers=shape.layers,
        whole_layers=whole_layers,
    )


def _from_folder(name: str, folder: Path, models: Path, layers: int | None) -> ModelToProfile:
    """The model in `folder`, called `name`."""
    config = _read_config(folder, name)
    try:
        whole_layers = layer_count(config)
    except ValueError:
        if layers is not None:
            raise
        whole_layers = None
    weights: tuple[Weights, ...] = ("dummy",)
    notes: tuple[str, ...] = ()
    if layers is not None and layers != whole_layers:
        name = _name(name, layers, whole_layers)
        folder = write_cut_folder(folder, layers, models / name.replace("/", "--"))
        if uneven := uneven_layers(config):
            notes = (f"layers of {name} differ from each other ({', '.join(uneven)}): the cut may not stand for all",)
        config = _read_config(folder, name)
    elif any(next(folder.glob(pattern), None) for pattern in _WEIGHT_FILES):
        weights = ("real", "dummy")
    return ModelToProfile(
        name=name,
        path=str(folder),
        config_sha256=config_digest(config),
        built_in_shape=None,
        weights_possible=weights,
        layers=whole_layers if layers is None else layers,
        whole_layers=whole_layers,
        notes=notes,
    )


def _from_hub(hub_id: str, models: Path, layers: int | None) -> ModelToProfile:
    """A model of the local Hugging Face cache; what is not there but its weights is downloaded."""
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        if layers is not None:
            raise BadInput(
                f"model {hub_id}: the Python package huggingface_hub, which would fetch its config to cut, is not "
                "installed; give a folder with the model"
            ) from error
        # The interpreter that has vLLM will know.
        return ModelToProfile(
            name=hub_id,
            path=hub_id,
            config_sha256=None,
            built_in_shape=None,
            weights_possible=("real", "dummy"),
            layers=None,
            whole_layers=None,
        )
    return _from_folder(hub_id, _snapshot(hub, hub_id), models, layers)


def _snapshot(hub: Any, hub_id: str) -> Path:
    """The folder of the model in the local cache, with weights only where they were there before."""
    try:
        cached = Path(hub.snapshot_download(hub_id, allow_patterns=_SMALL_FILES, local_files_only=True))
        if (cached / "config.json").exists():
            return cached
    except OSError:
        pass  # not in the cache
    try:
        return Path(hub.snapshot_download(hub_id, allow_patterns=_SMALL_FILES))
    except OSError as error:
        near = get_close_matches(hub_id.rpartition("/")[2].lower(), MODEL_SHAPES, n=1, cutoff=0.5)
        raise BadInput(
            f"model {hub_id} is not in the Hugging Face cache and cannot be fetched "
            f"({type(error).__name__}: {_first_line(error)}); download it with `hf download {hub_id}`, or give a folder"
            + (f", or the built-in {near[0]}" if near else "")
        ) from error


def _read_config(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"model {name}: {folder} has no config.json; give the folder of a Hugging Face model") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"model {name}: {path} cannot be read: {_first_line(error)}") from error
    if not isinstance(config, dict):
        raise BadInput(f"model {name}: {path} is no JSON object; give the folder of a Hugging Face model")
    return config


def _name(name: str, layers: int | None, whole_layers: int | None) -> str:
    return name if layers is None or layers == whole_layers else f"{name}-cut-to-{layers}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]

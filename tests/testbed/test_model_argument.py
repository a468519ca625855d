import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.model_folder import config_sha256, write_model_folder
from profiler.model_shapes import BLOOM_176B, TINY_BLOOM, TINY_LLAMA
from testbed.bad_input import BadInput
from testbed.gpu_inventory import Gpu, GpuInventory, gpus_of_server
from testbed.model_argument import resolve_model


def config_at(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(path) / "config.json").read_text())
    return content


def test_a_built_in_model_becomes_a_folder(tmp_path: Path) -> None:
    model = resolve_model("Tiny-Llama", tmp_path)
    assert (model.name, model.built_in_shape, model.weights_possible) == ("tiny-llama", TINY_LLAMA, ("dummy",))
    assert model.config_sha256 == config_sha256(TINY_LLAMA)
    assert (model.layers, model.whole_layers) == (2, 2)
    assert Path(model.path).is_relative_to(tmp_path) and Path(model.path).is_absolute()
    assert config_at(model.path)["vocab_size"] == 2048


def test_a_built_in_model_can_be_cut(tmp_path: Path) -> None:
    model = resolve_model("bloom-176b", tmp_path, layers=4)
    assert (model.name, model.layers, model.whole_layers) == ("bloom-176b-cut-to-4", 4, 70)
    assert config_at(model.path)["n_layer"] == 4
    assert model.built_in_shape is not None and model.built_in_shape.layers == 4
    assert model.config_sha256 not in (None, config_sha256(BLOOM_176B))


def test_a_folder_is_served_as_it_is(tmp_path: Path) -> None:
    folder = write_model_folder(TINY_BLOOM, tmp_path / "mine")
    model = resolve_model(str(folder), tmp_path / "work")
    assert (model.name, model.path, model.built_in_shape) == ("mine", str(folder), None)
    assert model.weights_possible == ("dummy",)
    # However its file is laid out, a config is the same config.
    assert model.config_sha256 == config_sha256(TINY_BLOOM)
    (folder / "model.safetensors").touch()
    assert resolve_model(str(folder), tmp_path / "work").weights_possible == ("real", "dummy")
    assert not (tmp_path / "work").exists()


def test_a_folder_that_is_cut_has_random_weights_only(tmp_path: Path) -> None:
    folder = write_model_folder(TINY_BLOOM, tmp_path / "mine")
    (folder / "model.safetensors").touch()
    model = resolve_model(str(folder), tmp_path / "work", layers=1)
    assert (model.name, model.weights_possible, model.layers) == ("mine-cut-to-1", ("dummy",), 1)
    assert Path(model.path).is_relative_to(tmp_path / "work")
    assert config_at(model.path)["n_layer"] == 1
    whole = resolve_model(str(folder), tmp_path / "work", layers=2)
    assert (whole.name, whole.path, whole.weights_possible) == ("mine", str(folder), ("real", "dummy"))


def test_a_cut_of_unlike_layers_is_noted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 9, "first_k_dense_replace": 1}))
    (note,) = resolve_model(str(tmp_path), tmp_path / "work", layers=2).notes
    assert "differ from each other (first_k_dense_replace)" in note
    assert resolve_model(str(tmp_path), tmp_path / "work").notes == ()


def test_a_model_without_a_number_of_layers_can_be_served_but_not_cut(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path), tmp_path / "work").layers is None
    with pytest.raises(BadInput, match="the number of layers is not known"):
        resolve_model(str(tmp_path), tmp_path / "work", layers=1)


@pytest.mark.parametrize("layers", [0, 3])
def test_a_number_of_layers_that_cannot_be_is_refused(tmp_path: Path, layers: int) -> None:
    message = f"model tiny-llama: {layers} layers wanted of a model that has 2; give a number from 1 to 2"
    with pytest.raises(BadInput, match=message):
        resolve_model("tiny-llama", tmp_path, layers=layers)


def test_an_unknown_name_is_answered_with_the_nearest_built_in(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"neither built in nor a folder nor .* nearest built in: llama-2-70b"):
        resolve_model("llama2-70b", tmp_path)


def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"has no config\.json; give the folder of a Hugging Face model"):
        resolve_model(str(tmp_path), tmp_path / "work")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config\.json cannot be read: Expecting"):
        resolve_model(str(tmp_path), tmp_path / "work")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BadInput, match="is no JSON object"):
        resolve_model(str(tmp_path), tmp_path / "work")


class Hub:
    """Stands in for huggingface_hub: `cached` is the local cache, `remote` what the network has, None without one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cached: Path | None, remote: Path | None = None) -> None:
        self.fetched = 0
        self._cached, self._remote = cached, remote
        monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=self.snapshot))  # type: ignore[arg-type]

    def snapshot(self, hub_id: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        assert not any("safetensors" in pattern or "bin" in pattern for pattern in allow_patterns)
        folder = self._cached if local_files_only else self._remote
        if folder is None:
            raise ConnectionError("no route to the hub\nand more")
        self.fetched += not local_files_only
        return str(folder)


def test_a_model_of_the_local_cache_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model_folder(TINY_LLAMA, tmp_path / "snapshots" / "a1b2")
    (folder / "model.safetensors").touch()
    hub = Hub(monkeypatch, cached=folder)
    model = resolve_model("meta-llama/Tiny", tmp_path / "work")
    assert (model.name, model.path, model.weights_possible) == ("meta-llama/Tiny", str(folder), ("real", "dummy"))
    assert model.config_sha256 == config_sha256(TINY_LLAMA)
    assert hub.fetched == 0
    cut = resolve_model("meta-llama/Tiny", tmp_path / "work", layers=1)
    assert cut.name == "meta-llama/Tiny-cut-to-1"
    assert Path(cut.path) == tmp_path / "work" / "models" / "meta-llama--Tiny-cut-to-1"


def test_of_a_model_that_is_not_cached_all_but_the_weights_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(monkeypatch, cached=None, remote=write_model_folder(TINY_LLAMA, tmp_path / "hub"))
    model = resolve_model("meta-llama/Tiny", tmp_path / "work")
    assert (hub.fetched, model.weights_possible) == (1, ("dummy",))


def test_a_cache_with_tokenizer_but_no_config_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half").mkdir()
    remote = write_model_folder(TINY_LLAMA, tmp_path / "hub")
    hub = Hub(monkeypatch, cached=tmp_path / "half", remote=remote)
    assert resolve_model("meta-llama/Tiny", tmp_path / "work").path == str(remote)
    assert hub.fetched == 1


def test_without_network_the_error_says_what_to_do_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, cached=None)
    with pytest.raises(BadInput) as raised:
        resolve_model("meta-llama/Llama-3.1-8B", tmp_path)
    message = str(raised.value)
    assert "\n" not in message
    assert "cannot be fetched (ConnectionError: no route to the hub)" in message
    assert "`hf download meta-llama/Llama-3.1-8B`" in message
    assert message.endswith("or the built-in llama-3.1-8b")


def test_without_the_hubs_package_an_id_is_left_to_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = resolve_model("meta-llama/Tiny", tmp_path)
    assert (model.path, model.config_sha256, model.layers) == ("meta-llama/Tiny", None, None)
    with pytest.raises(BadInput, match="huggingface_hub, which would fetch its config to cut, is not installed"):
        resolve_model("meta-llama/Tiny", tmp_path, layers=1)


def gpu(index: int, name: str = "H200") -> Gpu:
    return Gpu(index=index, name=name, memory_total_bytes=1, memory_free_bytes=1, driver_version="1")


def test_a_server_takes_gpus_that_are_there_once_each_and_of_one_model() -> None:
    machine = GpuInventory(gpus=(gpu(0), gpu(1), gpu(2, "A100")))
    assert [found.index for found in gpus_of_server(machine, (1, 0))] == [1, 0]
    with pytest.raises(ValueError, match="GPU 3: no such GPU; have 0, 1, 2"):
        gpus_of_server(machine, (0, 3))
    with pytest.raises(ValueError, match="one is named twice"):
        gpus_of_server(machine, (1, 1))
    with pytest.raises(ValueError, match="GPUs of one model, given A100 and H200"):
        gpus_of_server(machine, (1, 2))
    with pytest.raises(ValueError, match=r"GPU 0: no such GPU; there is none \(NVML does not start\)"):
        gpus_of_server(GpuInventory(gpus=(), reason="NVML does not start"), (0,))

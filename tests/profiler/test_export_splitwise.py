from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from profiler.analytical import analytical_profile
from profiler.exports.export import export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.exports.settings import ExportSettings
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_2_70B, LLAMA_3_1_8B
from profiler.profile import ServerProfile
from profiler.step_time import prefill_pairs

SMALL = analytical_profile(LLAMA_3_1_8B, H100, 1)
LARGE = analytical_profile(LLAMA_2_70B, H100, 4)
CONTEXT = 1152  # the default request: 1024 tokens and half of 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("export") / "splitwise"
    export([SMALL, LARGE], EXPORT_FORMATS["splitwise"], into)
    return into


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "data" / "perf_model.csv")


def curve(table: pd.DataFrame, profile: ServerProfile, column: str) -> tuple[np.ndarray, np.ndarray]:
    """x and seconds, as the loader makes them: milliseconds over prompt_size x batch_size."""
    rows = table[table["tensor_parallel"] == profile.engine.tensor_parallel_size]
    return (rows["prompt_size"] * rows["batch_size"]).to_numpy(), rows[column].to_numpy() / 1000


def test_both_times_are_filled_in_every_row_of_the_iteration_axis(table: pd.DataFrame) -> None:
    assert (table["batch_size"] == 1).all()
    assert (table[["prompt_time", "token_time"]] > 0).all().all()


@pytest.mark.parametrize("profile", [SMALL, LARGE], ids=lambda profile: profile.name)
def test_prefill_by_a_straight_line_between_rows_is_within_two_percent(
    table: pd.DataFrame, profile: ServerProfile
) -> None:
    x, seconds = curve(table, profile, "prompt_time")
    for tokens in (3, 50, 150, 199, 300, 700, 1500, 3000, 4000):
        exact = profile.step_time.step_s(tokens, prefill_pairs(tokens), 0, 0)
        assert np.interp(tokens, x, seconds) == pytest.approx(exact, rel=0.02)


def test_a_prompt_longer_than_an_iteration_costs_as_much_as_its_chunks(table: pd.DataFrame) -> None:
    x, seconds = curve(table, SMALL, "prompt_time")
    first = SMALL.step_time.step_s(8192, prefill_pairs(8192), 0, 0)
    rest = SMALL.step_time.step_s(4000, prefill_pairs(4000, context_tokens=8192), 0, 0)
    assert np.interp(12_192, x, seconds) == pytest.approx(first + rest, rel=0.02)


@pytest.mark.parametrize("profile", [SMALL, LARGE], ids=lambda profile: profile.name)
def test_time_per_output_token_at_a_number_of_sequences_is_within_two_percent(
    table: pd.DataFrame, profile: ServerProfile
) -> None:
    x, seconds = curve(table, profile, "token_time")
    for seqs in (1, 2, 7, 33, 100, 210, 250):
        assert np.interp(seqs, x, seconds) == pytest.approx(
            profile.step_time.step_s(0, 0, seqs, seqs * CONTEXT), rel=0.02
        )


def test_sequences_beyond_what_a_server_holds_take_turns(table: pd.DataFrame) -> None:
    x, seconds = curve(table, SMALL, "token_time")
    assert np.interp(512, x, seconds) == pytest.approx(2 * np.interp(256, x, seconds))


def test_the_other_simulator_finds_as_much_kv_memory_as_the_server_has(folder: Path) -> None:
    configs = folder / "configs"
    processor = yaml.safe_load((configs / "hardware_repo" / "processors" / "h100-80gb.yaml").read_text())
    for model, profile in (("llama-3.1-8b", SMALL), ("llama2-70b", LARGE)):
        architecture = yaml.safe_load((configs / "model_repo" / "architectures" / f"{model}.yaml").read_text())
        size = yaml.safe_load((configs / "model_repo" / "sizes" / f"{profile.name}.yaml").read_text())
        free = processor["memory_size"] * profile.gpu.count - size["weights"]
        token_bytes = 2 * architecture["hidden_size"] * architecture["num_layers"] * size["dtype_size"]
        assert free / token_bytes == pytest.approx(profile.kv_cache.max_tokens)


def test_names_in_table_and_configs_agree(folder: Path, table: pd.DataFrame) -> None:
    names = {path.stem for path in (folder / "configs" / "model_repo" / "architectures").glob("*.yaml")}
    assert set(table["model"]) == names
    sku = yaml.safe_load((folder / "configs" / "hardware_repo" / "skus" / "h100-80gb-x8.yaml").read_text())
    assert sku["processors"] == [{"name": "h100-80gb", "count": 8}] and set(table["hardware"]) == {"h100-80gb"}
    assert sku["tdp"] == 8 * 700


def test_canonical_rows_have_true_axes_and_an_end_to_end_time_that_adds_up(tmp_path: Path) -> None:
    export([LARGE], EXPORT_FORMATS["sageserve"], tmp_path / "out", ExportSettings(canonical=True, model_name="A"))
    table = pd.read_csv(tmp_path / "out" / "data" / "perf_model.csv")
    assert set(table["model"]) == {"A"}
    assert table["batch_size"].nunique() > 3 and table["prompt_size"].nunique() > 3
    held = table["batch_size"] * (table["prompt_size"] + table["token_size"])
    assert held.max() <= LARGE.kv_cache.max_tokens
    whole = table["prompt_time"] + (table["token_size"] - 1) * table["token_time"]
    assert np.allclose(whole, table["e2e_time"])
    row = table[(table["batch_size"] == 1) & (table["prompt_size"] == 1024)].iloc[0]
    assert row["prompt_time"] == pytest.approx(1e3 * LARGE.step_time.step_s(1024, prefill_pairs(1024), 0, 0))

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.interpolate import griddata, interp1d

from profiler.analytical import analytical_profile
from profiler.exports.export import export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.gpu_types import A100_80GB, H100
from profiler.model_shapes import LLAMA_2_70B, LLAMA_3_1_8B
from profiler.step_time import prefill_pairs

SMALL = analytical_profile(LLAMA_3_1_8B, H100, 1)
LARGE = analytical_profile(LLAMA_2_70B, A100_80GB, 4)
OPERATORS = ("attn_pre_proj", "attn_rope", "attn_post_proj", "mlp_up_proj", "mlp_act", "mlp_down_proj")


@pytest.fixture(scope="module")
def vidur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("export") / "vidur"
    export([LARGE], EXPORT_FORMATS["vidur"], into)
    return into


@pytest.fixture(scope="module")
def mlp(vidur: Path) -> pd.DataFrame:
    return pd.read_csv(vidur / "compute" / "a100" / "meta-llama" / "Llama-2-70b-hf" / "mlp.csv")


@pytest.fixture(scope="module")
def attention(vidur: Path) -> pd.DataFrame:
    return pd.read_csv(vidur / "compute" / "a100" / "meta-llama" / "Llama-2-70b-hf" / "attention.csv")


def by_tokens_s(mlp: pd.DataFrame, tokens: int) -> float:
    """All token-wise operators of all 80 layers."""
    layer_ms = mlp[[f"time_stats.{name}.median" for name in OPERATORS]].sum(axis=1)
    return float(80 * np.interp(tokens, mlp["num_tokens"], layer_ms)) / 1000


def test_prefill_from_vidurs_tables_is_within_two_percent(mlp: pd.DataFrame, attention: pd.DataFrame) -> None:
    chunks = attention[attention["is_prefill"]]
    for chunk, cached in ((20, 0), (150, 0), (777, 0), (2000, 0), (3900, 0), (300, 600), (1000, 2500)):
        attn_ms = griddata(
            chunks[["prefill_chunk_size", "kv_cache_size"]].to_numpy(),
            chunks["time_stats.attn_prefill.median"].to_numpy(),
            (chunk, cached),
            rescale=True,
        )
        exact = LARGE.step_time.step_s(chunk, prefill_pairs(chunk, cached), 0, 0)
        assert by_tokens_s(mlp, chunk) + 80 * float(attn_ms) / 1000 == pytest.approx(exact, rel=0.02)


def test_inter_token_latency_from_vidurs_tables_is_within_two_percent(
    mlp: pd.DataFrame, attention: pd.DataFrame
) -> None:
    decode = attention[~attention["is_prefill"]]
    for seqs, context in ((1, 100), (3, 3000), (20, 700), (77, 1500), (130, 2000), (250, 300)):
        attn_ms = griddata(
            decode[["batch_size", "kv_cache_size"]].to_numpy(),
            decode["time_stats.attn_decode.median"].to_numpy(),
            (seqs, context),
            rescale=True,
        )
        exact = LARGE.step_time.step_s(0, 0, seqs, seqs * context)
        assert by_tokens_s(mlp, seqs) + 80 * float(attn_ms) / 1000 == pytest.approx(exact, rel=0.02)


def test_vidurs_tables_have_the_columns_by_which_it_selects_rows(mlp: pd.DataFrame, attention: pd.DataFrame) -> None:
    selected = {"n_head": 64, "n_kv_head": 8, "n_embd": 8192, "n_expanded_embd": 28672, "use_gated_mlp": True}
    # Vidur's own config of this model has a vocabulary of 32768.
    for column, value in {**selected, "vocab_size": 32768, "num_tensor_parallel_workers": 4}.items():
        assert (mlp[column] == value).all()
    for column, value in {"n_q_head": 64, "n_kv_head": 8, "block_size": 16, "num_tensor_parallel_workers": 4}.items():
        assert (attention[column] == value).all()
    assert {"time_stats.attn_prefill.median", "time_stats.attn_decode.median"} <= set(attention)
    assert {"time_stats.input_layernorm.median", "time_stats.add.median"} <= set(mlp)


def test_vidur_adds_no_all_reduce_to_iterations_that_hold_one_already(vidur: Path) -> None:
    table = pd.read_csv(vidur / "network" / "a100" / "all_reduce.csv")
    assert (table["time_stats.all_reduce.median"] == 0).all()
    assert set(table["num_workers"]) == set(table["devices_per_node"]) == {4}
    assert set(table["collective"]) == {"all_reduce"}


@pytest.fixture(scope="module")
def dynamo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("export") / "dynamo"
    overhead = SMALL.model_copy(update={"request_overhead_s": 0.002})
    export([overhead], EXPORT_FORMATS["dynamo"], into)
    return into


def test_ttft_by_dynamos_cubic_is_within_two_percent(dynamo: Path) -> None:
    with np.load(dynamo / "selected_prefill_interpolation" / "raw_data.npz") as raw:
        assert (np.diff(raw["prefill_isl"]) > 0).all()
        ttft_ms = interp1d(raw["prefill_isl"], raw["prefill_ttft"], kind="cubic")
        per_gpu = interp1d(raw["prefill_isl"], raw["prefill_thpt_per_gpu"], kind="cubic")
    for tokens in (40, 150, 230, 500, 1111, 4000, 8000):
        exact = 0.002 + SMALL.step_time.step_s(tokens, prefill_pairs(tokens), 0, 0)
        assert float(ttft_ms(tokens)) / 1000 == pytest.approx(exact, rel=0.02)
        assert float(per_gpu(tokens)) == pytest.approx(tokens / exact, rel=0.03)


def test_itl_from_dynamos_table_is_within_two_percent(dynamo: Path) -> None:
    with np.load(dynamo / "selected_decode_interpolation" / "raw_data.npz") as raw:
        usage, contexts, itl_ms = raw["x_kv_usage"], raw["y_context_length"], raw["z_itl"]
        held = raw["max_kv_tokens"]
    assert held.shape == (1,) and held[0] == SMALL.kv_cache.max_tokens
    assert usage.min() > 0 and usage.max() <= 1
    # Between two of the table's contexts at the same concurrency, and between concurrencies at one context.
    rows = {context: np.flatnonzero(contexts == context) for context in np.unique(contexts)}
    for context, row in list(rows.items())[4:-2:3]:
        concurrency = usage[row] * held[0] / context
        for seqs in (1.5, 6, 21):
            exact = SMALL.step_time.step_s(0, 0, seqs, seqs * context)
            if seqs < concurrency.max():
                assert np.interp(seqs, concurrency, itl_ms[row]) / 1000 == pytest.approx(exact, rel=0.02)


def test_several_profiles_get_a_folder_each_for_dynamo(tmp_path: Path) -> None:
    export([SMALL, LARGE], EXPORT_FORMATS["dynamo"], tmp_path / "out")
    for profile in (SMALL, LARGE):
        assert (tmp_path / "out" / profile.name / "selected_decode_interpolation" / "raw_data.npz").exists()

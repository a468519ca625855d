import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from profiler.analytical import analytical_profile
from profiler.exports.export import export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.step_time import prefill_pairs

PROFILE = analytical_profile(LLAMA_3_1_8B, H100, 1)


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("export") / "aic"
    export([PROFILE], EXPORT_FORMATS["aiconfigurator"], into)
    return into / "systems"


@pytest.fixture(scope="module")
def rows(systems: Path) -> list[dict[str, Any]]:
    return pq.read_table(_pair(systems) / "fpm_forward_perf.parquet").to_pylist()


def _pair(systems: Path) -> Path:
    return systems / "data" / "h100_sxm" / "vllm" / "testbed"


def test_the_record_vouches_for_the_bytes_of_the_table(systems: Path, rows: list[dict[str, Any]]) -> None:
    record = json.loads((_pair(systems) / "fpm_forward_perf.metadata.json").read_text())
    content = (_pair(systems) / "fpm_forward_perf.parquet").read_bytes()
    assert record["parquet_sha256"] == hashlib.sha256(content).hexdigest()
    assert record["row_count"] == len(rows)
    assert (record["schema_name"], record["schema_version"]) == ("aic_fpm_forward_perf", 6)
    assert (record["system"], record["backend"], record["backend_version"]) == ("h100_sxm", "vllm", "testbed")


def test_rows_are_distinct_positive_and_of_one_phase(rows: list[dict[str, Any]]) -> None:
    places = {
        (row["workload_kind"], row["batch_size"], row["total_prefill_tokens"], row["total_kv_read_tokens"])
        for row in rows
    }
    assert len(places) == len(rows)
    for row in rows:
        assert row["latency_ms"] > 0 and row["batch_size"] >= 1
        assert (row["workload_kind"] == "prefill") == (row["total_prefill_tokens"] > 0)
        assert row["enable_wideep"] is False and row["partition_policy"] == "balanced_v1"


def test_the_system_file_has_the_vendors_figures(systems: Path) -> None:
    system = yaml.safe_load((systems / "h100_sxm.yaml").read_text())
    assert system["data_dir"] == "data/h100_sxm"
    assert system["gpu"]["mem_bw"] == 3_350_000_000_000
    assert system["gpu"]["bfloat16_tc_flops"] == 989_500_000_000_000
    assert system["gpu"]["mem_capacity"] == PROFILE.gpu.memory_bytes


def test_aiconfigurator_itself_predicts_what_the_profile_does(systems: Path) -> None:
    pytest.importorskip("aiconfigurator", reason="needs aiconfigurator: pip install '.[consumers]'")
    from aiconfigurator.sdk import common, config, models
    from aiconfigurator.sdk.backends.factory import get_backend
    from aiconfigurator.sdk.inference_session import InferenceSession
    from aiconfigurator.sdk.perf_database import PerfDatabase

    wanted = config.ModelConfig(
        tp_size=1,
        pp_size=1,
        gemm_quant_mode=common.GEMMQuantMode.bfloat16,
        kvcache_quant_mode=common.KVCacheQuantMode.bfloat16,
        forward_model="fpm",
    )
    model = models.get_model("meta-llama/Meta-Llama-3.1-8B", wanted, "vllm")
    database = PerfDatabase("h100_sxm", "vllm", "testbed", systems_root=str(systems))
    session = InferenceSession(model, database, get_backend("vllm"))

    def milliseconds(batch: int, isl: int, mode: str) -> float:
        runtime = config.RuntimeConfig(batch_size=batch, beam_width=1, isl=isl, osl=2)
        summary = session.run_static(runtime_config=runtime, mode=mode)
        latencies = (
            summary.get_context_latency_dict() if mode == "static_ctx" else summary.get_generation_latency_dict()
        )
        return float(sum(latencies.values()))

    for batch, isl in ((1, 333), (1, 5000), (4, 1000), (8, 700)):
        exact = PROFILE.step_time.step_s(batch * isl, batch * prefill_pairs(isl), 0, 0)
        assert milliseconds(batch, isl, "static_ctx") / 1e3 == pytest.approx(exact, rel=0.02)
    for batch, isl in ((1, 333), (3, 900), (7, 4000), (100, 1000), (200, 600), (256, 256)):
        exact = PROFILE.step_time.step_s(0, 0, batch, batch * (isl + 1))
        assert milliseconds(batch, isl, "static_gen") / 1e3 == pytest.approx(exact, rel=0.02)

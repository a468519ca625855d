import json
import re
from pathlib import Path

import pytest
import yaml

from profiler.analytical import analytical_profile
from profiler.exports.blis_basis import BlisBasis
from profiler.exports.dimensions import dimensions_of
from profiler.exports.export import Export, export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.exports.linear_fit import fit_linear
from profiler.exports.settings import ExportError, ExportSettings
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile_parts import Lifecycle, ProfiledGpu
from profiler.step_time import StepTimeModel, prefill_pairs

ROOFLINE = analytical_profile(LLAMA_3_1_8B, H100, 1)
STRAIGHT = StepTimeModel(
    overhead_s=0.005,
    slopes=((0.0, 2e-5),),
    per_sequence_s=3e-5,
    per_kv_token_s=5e-8,
    per_prefill_pair_s=0.0,
)
LINEAR = ROOFLINE.model_copy(update={"step_time": STRAIGHT, "request_overhead_s": 0.002})
REQUEST = ExportSettings(prompt_tokens=1000, output_tokens=200)


def exported(tmp_path: Path, to: str, settings: ExportSettings = REQUEST) -> tuple[Path, Export]:
    return tmp_path / "out", export([LINEAR], EXPORT_FORMATS[to], tmp_path / "out", settings)


def go_seconds(duration: str) -> float:
    found = re.fullmatch(r"([0-9.]+)us", duration)
    assert found is not None
    return float(found.group(1)) / 1e6


def test_coefficients_of_a_sum_are_found_with_the_error_they_leave() -> None:
    coefficients, errors = fit_linear([[1, 1, 1, 1], [1, 2, 4, 8]], [5.0, 7.0, 11.0, 19.0])
    assert coefficients == pytest.approx([3, 2])
    assert errors.max_ape < 1e-9 and errors.n == 4
    _, errors = fit_linear([[1, 1]], [1.0, 2.0])
    assert errors.max_ape > 0.2


def test_llm_d_answers_like_a_server_whose_times_are_straight_lines(tmp_path: Path) -> None:
    folder, done = exported(tmp_path, "llm-d-inference-sim")
    config = yaml.safe_load((folder / f"{LINEAR.name}.yaml").read_text())
    assert config["latency-calculator"] == "per-token"
    ttft_s = go_seconds(config["prefill-overhead"]) + 700 * go_seconds(config["prefill-time-per-token"])
    assert ttft_s == pytest.approx(0.002 + STRAIGHT.step_s(700, prefill_pairs(700), 0, 0), rel=1e-4)
    for running in (1, 40, config["max-num-seqs"]):
        load = 1 + (config["time-factor-under-load"] - 1) * (running - 1) / (config["max-num-seqs"] - 1)
        exact = STRAIGHT.step_s(0, 0, running, running * 1100)
        assert load * go_seconds(config["inter-token-latency"]) == pytest.approx(exact, rel=1e-3)
    assert go_seconds(config["startup-duration"]) == LINEAR.lifecycle.cold_start_s
    assert config["kv-cache-size"] * config["block-size"] == LINEAR.kv_cache.max_tokens
    assert any("mean error 0.0%" in note for note in done.notes)


def test_what_was_not_measured_is_left_out_of_a_config_and_said(tmp_path: Path) -> None:
    unknown = LINEAR.model_copy(update={"lifecycle": Lifecycle()})
    done = export([unknown], EXPORT_FORMATS["llm-d-inference-sim"], tmp_path / "out", REQUEST)
    assert "startup-duration" not in yaml.safe_load((tmp_path / "out" / f"{LINEAR.name}.yaml").read_text())
    assert any("cold start was not measured" in note for note in done.notes)
    assert "cold start was not measured" in (tmp_path / "out" / "README.md").read_text()


def test_inferno_coefficients_give_back_latencies_in_milliseconds(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "inferno")
    (entry,) = json.loads((folder / "model-data.json").read_text())["models"]
    decode, prefill = entry["decodeParms"], entry["prefillParms"]
    for batch in (1, 17, entry["maxBatchSize"]):
        exact_ms = 1e3 * STRAIGHT.step_s(0, 0, batch, batch * 1100)
        assert decode["alpha"] + decode["beta"] * batch == pytest.approx(exact_ms, rel=1e-6)
    exact_ms = 1e3 * (0.002 + STRAIGHT.step_s(4 * 500, 4 * prefill_pairs(500), 0, 0))
    assert prefill["gamma"] + prefill["delta"] * 500 * 4 == pytest.approx(exact_ms, rel=1e-6)
    assert entry["atTokens"] == 1200
    assert entry["maxBatchSize"] * entry["atTokens"] <= LINEAR.kv_cache.max_tokens


def test_a_queue_analysis_problem_has_the_keys_and_signs_that_its_server_accepts(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "inferno")
    problem = json.loads((folder / f"queue-analysis-{LINEAR.name}.json").read_text())
    numbers = {"RPS", "maxBatchSize", "avgInputTokens", "avgOutputTokens", "alpha", "beta", "gamma", "maxQueueSize"}
    assert set(problem) == numbers
    assert all(value >= 0 for value in problem.values())
    assert isinstance(problem["maxBatchSize"], int) and isinstance(problem["maxQueueSize"], int)


def test_blis_counts_the_weights_of_a_model_in_its_own_way() -> None:
    basis = BlisBasis(dimensions=dimensions_of("llama-3.1-8b", None), element_bytes=2, tensor_parallel_size=1)
    # Its roofline takes two matrices of the MLP, its trained model three.
    assert basis.roofline_weight_bytes() == pytest.approx(10.2e9, rel=0.01)
    assert basis.trained_terms(prompt=0, seqs=1, context=0)["weight_bytes"] == pytest.approx(13.96e9, rel=0.01)


def test_blis_files_have_only_keys_that_its_strict_parsers_know(tmp_path: Path) -> None:
    folder, done = exported(tmp_path, "blis")
    hardware = json.loads((folder / "hardware_config.json").read_text())[LINEAR.name]
    assert set(hardware) == {"TFlopsPeak", "TFlopsFP8", "BwPeakTBs", "mfuPrefill", "mfuDecode", "MemoryGiB"}
    assert all(hardware[key] > 0 for key in set(hardware) - {"TFlopsFP8"})
    policy = yaml.safe_load((folder / f"lifecycle-{LINEAR.name}.yaml").read_text())
    assert policy == {
        "instance_lifecycle": {
            "loading_delay": {"mean": LINEAR.lifecycle.cold_start_s, "stddev": 0.0},
            "warm_start_initial_instances": True,
        }
    }
    config = json.loads((folder / "models" / LINEAR.name / "config.json").read_text())
    assert config["num_hidden_layers"] == 32
    arguments = dict(line.split("=") for line in (folder / f"run-{LINEAR.name}.args").read_text().split())
    assert arguments["--total-kv-blocks"] == str(LINEAR.kv_cache.num_gpu_blocks)
    assert any("roofline, mean error" in note and "trained-physics, mean error" in note for note in done.notes)


def test_blis_coefficients_are_ten_and_of_a_server_with_linear_times_nearly_exact(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "blis")
    arguments = dict(line.split("=") for line in (folder / f"run-{LINEAR.name}.args").read_text().split())
    assert arguments["--latency-model"] == "trained-physics"
    betas = [float(beta) for beta in arguments["--beta-coeffs"].split(",")]
    assert len(betas) == 10 and min(betas) >= 0
    assert float(arguments["--alpha-coeffs"].split(",")[0]) == pytest.approx(2000)
    hardware = json.loads((folder / "hardware_config.json").read_text())[LINEAR.name]
    # One sequence of 1100 tokens: weights, its request, its KV and the constant, in microseconds.
    kv_bytes, weight_bytes = 131_072 * 1101, 13.96e9
    us = (betas[2] * weight_bytes + betas[9] * kv_bytes) / (hardware["BwPeakTBs"] * 1e6) + betas[5] + betas[6]
    assert us / 1e6 == pytest.approx(STRAIGHT.step_s(0, 0, 1, 1100), rel=0.03)


def test_a_gpu_type_without_vendor_figures_asks_for_its_peaks(tmp_path: Path) -> None:
    strange = LINEAR.model_copy(update={"gpu": ProfiledGpu(type="new-gpu", count=1, memory_bytes=2**36)})
    with pytest.raises(ExportError, match="--peak-flops-per-s"):
        export([strange], EXPORT_FORMATS["blis"], tmp_path / "out", REQUEST)
    assert not (tmp_path / "out").exists()
    peaks = ExportSettings(peak_flops_per_s=5e14, peak_memory_bytes_per_s=2e12, prompt_tokens=1000, output_tokens=200)
    export([strange], EXPORT_FORMATS["blis"], tmp_path / "out", peaks)
    assert json.loads((tmp_path / "out" / "hardware_config.json").read_text())[LINEAR.name]["TFlopsPeak"] == 500


def test_a_model_of_unknown_shape_is_described_by_its_config(tmp_path: Path) -> None:
    unknown = LINEAR.model_copy(update={"model": LINEAR.model.model_copy(update={"name": "someone/model"})})
    with pytest.raises(ExportError, match="--model-config"):
        export([unknown], EXPORT_FORMATS["vidur"], tmp_path / "out")
    config = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 160,
        "vocab_size": 1000,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    dimensions = dimensions_of("someone/model", tmp_path / "config.json")
    assert (dimensions.layers, dimensions.kv_heads, dimensions.head_dim, dimensions.gated) == (3, 2, 16, True)
    export([unknown], EXPORT_FORMATS["vidur"], tmp_path / "out", ExportSettings(model_config=tmp_path / "config.json"))
    assert (tmp_path / "out" / "compute" / "h100" / "someone" / "model" / "mlp.csv").exists()

from pathlib import Path

import pytest

from profiler.gpu_types import gpu_type_name
from profiler.plan import MeasurementPlan
from testbed import profile_job
from testbed.bad_input import BadInput
from testbed.gpu_inventory import Gpu, GpuInventory
from testbed.model_argument import resolve_model
from testbed.profile_job import ProfileJob, Serving, chosen_gpus, work_folder

H200S = tuple(
    Gpu(index=i, name="NVIDIA H200", memory_total_bytes=150 * 10**9, memory_free_bytes=10**9, driver_version="570.1")
    for i in range(4)
)


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_job, "gpu_inventory", lambda: GpuInventory(gpus=H200S))


def job(tmp_path: Path, gpus: tuple[Gpu, ...] = (), serving: Serving | None = None) -> ProfileJob:
    return ProfileJob(
        model=resolve_model("llama-3.2-3b", tmp_path),
        gpus=gpus,
        serving=serving or Serving(),
        weights="dummy",
        plan=MeasurementPlan(),
    )


def test_on_gpus_a_model_is_served_in_bfloat16_with_vllms_memory_share(tmp_path: Path) -> None:
    spec = job(tmp_path, H200S[:2], Serving(tensor_parallel_size=2)).spec()
    assert (spec.dtype, spec.tensor_parallel_size, spec.gpu_memory_utilization) == ("bfloat16", 2, None)
    assert (spec.max_num_seqs, spec.max_num_batched_tokens, spec.max_model_len) == (256, 8192, None)
    assert spec.load_format == "dummy"


def test_without_a_gpu_the_cpu_builds_needs_are_met(tmp_path: Path) -> None:
    spec = job(tmp_path).spec()
    assert (spec.dtype, spec.max_num_seqs, spec.max_model_len) == ("float32", 64, 2048)
    assert spec.kv_cache_memory_bytes


def test_what_was_asked_for_wins_over_every_default(tmp_path: Path) -> None:
    asked = Serving(dtype="float16", max_num_seqs=5, max_model_len=333, max_num_batched_tokens=444)
    for gpus in ((), H200S[:1]):
        spec = job(tmp_path, gpus, asked).spec()
        assert (spec.dtype, spec.max_num_seqs, spec.max_model_len, spec.max_num_batched_tokens) == (
            "float16",
            5,
            333,
            444,
        )


def test_the_profile_is_named_after_model_gpu_and_tensor_parallelism(tmp_path: Path) -> None:
    assert job(tmp_path).subject().name == "llama-3.2-3b-cpu"
    subject = job(tmp_path, H200S[:2], Serving(tensor_parallel_size=2)).subject()
    assert (subject.name, subject.driver, subject.gpu.count) == ("llama-3.2-3b-h200-tp2", "570.1", 2)


@pytest.mark.usefixtures("four_gpus")
def test_the_first_gpus_are_taken_unless_others_are_named() -> None:
    assert [gpu.index for gpu in chosen_gpus(None, 2)] == [0, 1]
    assert [gpu.index for gpu in chosen_gpus("3,1", 2)] == [3, 1]
    assert chosen_gpus("cpu", 1) == ()


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(
    ("asked", "size", "words"),
    [
        ("7", 1, "GPU 7: no such GPU; have 0, 1, 2, 3"),
        ("0,1", 1, "2 GPUs for --tensor-parallel-size 1"),
        (None, 8, "4 GPUs for --tensor-parallel-size 8"),
        ("cpu", 2, "there is none to use"),
        ("one", 1, "must be numbers"),
        ("1,1", 2, "named twice"),
    ],
)
def test_gpus_that_cannot_be_are_refused_in_one_line(asked: str | None, size: int, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        chosen_gpus(asked, size)


@pytest.mark.parametrize(
    ("nvml", "short"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm4-40gb"),
        ("NVIDIA L40S", "l40s"),
    ],
)
def test_gpus_have_short_names(nvml: str, short: str) -> None:
    assert gpu_type_name(nvml) == short


def test_what_was_found_so_far_lies_beside_the_profile() -> None:
    assert work_folder(Path("profiles/llama.json")) == Path("profiles/llama.work")

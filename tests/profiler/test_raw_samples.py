from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler.analytical import analytical_profile
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile import load_profile
from profiler.profile_parts import StepSample
from profiler.raw_samples import SAMPLE_UNITS, RawSamplesError, read_samples, write_samples

SAMPLES = tuple(
    StepSample(
        kind="decode",
        point="decode 4 x 64",
        repeat=repeat,
        prefill_tokens=0,
        prefill_pairs=0,
        decode_seqs=4,
        kv_tokens=300,
        steps=32,
        observed_s=0.25 + repeat / 100,
    )
    for repeat in range(3)
)


def saved(folder: Path) -> Path:
    raw = write_samples(SAMPLES, folder / "p.samples.parquet")
    profile = analytical_profile(LLAMA_3_1_8B, H100, 1).model_copy(update={"samples": raw})
    profile.save(folder / "p.json")
    return folder / "p.json"


def test_samples_beside_a_profile_come_back_as_they_were(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert read_samples(load_profile(path), path) == SAMPLES


def test_every_column_of_the_file_tells_its_unit(tmp_path: Path) -> None:
    saved(tmp_path)
    schema = pq.read_schema(tmp_path / "p.samples.parquet")
    assert schema.names == list(SAMPLE_UNITS) == list(StepSample.model_fields)
    assert schema.field("observed_s").metadata == {b"unit": b"s"}


def test_samples_that_are_not_the_profiles_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    write_samples(SAMPLES[:1], tmp_path / "p.samples.parquet")
    with pytest.raises(RawSamplesError, match="its SHA-256 differs"):
        read_samples(load_profile(path), path)


def test_a_profile_that_was_moved_without_its_samples_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (tmp_path / "p.samples.parquet").unlink()
    with pytest.raises(RawSamplesError, match=r"p\.samples\.parquet, which is not beside it; copy both"):
        read_samples(load_profile(path), path)


def test_a_profile_that_never_had_samples_has_none() -> None:
    profile = analytical_profile(LLAMA_3_1_8B, H100, 1)
    assert read_samples(profile, Path("anywhere.json")) == ()

"""Profiles, their raw samples, other simulators' tables and the journal of a measurement, damaged."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import (
    DAMAGED_BYTES,
    WRONG_VALUES,
    damage,
    places,
    renamed,
    told_by,
    with_first_key_twice,
    with_value,
    without,
)

from profiler.exports.export import export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.exports.settings import ExportError, ExportSettings
from profiler.imports.dynamo import read_dynamo
from profiler.imports.imported import ImportedFileError, profile_of
from profiler.imports.splitwise import read_splitwise
from profiler.journal import Journal
from profiler.profile import OutsideDomainError, load_profile, profile_path
from profiler.profile_parts import StepSample
from profiler.raw_samples import RawSamplesError, read_samples, write_samples
from results.profile_page import profile_page
from results.profile_tables import profile_tables

PROFILE = profile_path("llama-3.1-8b-h100")
CONTENT = json.loads(PROFILE.read_text(encoding="utf-8"))


def _shown(path: Path) -> None:
    profile_tables(load_profile(path))


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_a_damaged_profile_is_read_or_refused_by_name(how: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for seed in range(12):
        path.write_bytes(PROFILE.read_bytes())
        damage(path, how, seed)
        told_by(lambda: _shown(path), ValueError, str(path))


@pytest.mark.parametrize("value", WRONG_VALUES)
def test_a_wrong_value_anywhere_in_a_profile_is_read_or_refused_by_file_and_key(value: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for place in places(CONTENT):
        path.write_text(json.dumps(with_value(CONTENT, place, WRONG_VALUES[value])), encoding="utf-8")
        told_by(lambda: load_profile(path), ValueError, str(path))


def test_a_profile_with_a_key_missing_renamed_or_twice_is_read_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for place in places(CONTENT):
        for changed in (without(CONTENT, place), renamed(CONTENT, place)):
            path.write_text(json.dumps(changed), encoding="utf-8")
            told_by(lambda: _shown(path), ValueError, str(path))
    path.write_text(with_first_key_twice(PROFILE.read_text()), encoding="utf-8")
    assert "stands twice" in told_by(lambda: load_profile(path), ValueError, str(path))


@pytest.mark.parametrize("name", ["none", "../profiles/llama-3.1-8b-h100", "", ".", "/", "x" * 400, "a\0b", "a.json"])
def test_a_name_of_no_profile_is_refused(name: str) -> None:
    assert told_by(lambda: load_profile(name), ValueError)


def test_a_folder_where_a_profile_should_be_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.json").mkdir()
    assert told_by(lambda: load_profile(tmp_path / "p.json"), ValueError, str(tmp_path / "p.json"))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\nb", "a\0b", "a\\b"])
@pytest.mark.parametrize("place", [("name",), ("gpu", "type"), ("model", "name")])
def test_no_name_in_a_profile_leads_an_export_out_of_its_folder(
    name: str, place: tuple[str, ...], tmp_path: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "p.json"
    path.write_text(json.dumps(with_value(CONTENT, place, name)), encoding="utf-8")
    settings = ExportSettings(peak_flops_per_s=1e15, peak_memory_bytes_per_s=1e12)
    for format_ in EXPORT_FORMATS.values():
        told_by(
            lambda format_=format_: export([load_profile(path)], format_, inside / format_.name, settings),
            ValueError,
        )
    assert [each.name for each in tmp_path.iterdir()] == ["inside"]
    assert {each.name for each in inside.iterdir()} <= {"p.json", *EXPORT_FORMATS}


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """A profile with raw samples beside it."""
    samples = [
        StepSample(
            kind="decode", point=f"p{i}", repeat=0, prefill_tokens=0, prefill_pairs=0, decode_seqs=i + 1,
            kv_tokens=100.0 * i, steps=3, observed_s=0.1,
        )
        for i in range(20)
    ]  # fmt: skip
    raw = write_samples(samples, tmp_path / "p.samples.parquet")
    path = tmp_path / "p.json"
    load_profile("llama-3.1-8b-h100").model_copy(update={"samples": raw}).save(path)
    return path


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_damaged_samples_are_told_apart_from_those_that_were_measured(how: str, sampled: Path) -> None:
    samples = sampled.with_name("p.samples.parquet")
    damage(samples, how)
    assert told_by(lambda: read_samples(load_profile(sampled), sampled), RawSamplesError, str(samples))


@pytest.mark.parametrize("name", ["../p.parquet", "/p.parquet", "a/b.parquet", "..", "p\0.parquet", ".parquet/x"])
def test_samples_lie_beside_their_profile(name: str, sampled: Path) -> None:
    content = with_value(json.loads(sampled.read_text()), ("samples", "file"), name)
    sampled.write_text(json.dumps(content), encoding="utf-8")
    assert told_by(lambda: load_profile(sampled), ValueError, str(sampled), "samples.file")


def test_what_a_profile_says_is_text_to_its_page() -> None:
    named = json.dumps(with_value(CONTENT, ("provenance", "source"), "</script><script>alert(1)</script>\"'"))
    page = profile_page(type(load_profile("llama-3.1-8b-h100")).model_validate_json(named), (), "<script>")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


HEADER = (
    "model,hardware,prompt_size,batch_size,token_size,peak_power,average_power,prompt_time,token_time,e2e_time,"
    "tensor_parallel"
)


def _table() -> list[str]:
    rows = []
    for prompt, batch, out in product((128, 512, 1024), (1, 4, 16), (8, 64)):
        prompt_ms, token_ms = 20 + prompt * batch / 50, 5 + batch
        e2e_ms = prompt_ms + token_ms * (out - 1)
        rows.append(f"m,h100,{prompt},{batch},{out},1,1,{prompt_ms},{token_ms},{e2e_ms},1")
    return [HEADER, *rows]


def test_a_splitwise_table_with_a_wrong_field_is_refused_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    lines = _table()
    for value in ("", "x", "nan", "inf", "-3", "0", "0.5", "1e300", "[/b]<script>"):
        fields = lines[5].split(",")
        for i, name in enumerate(HEADER.split(",")):
            changed = ",".join([*fields[:i], value, *fields[i + 1 :]])
            path.write_text("\n".join([*lines[:5], changed, *lines[6:]]) + "\n")
            line = told_by(lambda: profile_of(read_splitwise(path, model="m", gpu="h100"), [path]), ImportedFileError)
            assert not line or str(path) in line
            if value in ("x", "nan", "inf", "-3") and name in ("prompt_size", "prompt_time", "e2e_time"):
                assert f"line 6, column {name}" in line


def test_a_splitwise_table_with_a_column_missing_or_twice_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [line.split(",") for line in _table()]
    for i, name in enumerate(HEADER.split(",")):
        for changed in ([row[:i] + row[i + 1 :] for row in rows], [[*row, row[i]] for row in rows]):
            path.write_text("\n".join(map(",".join, changed)) + "\n")
            line = told_by(lambda: profile_of(read_splitwise(path), [path]), ImportedFileError)
            assert name.endswith("power") or name in line


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_a_damaged_splitwise_table_is_read_or_refused_by_name(how: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for seed in range(8):
        path.write_text("\n".join(_table()) + "\n")
        damage(path, how, seed)
        told_by(lambda: profile_of(read_splitwise(path), [path]), ImportedFileError, str(path))


def _arrays() -> dict[str, Any]:
    isl = np.array([64, 128, 256, 512, 1024, 2048])
    usage, context = np.meshgrid([0.1, 0.3, 0.6, 0.9], [256.0, 1024.0, 4096.0])
    return {
        "prefill_isl": isl, "prefill_ttft": 5.0 + isl / 20, "x_kv_usage": usage.ravel(),
        "y_context_length": context.ravel(), "z_itl": 8 + 10 * usage.ravel(), "max_kv_tokens": np.array([100_000]),
    }  # fmt: skip


def _imported(path: Path) -> None:
    profile_of(read_dynamo([path], model="m", gpu="h100"), [path])


def test_a_dynamo_array_with_a_wrong_value_is_refused_by_file_and_array(tmp_path: Path) -> None:
    path = tmp_path / "raw_data.npz"
    np.savez(path, **_arrays())
    assert told_by(lambda: _imported(path), ImportedFileError) == ""
    for name, values in _arrays().items():
        for wrong in (np.nan, np.inf, -1.0, 0.0, 1e300):
            changed = values.astype(np.float64)
            changed[0] = wrong
            np.savez(path, **{**_arrays(), name: changed})
            assert name in told_by(lambda: _imported(path), ImportedFileError, str(path))
        for changed in (values[:0], values.astype(str), np.array([values, values]), values[:-1]):
            np.savez(path, **{**_arrays(), name: changed})
            told_by(lambda: _imported(path), ImportedFileError, str(path))


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "raw_data.npz"
    np.savez(path, **{**_arrays(), "z_itl": np.array([{"a": 1}], dtype=object)})
    assert "allow_pickle" in told_by(lambda: _imported(path), ImportedFileError, str(path))
    np.save(tmp_path / "x.npy", np.array([1, 2]))
    assert told_by(lambda: _imported(tmp_path / "x.npy"), ImportedFileError, "x.npy")
    (tmp_path / "y.npz").write_bytes(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00K\x01.")
    assert told_by(lambda: _imported(tmp_path / "y.npz"), ImportedFileError, "y.npz")


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_damaged_dynamo_files_are_read_or_refused_by_name(how: str, tmp_path: Path) -> None:
    path = tmp_path / "raw_data.npz"
    for seed in range(20):
        np.savez(path, **_arrays())
        damage(path, how, seed)
        told_by(lambda: _imported(path), ImportedFileError, str(path))


IDENTITY = {"gpu": "h100", "driver": "560.1"}


def _journal(path: Path) -> Journal:
    path.unlink(missing_ok=True)
    journal = Journal(path, IDENTITY)
    with journal.writing():
        for number in range(8):
            journal.add("sample", number=number, cost_s=0.5)
    return journal


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_a_damaged_journal_gives_back_only_what_was_written_and_counts_or_keeps_the_rest(
    how: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    for seed in range(20):
        written = _journal(path).entries
        damage(path, how, seed)
        found = Journal(path, IDENTITY)
        assert all(entry in written for entry in found.entries if "kind" in entry)
        if found.discarded:
            assert path.with_name("journal.old").exists()
            assert found.entries == []
        lost = len(written) - sum(entry in found.entries for entry in written)
        # A last line that was cut off is as a kill leaves it.
        assert found.discarded or found.damaged or lost <= 1 or how in ("cut off", "empty", "a piece missing")


def test_a_journal_of_anything_is_no_journal_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for text in (
        "1\n",
        "[]\n",
        '{"a": 1}\n',
        '{"identity": 3}\n',
        '{"identity": {}, "crc32": "x"}\n',
        "[" * 9999 + "\n",
    ):
        path.write_text(text)
        assert Journal(path, IDENTITY).entries == []
        assert path.with_name("journal.old").read_text() == text


def test_every_export_of_a_sound_profile_goes_well_and_of_a_strange_one_says_why(tmp_path: Path) -> None:
    for number, format_ in enumerate(EXPORT_FORMATS.values()):
        told_by(
            lambda format_=format_, number=number: export(
                [load_profile("llama-3.1-8b-h100")], format_, tmp_path / str(number), ExportSettings()
            ),
            (ExportError, OutsideDomainError),
        )

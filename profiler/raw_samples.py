"""The raw samples of a profile: Parquet beside its JSON, named and digested in it."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from profiler.profile import ServerProfile
from profiler.profile_parts import RawSamples, StepSample
from workloads.first_fault import first_fault

# Columns of samples of iterations, in order, with their units.
SAMPLE_UNITS: Mapping[str, str] = MappingProxyType(
    {
        "kind": "",
        "point": "",
        "repeat": "",
        "prefill_tokens": "tokens per iteration",
        "prefill_pairs": "query-key pairs per iteration",
        "decode_seqs": "sequences per iteration",
        "kv_tokens": "tokens read per iteration",
        "steps": "iterations",
        "observed_s": "s",
        "held_out": "",
    }
)


class RawSamplesError(ValueError):
    """Raw samples are missing or not those of the profile; the message is one line for the user."""


def write_rows(rows: Sequence[Mapping[str, object]], path: Path, units: Mapping[str, str]) -> RawSamples:
    """Write `rows` (all of the keys of `units`, which tells a unit for each column) and say what was written."""
    columns = {name: [row[name] for row in rows] for name in units}
    table = pa.table(columns)
    fields = [field.with_metadata({"unit": units[field.name]}) for field in table.schema]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.cast(pa.schema(fields)), path, compression="zstd")
    return RawSamples(file=path.name, sha256=_sha256(path), rows=len(rows))


def write_samples(samples: Sequence[StepSample], path: Path) -> RawSamples:
    """Write samples of iterations, one row each, under the names of `StepSample`."""
    return write_rows([sample.model_dump() for sample in samples], path, SAMPLE_UNITS)


def read_samples(profile: ServerProfile, profile_path: Path) -> tuple[StepSample, ...]:
    """The samples of iterations that the profile at `profile_path` was fitted to; none when it names none.

    Raises RawSamplesError when the file is missing or is not the one that the profile names.
    """
    if profile.samples is None:
        return ()
    rows = read_table(profile.samples, profile_path).to_pylist()
    try:
        return tuple(StepSample.model_validate(row) for row in rows)
    except ValidationError as error:
        raise RawSamplesError(f"{profile_path.parent / profile.samples.file}: {first_fault(error)}") from error


def read_table(raw: RawSamples, profile_path: Path) -> pa.Table:
    """The rows that the profile at `profile_path` names, checked against their digest. Raises RawSamplesError."""
    path = profile_path.parent / raw.file
    if not path.is_file():
        raise RawSamplesError(f"{profile_path} names its raw samples {raw.file}, which is not beside it; copy both")
    try:
        if _sha256(path) != raw.sha256:
            raise RawSamplesError(
                f"{path} is not the file that {profile_path} names: its SHA-256 differs; measure again"
            )
        return pq.read_table(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RawSamplesError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

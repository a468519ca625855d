"""Interpolation data of Dynamo's profiler: raw_data.npz of prefill and of decode."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiler.imports.imported import Imported, ImportedFileError
from profiler.profile_parts import StepSample
from profiler.step_time import prefill_pairs

_PREFILL = ("prefill_isl", "prefill_ttft")
_DECODE = ("x_kv_usage", "y_context_length", "z_itl", "max_kv_tokens")
# What numpy and the zip module raise of files that are no npz.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
LARGEST = 1e12
_SUBFOLDERS = ("selected_prefill_interpolation", "selected_decode_interpolation")


def read_dynamo(paths: Sequence[Path], *, model: str, gpu: str, tensor_parallel_size: int = 1) -> Imported:
    """Samples from the two raw_data.npz, or from the folder that holds both; the files do not name the server.

    Raises ImportedFileError when either is missing or lacks an array.
    """
    arrays: dict[str, np.ndarray] = {}
    for path in _files(paths):
        try:
            arrays |= _arrays(path)
        except _UNREADABLE as error:
            raise ImportedFileError(f"{path}: not a readable npz file: {error}") from error
    missing = [name for name in (*_PREFILL, *_DECODE) if name not in arrays]
    if missing:
        raise ImportedFileError(
            f"{', '.join(map(str, paths))}: no array {', '.join(missing)}; wanted both the prefill and the decode"
            " raw_data.npz, or the folder that holds them"
        )
    _require_numbers(arrays, ", ".join(map(str, paths)))
    held = int(arrays["max_kv_tokens"][0])
    samples = [*_prefill(arrays), *_decode(arrays, held)]
    longest = int(arrays["prefill_isl"].max())
    return Imported(
        model=model,
        gpu=gpu,
        tensor_parallel_size=tensor_parallel_size,
        samples=tuple(samples),
        kv_tokens=held,
        max_num_seqs=max(1, int(max(sample.decode_seqs for sample in samples))),
        max_num_batched_tokens=longest,
        max_model_len=max(longest, int(arrays["y_context_length"].max())),
        notes=(
            "a prompt is taken for one iteration: the files do not tell how the server cut it",
            "sequences are x_kv_usage x max_kv_tokens / y_context_length, rounded",
            "max_num_seqs, max_num_batched_tokens and max_model_len are the largest in the files",
        ),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        raise ValueError("it holds one array without a name")
    with content:
        return {name: np.atleast_1d(content[name]) for name in content.files}


def _require_numbers(arrays: dict[str, np.ndarray], source: str) -> None:
    """Raise ImportedFileError for an array that does not hold as many finite numbers above 0 as its fellows."""
    for names in (_PREFILL, _DECODE[:3], _DECODE[3:]):
        for name in names:
            values = arrays[name]
            if values.ndim != 1 or values.dtype.kind not in "iuf" or not len(values):
                raise ImportedFileError(
                    f"{source}: array {name} is {values.dtype} of shape {values.shape}; wanted numbers"
                )
            wrong = ~(np.isfinite(values) & (values > 0) & (values < LARGEST))
            if wrong.any():
                place = int(np.argmax(wrong))
                raise ImportedFileError(
                    f"{source}: array {name}, place {place}: {values[place]}; must be above 0 and finite"
                )
            if len(values) != len(arrays[names[0]]):
                raise ImportedFileError(
                    f"{source}: array {name} has {len(values)} values, {names[0]} {len(arrays[names[0]])}"
                )


def _files(paths: Sequence[Path]) -> list[Path]:
    return [
        file
        for path in paths
        for file in ([path / name / "raw_data.npz" for name in _SUBFOLDERS] if path.is_dir() else [path])
    ]


def _prefill(arrays: dict[str, Any]) -> list[StepSample]:
    return [
        StepSample(
            kind="prefill",
            point=f"prefill {isl:g}",
            repeat=0,
            prefill_tokens=float(isl),
            prefill_pairs=prefill_pairs(float(isl)),
            decode_seqs=0,
            kv_tokens=0,
            steps=1,
            observed_s=float(ttft_ms) / 1e3,
        )
        for isl, ttft_ms in zip(arrays["prefill_isl"], arrays["prefill_ttft"], strict=True)
    ]


def _decode(arrays: dict[str, Any], held: int) -> list[StepSample]:
    samples = []
    for row, (usage, context, itl_ms) in enumerate(
        zip(arrays["x_kv_usage"], arrays["y_context_length"], arrays["z_itl"], strict=True)
    ):
        kv_tokens = float(usage) * held
        samples.append(
            StepSample(
                kind="decode",
                point=f"decode {row}",
                repeat=0,
                prefill_tokens=0,
                prefill_pairs=0,
                decode_seqs=max(1, round(kv_tokens / float(context))),
                kv_tokens=kv_tokens,
                steps=1,
                observed_s=float(itl_ms) / 1e3,
            )
        )
    return samples

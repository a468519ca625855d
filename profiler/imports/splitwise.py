"""SplitwiseSim's and SageServe's performance table."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler.exports.splitwise import COLUMNS
from profiler.imports.imported import Imported, ImportedFileError
from profiler.imports.units import TableUnits, Units, UnitsError, detect_units
from profiler.profile_parts import StepSample
from profiler.step_time import prefill_pairs

_NEEDED = [column for column in COLUMNS if column not in ("peak_power", "average_power")]
_WHOLE = ("tensor_parallel", "prompt_size", "batch_size", "token_size")
LARGEST = 1e12
_SERVER = ["model", "hardware", "tensor_parallel"]


def read_splitwise(
    path: Path,
    *,
    model: str | None = None,
    gpu: str | None = None,
    tensor_parallel_size: int | None = None,
    units: Units | None = None,
    kv_tokens: int | None = None,
) -> Imported:
    """Samples of one server from the table at `path`; the three names pick it where there are several.

    Raises ImportedFileError for a file that is no such table, when not exactly one server is picked, when its units
    cannot be told, and when all of its rows are of one sequence.
    """
    table = _one_server(_table(path), path, {"model": model, "hardware": gpu, "tensor_parallel": tensor_parallel_size})
    if table["batch_size"].max() < 2:
        raise ImportedFileError(
            f"{path}: every row has batch_size 1, which says nothing of sequences that decode together (or is the"
            " iteration-axis form); give a table with several batch sizes"
        )
    try:
        unit = TableUnits(units=units, why="as told") if units else detect_units(table)
    except UnitsError as error:
        raise ImportedFileError(f"{path}: {error}") from error
    largest = int((table["batch_size"] * (table["prompt_size"] + table["token_size"])).max())
    whole_batches = _prefill_grows_with_batch(table)
    notes = [
        f"units {unit.units}: {unit.why}",
        "a batch of prompts is taken for one iteration"
        if whole_batches
        else "prompt_time does not grow with batch_size, it is not of a whole batch: only single ones are used",
        "max_num_seqs, max_num_batched_tokens and max_model_len are the largest in the table",
    ]
    for column in ("prompt_time", "token_time"):
        if untimed := int((table[column] == 0).sum()):
            notes.append(f"{untimed} rows have no {column}: nothing is taken from it")
    if kv_tokens is None:
        notes.append("the KV cache is not in the table: the most tokens that a row holds, a lower bound")
    return Imported(
        model=str(table["model"].iloc[0]),
        gpu=str(table["hardware"].iloc[0]),
        tensor_parallel_size=int(table["tensor_parallel"].iloc[0]),
        samples=_samples(table, unit, whole_batches),
        kv_tokens=kv_tokens or largest,
        max_num_seqs=int(table["batch_size"].max()),
        max_num_batched_tokens=int((table["batch_size"] * table["prompt_size"]).max()),
        max_model_len=int((table["prompt_size"] + table["token_size"]).max()),
        notes=tuple(notes),
    )


def _table(path: Path) -> pd.DataFrame:
    if path.is_dir():
        raise ImportedFileError(f"{path} is a folder; name its performance table, a CSV file")
    try:
        table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ImportedFileError(f"{path}: not a readable CSV file: {' '.join(str(error).split())}") from error
    header = table.iloc[0].tolist()
    missing = [column for column in _NEEDED if column not in header]
    if missing:
        raise ImportedFileError(f"{path} lacks columns {', '.join(missing)}; wanted SplitwiseSim's performance table")
    twice = [column for column in _NEEDED if header.count(column) > 1]
    if twice:
        raise ImportedFileError(f"{path} has column {twice[0]} twice; take one away")
    table = table.iloc[1:].set_axis(header, axis="columns")[_NEEDED].reset_index(drop=True)
    for column in _NEEDED:
        table[column] = (
            _names(table[column], path) if column in ("model", "hardware") else _numbers(table[column], path)
        )
    return table


def _names(texts: pd.Series, path: Path) -> pd.Series:
    _refuse(texts, (texts.str.strip() == "").to_numpy(), path, "wanted a name")
    return texts


def _numbers(texts: pd.Series, path: Path) -> pd.Series:
    """A column as numbers. Raises ImportedFileError for the first row that has none, or one that cannot be."""
    found = pd.to_numeric(texts, errors="coerce").astype(np.float64)
    whole = texts.name in _WHOLE
    values = found.to_numpy()
    wrong = ~((values >= whole) & (values < LARGEST)) | (whole & (values != np.floor(values)))
    _refuse(texts, wrong, path, "wanted a whole number, 1 or more" if whole else "wanted a time, 0 or more")
    return found.astype(np.int64) if whole else found


def _refuse(texts: pd.Series, wrong: npt.NDArray[np.bool_], path: Path, wanted: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ImportedFileError(f"{path}, line {row + 2}, column {texts.name}: {texts.iloc[row]!r}; {wanted}")


def _one_server(table: pd.DataFrame, path: Path, picked: dict[str, object]) -> pd.DataFrame:
    rows = table
    for column, value in picked.items():
        if value is not None:
            rows = rows[rows[column] == value]
    found = rows[_SERVER].drop_duplicates()
    if len(found) == 1:
        return rows
    known = found if len(found) else table[_SERVER].drop_duplicates()
    servers = "; ".join(f"{model} on {tp} x {gpu}" for model, gpu, tp in known.itertuples(index=False))
    raise ImportedFileError(
        f"{path}: {len(found)} fit, wanted one; pick with --model, --gpu, --tensor-parallel-size among: {servers}"
    )


def _prefill_grows_with_batch(table: pd.DataFrame) -> bool:
    """False when a batch of prompts takes as long as one a quarter its size: it is the first prompt that was timed."""
    times = table[table["batch_size"] > 1].groupby(["prompt_size", "batch_size"])["prompt_time"].median()
    for prompt in times.index.unique("prompt_size"):
        of_prompt = times.loc[prompt]
        smallest, largest = of_prompt.index.min(), of_prompt.index.max()
        if largest >= 4 * smallest and of_prompt[largest] < 1.2 * of_prompt[smallest]:
            return False
    return True


def _samples(table: pd.DataFrame, unit: TableUnits, whole_batches: bool) -> tuple[StepSample, ...]:
    samples: list[StepSample] = []
    repeats: dict[str, int] = {}

    def add(kind: str, point: str, **values: float) -> None:
        repeat = repeats[point] = repeats.get(point, -1) + 1
        samples.append(StepSample.model_validate({"kind": kind, "point": point, "repeat": repeat, **values}))

    sizes = table[["batch_size", "prompt_size", "token_size"]].to_numpy(dtype=np.int64)
    seconds = table[["prompt_time", "token_time"]].to_numpy(dtype=np.float64) * unit.seconds
    for (batch, prompt, output), (prefill_s, token_s) in zip(sizes.tolist(), seconds.tolist(), strict=True):
        if prefill_s > 0 and (whole_batches or batch == 1):
            add(
                "prefill",
                f"prefill {batch} x {prompt}",
                prefill_tokens=batch * prompt,
                prefill_pairs=batch * prefill_pairs(prompt),
                decode_seqs=0,
                kv_tokens=0,
                steps=1,
                observed_s=prefill_s,
            )
        steps = output - 1
        decode_s = token_s * (1 if unit.whole_answer else steps)
        if steps > 0 and decode_s > 0:
            add(
                "decode",
                f"decode {batch} x {prompt} + {output}",
                prefill_tokens=0,
                prefill_pairs=0,
                decode_seqs=batch,
                # Step k of the answer reads the prompt and the k tokens before it.
                kv_tokens=batch * (prompt + output / 2),
                steps=steps,
                observed_s=decode_s,
            )
    return tuple(samples)

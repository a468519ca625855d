"""SplitwiseSim's and SageServe's performance table."""

from pathlib import Path

import numpy as np
import pandas as pd

from profiler.exports.splitwise import COLUMNS
from profiler.imports.imported import Imported, ImportedFileError
from profiler.imports.units import TableUnits, Units, UnitsError, detect_units
from profiler.profile_parts import StepSample
from profiler.step_time import prefill_pairs

_NEEDED = [column for column in COLUMNS if column not in ("peak_power", "average_power")]
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
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ImportedFileError(f"{path}: not a readable CSV file: {error}") from error
    missing = [column for column in _NEEDED if column not in table.columns]
    if missing:
        raise ImportedFileError(f"{path} lacks columns {', '.join(missing)}; wanted SplitwiseSim's performance table")
    return table


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

"""What makes a table a trace: columns, types and the rules their values keep. The first breach is named."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.optional_columns import OPTIONAL_COLUMNS, canonical_optional, check_optional, one_chunk
from workloads.request import Tier

NUMBER_TYPES: Mapping[str, pa.DataType] = {
    "request_id": pa.int64(),
    "arrival_s": pa.float64(),
    "prompt_tokens": pa.int32(),
    "output_tokens": pa.int32(),
    "deadline_s": pa.float64(),
    "tenant": pa.int32(),
}
LABELS = ("model", "region", "tier")
COLUMNS = (
    "request_id", "arrival_s", "model", "region", "tier", "prompt_tokens", "output_tokens", "deadline_s", "tenant",
)  # fmt: skip
NO_TENANT = -1


class TraceError(ValueError):
    """A table or file that is no trace; one line that names the file, the column and the row."""


def canonical(table: pa.Table, source: str, first_row: int = 0) -> pa.Table:
    """`table` with the columns of a trace, in their order and types, each in one chunk; optional ones that it has last.

    Strings become dictionary<int16, string> with sorted names that all occur, so that equal content is equal bytes.
    An absent `tenant` column is filled with -1 (not known), nulls in `deadline_s` become NaN. `first_row` is the place
    of the table's first row in its source.
    Raises TraceError for a missing, extra, wrongly typed or otherwise empty value, and for an arrival that cannot be.
    """
    columns = list(table.column_names)
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    missing = [name for name in COLUMNS if name not in columns and name != "tenant"]
    optional = [name for name in OPTIONAL_COLUMNS if name in columns]
    extra = [name for name in columns if name not in COLUMNS and name not in optional]
    for problem, names in (("repeated", repeated), ("missing", missing), ("extra", extra)):
        if names:
            known = f"a trace has {', '.join(COLUMNS)} and may have {', '.join(OPTIONAL_COLUMNS)}"
            raise TraceError(f"{source}: {problem} column {', '.join(names)}; {known}")
    if "tenant" not in columns:
        table = table.append_column("tenant", pa.array(np.full(len(table), NO_TENANT, dtype=np.int32)))
    arrays = [(_labels if name in LABELS else _numbers)(table[name], name, source, first_row) for name in COLUMNS]
    try:
        arrays += [canonical_optional(table[name], name) for name in optional]
    except ValueError as error:
        raise TraceError(f"{source}: {error}") from None
    return pa.table(arrays, names=[*COLUMNS, *optional])


def check(table: pa.Table, horizon_s: float, source: str, prefix_block_tokens: int | None = None) -> None:
    """Raise TraceError at the first value of a canonical table that breaks a rule."""
    wrong = check_optional(table, prefix_block_tokens, partial(_refuse, source))
    if wrong is not None:
        raise TraceError(f"{source}: {wrong}")
    number = {name: table[name].chunk(0).to_numpy(zero_copy_only=True) for name in NUMBER_TYPES} if len(table) else {}
    if not number:
        return
    arrival_s, deadline_s = number["arrival_s"], number["deadline_s"]
    unsorted = np.concatenate(([False], np.diff(arrival_s) < 0))
    _refuse(source, "arrival_s", arrival_s, unsorted, "lies before the row above; sort the rows by arrival_s")
    late = arrival_s > horizon_s
    _refuse(source, "arrival_s", arrival_s, late, f"lies after the horizon of {horizon_s} s that the metadata declare")
    for name in ("prompt_tokens", "output_tokens"):
        _refuse(source, name, number[name], number[name] < 1, "must be at least 1")
    _refuse(source, "deadline_s", deadline_s, np.isinf(deadline_s), "must be finite, or NaN for none")
    # Comparisons with NaN are false: no deadline is never early.
    _refuse(source, "deadline_s", deadline_s, deadline_s < arrival_s, "lies before arrival_s of the same row")
    _refuse(source, "tenant", number["tenant"], number["tenant"] < NO_TENANT, "must be 0 or more, or -1 for not known")
    _refuse(source, "request_id", number["request_id"], _repeats(number["request_id"]), "stands in an earlier row too")


def _labels(column: pa.ChunkedArray, name: str, source: str, first_row: int) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise TraceError(f"{source}: column {name} is {column.type}; wanted string or dictionary of string")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    _refuse_null(column, name, source, first_row)
    column = column.unify_dictionaries()
    given = [str(value) for value in column.chunk(0).dictionary.to_pylist()] if column.num_chunks else []
    codes = (
        np.concatenate([chunk.indices.to_numpy(zero_copy_only=False) for chunk in column.chunks])
        if column.num_chunks
        else np.empty(0, dtype=np.int16)
    )
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(given):
        raise TraceError(f"{source}: column {name} points beyond its {len(given)} names; the file is damaged")
    used = np.bincount(codes, minlength=len(given)) > 0
    names = sorted({value for value, occurs in zip(given, used, strict=True) if occurs})
    if len(names) > np.iinfo(np.int16).max:
        raise TraceError(f"{source}: column {name} has {len(names)} different values; at most 32767 are kept")
    place = {value: index for index, value in enumerate(names)}
    new_code = np.array([place.get(value, -1) for value in given], dtype=np.int16)
    codes = new_code[codes] if len(given) else codes.astype(np.int16)
    known = set(Tier) if name == "tier" else None
    for value in names:
        if value.strip() == "" or (known is not None and value not in known):
            row = first_row + int(np.argmax(codes == place[value]))
            wanted = f"wanted one of {', '.join(Tier)}" if known is not None else "must not be empty"
            raise TraceError(f"{source}: column {name}, row {row}: {value!r}; {wanted}")
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names, type=pa.string()))


def _numbers(column: pa.ChunkedArray, name: str, source: str, first_row: int) -> pa.Array:
    wanted = NUMBER_TYPES[name]
    if column.type != wanted:
        raise TraceError(f"{source}: column {name} is {column.type}; wanted {wanted}")
    if name == "deadline_s":
        column = pc.fill_null(column, np.nan)
    _refuse_null(column, name, source, first_row)
    if name == "arrival_s":
        arrival_s = column.to_numpy()
        wrong = ~(np.isfinite(arrival_s) & (arrival_s >= 0))
        _refuse(source, name, arrival_s, wrong, "must be finite, 0 or more", first_row)
    return one_chunk(column)


def _refuse_null(column: pa.ChunkedArray, name: str, source: str, first_row: int) -> None:
    if column.null_count:
        row = first_row + int(pc.index(pc.is_null(column), True).as_py())
        raise TraceError(f"{source}: column {name}, row {row}: no value; every row needs one")


def _refuse(
    source: str, name: str, values: npt.NDArray[Any], bad: npt.NDArray[np.bool_], why: str, first_row: int = 0
) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise TraceError(f"{source}: column {name}, row {first_row + row}: {values[row]}; {why}")


def _repeats(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which rows hold an id that an earlier row holds."""
    if bool((np.diff(ids) > 0).all()):  # as this project's own traces have them: no sort needed
        return np.zeros(len(ids), dtype=np.bool_)
    order = np.argsort(ids, kind="stable")
    repeats = np.zeros(len(ids), dtype=np.bool_)
    repeats[order[1:]] = ids[order[1:]] == ids[order[:-1]]
    return repeats

"""Columns that a trace has only where its source knows them: sessions, shared prefixes, cancellations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

OPTIONAL_TYPES: Mapping[str, pa.DataType] = {
    "session": pa.int64(),
    "turn": pa.int32(),
    "think_s": pa.float64(),
    "prefix_hashes": pa.list_(pa.int64()),
    "cancel_after_s": pa.float64(),
}
"""`session`: requests with the same number belong to one conversation; -1: to none.
`turn`: place in the session, 1 or more, rising with time; 0 outside a session. A turn waits for the answer to the row
above it in its session; a session may begin after turn 1, where the trace does.
`think_s`: seconds from the last token of that answer to this request; NaN: not known, so the turn is due at arrival_s.
`prefix_hashes`: one number per block of `prefix_block_tokens` (metadata) of the prompt, from its start; two prompts are
equal as far as their numbers are. The list may be shorter than the prompt: nothing is known of the rest.
`cancel_after_s`: seconds after sending at which the client gives up; NaN: never."""

OPTIONAL_COLUMNS = tuple(OPTIONAL_TYPES)
SESSION_COLUMNS = ("session", "turn", "think_s")
NO_SESSION = -1

Refuse = Callable[[str, npt.NDArray[np.generic], npt.NDArray[np.bool_], str], None]


def canonical_optional(column: pa.ChunkedArray, name: str) -> pa.Array:
    """An optional column in one chunk, absent values as -1, 0, NaN or an empty list. Raises ValueError, one line."""
    wanted = OPTIONAL_TYPES[name]
    kind = column.type
    if pa.types.is_large_list(kind):
        kind = pa.list_(kind.value_type)
    # The name of a list's items ("item", "element") depends on who wrote the file.
    alike = kind == wanted or (pa.types.is_list(kind) and name == "prefix_hashes" and kind.value_type == pa.int64())
    if not alike:
        raise ValueError(f"column {name} is {column.type}; wanted {wanted}")
    array = one_chunk(column.cast(wanted) if column.type != wanted else column)
    if array.null_count and name == "prefix_hashes":
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        array = lists(np.asarray(pc.list_flatten(array)), lengths)
    elif array.null_count:
        array = pc.fill_null(array, pa.scalar({"session": NO_SESSION, "turn": 0}.get(name, np.nan), wanted))
    if name == "prefix_hashes" and array.values.null_count:
        raise ValueError(f"column {name} holds a list with a missing number; every block needs one")
    return array


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column in one array; not copied where they are in one already."""
    if column.num_chunks == 1:
        return column.chunk(0)
    merged = column.combine_chunks()
    return pa.concat_arrays(merged.chunks) if isinstance(merged, pa.ChunkedArray) else merged


def lists(values: npt.NDArray[np.int64], lengths: npt.NDArray[np.integer]) -> pa.ListArray:
    """An Arrow array of lists of int64: `values` (all lists end to end), of `lengths` (rows,) each."""
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, pa.int64()))


def check_optional(table: pa.Table, prefix_block_tokens: int | None, refuse: Refuse) -> str | None:
    """Hand the first breach of a rule to `refuse`, or return what is wrong with the set of columns, else None."""
    names = set(table.column_names) & set(OPTIONAL_COLUMNS)
    if ("session" in names) != ("turn" in names):
        return "columns session and turn go together; there is only one of them"
    if "think_s" in names and "session" not in names:
        return "column think_s without session; thinking is between the turns of a session"
    if ("prefix_hashes" in names) != (prefix_block_tokens is not None):
        return "column prefix_hashes and prefix_block_tokens in the metadata go together; there is only one of them"
    if not len(table):
        return None
    if "session" in names:
        _check_sessions(_values(table, "session"), _values(table, "turn"), refuse)
    if "think_s" in names:
        think_s = _values(table, "think_s")
        refuse("think_s", think_s, (think_s < 0) | np.isinf(think_s), "must be finite, 0 or more, or NaN")
    if "cancel_after_s" in names:
        cancel_s = _values(table, "cancel_after_s")
        refuse("cancel_after_s", cancel_s, (cancel_s <= 0) | np.isinf(cancel_s), "must be finite, above 0, or NaN")
    if prefix_block_tokens is not None:
        blocks = pc.list_value_length(table["prefix_hashes"].chunk(0)).to_numpy(zero_copy_only=False)
        most = -(-_values(table, "prompt_tokens").astype(np.int64) // prefix_block_tokens)
        why = f"numbers; more than the blocks of {prefix_block_tokens} tokens that the prompt has"
        refuse("prefix_hashes", blocks, blocks > most, why)
    return None


def _check_sessions(session: npt.NDArray[np.int64], turn: npt.NDArray[np.int32], refuse: Refuse) -> None:
    refuse("session", session, session < NO_SESSION, "must be 0 or more, or -1 for none")
    within = session != NO_SESSION
    refuse("turn", turn, within & (turn < 1), "must be 1 or more in a session")
    refuse("turn", turn, ~within & (turn != 0), "must be 0 outside a session")
    rows = np.flatnonzero(within)
    rows = rows[np.argsort(session[rows], kind="stable")]
    same = session[rows[1:]] == session[rows[:-1]]
    falls = np.zeros(len(session), dtype=np.bool_)
    falls[rows[1:][same & (turn[rows[1:]] <= turn[rows[:-1]])]] = True
    refuse("turn", turn, falls, "is not above the turn before it in its session")


def _values(table: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = table[name].chunk(0).to_numpy(zero_copy_only=True)
    return values

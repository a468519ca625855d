"""How files break, and what a reader may do about one: read it, or say in one line what is wrong with it."""

import gzip
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

READS_WITHIN_S = 20.0


# Of any file.


def _cut_off(content: bytes, chance: np.random.Generator) -> bytes:
    return content[: int(chance.integers(1, len(content)))]


def _bit_flipped(content: bytes, chance: np.random.Generator) -> bytes:
    place = int(chance.integers(len(content)))
    return content[:place] + bytes([content[place] ^ (1 << int(chance.integers(8)))]) + content[place + 1 :]


def _overwritten(content: bytes, chance: np.random.Generator) -> bytes:
    place = int(chance.integers(len(content)))
    return content[:place] + chance.bytes(min(40, len(content) - place)) + content[place + 40 :]


def _without_a_piece(content: bytes, chance: np.random.Generator) -> bytes:
    begin = int(chance.integers(len(content)))
    return content[:begin] + content[begin + int(chance.integers(1, 200)) :]


DAMAGED_BYTES: Mapping[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "empty": lambda content, chance: b"",
    "a newline": lambda content, chance: b"\n",
    "cut off": _cut_off,
    "a bit flipped": _bit_flipped,
    "overwritten": _overwritten,
    "a piece missing": _without_a_piece,
    "not UTF-8": lambda content, chance: b"\xff\xfe" + content,
    "NULs": lambda content, chance: content[: len(content) // 2] + b"\0" * 64 + content[len(content) // 2 :],
    "another kind of file": lambda content, chance: chance.bytes(4096),
    "twice": lambda content, chance: content + content,
    "zipped and cut off": lambda content, chance: _cut_off(gzip.compress(content), chance),
}


def damage(path: Path, how: str, seed: int = 1) -> Path:
    """Damage the file at `path` in place; another `seed` in another place."""
    path.write_bytes(DAMAGED_BYTES[how](path.read_bytes(), np.random.default_rng(seed)))
    return path


# Of values in a file of text.

WRONG_VALUES: Mapping[str, Any] = {
    "nothing": None,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "negative": -3,
    "zero": 0,
    "a fraction": 0.5,
    "huge": 1e300,
    "a huge whole number": 10**30,
    "true": True,
    "empty text": "",
    "text": "twelve",
    "long text": "x" * 20_000,
    "markup": "[/red]<script>alert(1)</script>\x1b[31m\n",
    "half a character": "\ud800",
    "a folder above": "../../x",
    "a list": [1, [2]],
    "a mapping": {"unheard": {"of": 1}},
}


def places(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested mappings and lists: every key and the first two of a list."""
    inside: Iterator[tuple[Any, Any]] | list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        inside = iter(document.items())
    elif isinstance(document, list):
        inside = list(enumerate(document))[:2]
    for key, value in inside:
        yield (*above, key)
        yield from places(value, (*above, key))


def with_value(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy in which `value` stands at `place`."""
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[place[0]] = with_value(copy[place[0]], place[1:], value)
    return copy


def without(document: Any, place: tuple[Any, ...]) -> Any:
    """A copy without what stands at `place`."""
    copy = dict(document) if isinstance(document, dict) else list(document)
    if len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = without(copy[place[0]], place[1:])
    return copy


def renamed(document: Any, place: tuple[Any, ...]) -> Any:
    """A copy in which the key at `place` has another name."""
    if len(place) > 1:
        return with_value(document, place[:1], renamed(document[place[0]], place[1:]))
    if isinstance(document, list):
        return document
    return {(f"{key}x" if key == place[0] else key): value for key, value in document.items()}


def with_first_key_twice(text: str) -> str:
    """JSON of a mapping, its first key there twice."""
    key = next(iter(json.loads(text)))
    return text.replace("{", f"{{{json.dumps(key)}: 0, ", 1)


# Of tables.


def _one_value(value: Any) -> Callable[[pa.Table, str], pa.Table]:
    def change(table: pa.Table, name: str) -> pa.Table:
        values = table[name].to_pylist()
        kind = table.schema.field(name).type
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        values[len(values) // 2] = value
        return _with_column(table, name, pa.array(values, plain).cast(kind))

    return change


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def _as_text(table: pa.Table, name: str) -> pa.Table:
    return _with_column(table, name, pa.array([str(value) for value in table[name].to_pylist()]))


def _renamed_column(table: pa.Table, name: str) -> pa.Table:
    return table.rename_columns([f"{name}x" if each == name else each for each in table.column_names])


DAMAGED_TABLES: Mapping[str, Callable[[pa.Table, str], pa.Table]] = {
    "column missing": lambda table, name: table.drop_columns(name),
    "column renamed": _renamed_column,
    "column twice": lambda table, name: table.append_column(name, table[name]),
    "column as text": _as_text,
    "null": _one_value(None),
    "NaN": _one_value(float("nan")),
    "infinite": _one_value(float("inf")),
    "negative": _one_value(-5),
    "huge": _one_value(2**31 - 1),
    "huger": _one_value(1e300),
    "empty text": _one_value(""),
    "unknown text": _one_value("../<script>"),
    "rows backwards": lambda table, name: table.take(pa.array(np.arange(len(table))[::-1])),
    "rows twice": lambda table, name: pa.concat_tables([table, table]),
    "no rows": lambda table, name: table.slice(0, 0),
    "sorted by it": lambda table, name: table.take(pc.sort_indices(table[name].combine_chunks())),
}


def damaged_table(table: pa.Table, how: str, column: str) -> pa.Table | None:
    """`table` with the damage; None where a column of that type cannot hold it."""
    try:
        return DAMAGED_TABLES[how](table, column)
    except (pa.ArrowException, TypeError, OverflowError, IndexError):  # an IndexError: a table without rows
        return None


def rewrite(path: Path, table: pa.Table) -> Path:
    """Put a table in the place of a Parquet file."""
    pq.write_table(table, path)
    return path


# Of readers.


@contextmanager
def in_time(within_s: float = READS_WITHIN_S) -> Iterator[None]:
    """Fail where the block takes longer: a reader must not hang."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"took longer than {within_s:g} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, within_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def told_by(read: Callable[[], Any], error: type[Exception], *named: str) -> str:
    """What `read` says of a file that it refuses, "" where it reads it.

    Whatever it raises is an `error` of one line, and names each of `named`; anything else fails the test.
    """
    with in_time():
        try:
            read()
        except error as told:
            line = str(told)
            for name in named:
                assert name in line, f"{name} is not named: {line}"
            return line
    return ""

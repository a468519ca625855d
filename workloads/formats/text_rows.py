"""Columns of text of one block of rows, turned into numbers; what cannot be is counted, row by row."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.formats.findings import Findings, shortened
from workloads.lengths import MOST_TOKENS
from workloads.trace_checks import TraceError

TOKENS = f"wanted whole tokens, 1 to {MOST_TOKENS:,}"
DATES = "wanted a date and time such as 2024-05-10 00:00:00.009930+00:00"

Mask = npt.NDArray[np.bool_]
_DATE = re.compile(rb"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:?\d\d)?")
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class TextRows:
    """`columns` are Arrow arrays of bytes, `line` (rows,) where each stands in its file; `good` the rows still kept."""

    def __init__(self, columns: Mapping[str, pa.Array], line: npt.NDArray[np.int64], findings: Findings) -> None:
        self.columns = columns
        self.line = line
        self.good: Mask = np.ones(len(line), dtype=np.bool_)
        self._findings = findings
        findings.rows_read += len(line)

    def refuse(self, column: str, bad: Mask, reason: str) -> None:
        """Rows where `bad` holds are skipped for `reason`, those that are skipped already not once more."""
        bad = bad & self.good
        if bad.any():
            first = int(np.argmax(bad))
            values = self.columns.get(column)
            example = b"" if values is None else values[first].as_py() or b""
            self._findings.skip(column, reason, self.line[bad], example)
            self.good &= ~bad

    def tokens(self, column: str) -> npt.NDArray[np.int64]:
        """Whole numbers of 1 or more, shape (rows,). Raises TraceError where most are fractions, as of thousands."""
        values = self.whole(column, TOKENS)
        self.refuse(column, values < 1, f"below 1; {TOKENS}")
        self.refuse(column, values > MOST_TOKENS, f"above {MOST_TOKENS:,}; {TOKENS}")
        return values

    def whole(self, column: str, wanted: str) -> npt.NDArray[np.int64]:
        """Whole numbers, shape (rows,); rows that hold none are refused."""
        fast = _cast(self.columns[column], pa.int64())
        if fast is not None:
            return fast
        found = self.numbers(column, wanted)
        fraction = np.isfinite(found) & (found != np.floor(found))
        thousands = [text for text in self.columns[column].to_pylist() if text and text.strip()[-1:] in (b"k", b"K")]
        if fraction.sum() * 2 > max(1, self.good.sum()) or len(thousands) * 2 > max(1, len(self.line)):
            where = int(np.argmax(fraction | ~self.good))
            shown = shortened(self.columns[column][where].as_py())
            raise self._wrong(column, where, f"{shown}; most values have a fraction or end in k: thousands? {wanted}")
        self.refuse(column, fraction, f"a fraction; {wanted}")
        huge = np.abs(found) >= 2.0**53
        self.refuse(column, huge, f"too large; {wanted}")
        return np.where(self.good, found, 0).astype(np.int64)

    def numbers(self, column: str, wanted: str, *, may_be_empty: bool = False) -> npt.NDArray[np.float64]:
        """Finite numbers, shape (rows,); rows that hold none are refused. NaN stands for a field that may be empty."""
        values = self.columns[column]
        empty = np.zeros(len(values), dtype=np.bool_)
        if may_be_empty:
            empty = np.asarray(pc.equal(values, b""))
            values = pc.if_else(pa.array(empty), b"nan", values)
        found: npt.NDArray[np.float64] | None = _cast(values, pa.float64())
        if found is None:
            texts = [(value or b"").strip() for value in values.to_pylist()]
            known = [_NUMBER.fullmatch(text) is not None for text in texts]
            found = np.array([float(text) if ok else np.nan for text, ok in zip(texts, known, strict=True)])
            self.refuse(column, np.array([not text for text in texts]), f"no value; {wanted}")
            self.refuse(column, ~np.array(known) & ~empty, f"not a number; {wanted}")
        self.refuse(column, ~np.isfinite(found) & ~empty, f"not a finite number; {wanted}")
        return np.where(self.good | empty, found, 0.0)

    def dates_ns(self, column: str) -> npt.NDArray[np.int64]:
        """Nanoseconds since 1970 UTC, shape (rows,); a time without a zone is taken as UTC."""
        values = self.columns[column]
        first = next((value.strip() for value in (scalar.as_py() for scalar in values) if value.strip()), b"")
        if _NUMBER.fullmatch(first):
            raise self._wrong(column, 0, f"{shortened(first)} is a number; {DATES}")
        zoned = first.endswith(b"Z") or first[-6:-5] in (b"+", b"-")
        fast = _cast(values, pa.timestamp("ns", "UTC" if zoned else None))
        if fast is None:
            fast = self._dates_one_by_one(column)
        self.refuse(column, fast < 0, f"before 1970; {DATES}")
        return np.where(self.good, fast, 0)

    def _dates_one_by_one(self, column: str) -> npt.NDArray[np.int64]:
        values = self.columns[column]
        found = [_nanoseconds((value or b"").strip()) for value in values.to_pylist()]
        bad = np.array([value is None for value in found], dtype=np.bool_)
        self.refuse(column, bad, f"not a date and time; {DATES}")
        return np.array([value or 0 for value in found], dtype=np.int64)

    def texts(self, column: str) -> pa.Array:
        """Strings, shape (rows,), not empty; rows whose bytes are no UTF-8 are refused."""
        return self.optional_texts(column, empty_is_bad=True)

    def optional_texts(self, column: str, *, empty_is_bad: bool = False) -> pa.Array:
        """Strings, shape (rows,), "" where there is none."""
        values = self.columns[column]
        try:
            found = values.cast(pa.string())
        except pa.ArrowInvalid:
            decoded = [_decoded(value) for value in values.to_pylist()]
            bad = np.array([text is None for text in decoded], dtype=np.bool_)
            self.refuse(column, bad, "not UTF-8 text")
            found = pa.array([text or "" for text in decoded], pa.string())
        if empty_is_bad:
            codes = found.dictionary_encode()
            blank = np.array([not text.strip() for text in codes.dictionary.to_pylist()], dtype=np.bool_)
            if blank.any():
                self.refuse(column, blank[np.asarray(codes.indices)], "no value")
        return found

    def _wrong(self, column: str, row: int, why: str) -> TraceError:
        return TraceError(f"{self._findings.source}, line {self.line[row]}, column {column}: {why}")

    def kept(self, columns: Mapping[str, npt.NDArray[Any] | pa.Array]) -> pa.Table:
        """A table of `columns`, each of all rows, without the rows that were refused; `line` comes along."""
        table = pa.table({**columns, "line": self.line})
        return table if self.good.all() else table.filter(pa.array(self.good))


def _cast(values: pa.Array, to: pa.DataType) -> npt.NDArray[Any] | None:
    """All of `values` as numbers; None where a single one is none."""
    try:
        cast = values.cast(pa.string()).cast(to)
    except pa.ArrowInvalid:
        return None
    if cast.null_count:
        return None
    numbers: npt.NDArray[Any] = (cast.cast(pa.int64()) if pa.types.is_timestamp(to) else cast).to_numpy()
    return numbers


def _decoded(value: bytes | None) -> str | None:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return None


def _nanoseconds(text: bytes) -> int | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    day, time, fraction, zone = (part.decode() if part else "" for part in match.groups())
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{zone or 'Z'}")
    except ValueError:
        return None
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    nanoseconds = seconds * 10**9 + int(fraction.ljust(9, "0") or 0)
    return nanoseconds if abs(nanoseconds) < 2**63 else None

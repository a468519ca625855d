"""What reading a file brought to light: rows kept, rows skipped and why, what a reader should know."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from workloads.trace_checks import TraceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Rows that were left out for one reason; `example` is the value in `first_line` (counted from 1)."""

    reason: str
    rows: int
    first_line: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """How a file was read. `time_zero` is what the clock showed at second 0 of the trace, None where no file says."""

    source: str
    format: str
    rows_read: int
    rows_kept: int
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    time_zero: datetime | None = None

    def lines(self) -> list[str]:
        """The report for a reader, one thing per line."""
        told = [f"{self.source}: {self.rows_read:,} rows of format {self.format}, {self.rows_kept:,} requests"]
        for skip in self.skipped:
            told.append(f"  skipped {skip.rows:,}: {skip.reason} (first: line {skip.first_line}, {skip.example})")
        return told + [f"  {note}" for note in self.notes]


class Findings:
    """Fills while a file is read. With `strict`, the first row to skip raises TraceError instead.

    A reader sets `time_zero`, `horizon_s`, `prefix_block_tokens` and `seed` where it knows them, at the latest when it
    yields its last batch.
    """

    def __init__(self, source: str, format_name: str, *, strict: bool) -> None:
        self.source = source
        self.format = format_name
        self.strict = strict
        self.rows_read = 0
        self.time_zero: datetime | None = None
        self.horizon_s: float | None = None
        self.prefix_block_tokens: int | None = None
        self.seed: int | None = None
        self._skipped: dict[str, Skipped] = {}
        self._notes: dict[str, None] = {}

    def skip(self, column: str, reason: str, lines: npt.NDArray[np.int64], example: bytes | str) -> None:
        """The rows of `lines` (at least one) are left out: `column` holds such as `example`. May raise TraceError."""
        shown = shortened(example)
        if self.strict:
            raise TraceError(f"{self.source}, line {lines[0]}, column {column}: {shown}; {reason}")
        key = f"{column}: {reason}"
        before = self._skipped.get(key)
        self._skipped[key] = Skipped(
            reason=key,
            rows=len(lines) + (before.rows if before else 0),
            first_line=before.first_line if before else int(lines[0]),
            example=before.example if before else shown,
        )

    def note(self, text: str) -> None:
        """Something to tell the reader; the same text twice is told once."""
        self._notes[text] = None

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        return tuple(self._skipped.values())

    def report(self, rows_kept: int) -> ReadReport:
        """What was found, once the file has been read."""
        return ReadReport(
            source=self.source,
            format=self.format,
            rows_read=self.rows_read,
            rows_kept=rows_kept,
            skipped=self.skipped,
            notes=tuple(self._notes),
            time_zero=self.time_zero,
        )


def shortened(value: bytes | str) -> str:
    """`value` as one short printable line, bytes that are no UTF-8 escaped."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", errors="surrogatepass")
    text = raw.decode("utf-8", errors="backslashreplace")
    return repr(text if len(text) <= 60 else text[:57] + "...")

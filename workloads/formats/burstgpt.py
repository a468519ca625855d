"""BurstGPT (github.com/HPMLL/BurstGPT), both versions of its CSV.

`Timestamp` in seconds since 0:00 of the first day, `Model`, `Request tokens`, `Response tokens`, `Total tokens` (their
sum), `Log Type`; newer files add `Session ID` (conversations only) and `Elapsed time` (seconds from request to the end
of the answer). Failed requests have 0 response tokens.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workloads.formats.byte_blocks import head
from workloads.formats.csv_rows import csv_rows, header_of
from workloads.formats.findings import Findings
from workloads.formats.number_times import UNITS_PER_S, NumberTimes
from workloads.formats.options import ReadOptions
from workloads.formats.trace_format import TraceFormat
from workloads.optional_columns import NO_SESSION, one_chunk

COLUMNS = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
SESSION_COLUMNS = ("Session ID", "Elapsed time")
SECONDS = "wanted seconds since the first day, 0 or more"


def _batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    header = header_of(head(path, 1 << 16))
    with_sessions = all(name in header for name in SESSION_COLUMNS)
    units_per_s = UNITS_PER_S[options.time_unit or "s"]
    for rows in csv_rows(path, findings, wanted=[*COLUMNS, *(SESSION_COLUMNS if with_sessions else ())]):
        arrival_s = rows.numbers("Timestamp", SECONDS) / units_per_s
        rows.refuse("Timestamp", arrival_s < 0, f"negative; {SECONDS}")
        prompt, total = rows.tokens("Request tokens"), rows.whole("Total tokens", "wanted the sum of both")
        output = rows.whole("Response tokens", "wanted whole tokens")
        rows.refuse("Response tokens", output == 0, "0 tokens: a request that failed")
        output = rows.tokens("Response tokens")
        rows.refuse("Total tokens", total != prompt + output, "not the sum of request and response tokens")
        columns = {
            "arrival_s": arrival_s,
            "model": rows.texts("Model"),
            "prompt_tokens": prompt,
            "output_tokens": output,
        }
        if with_sessions:
            columns["session_name"] = rows.optional_texts("Session ID")
            elapsed_s = rows.numbers("Elapsed time", "wanted seconds", may_be_empty=True)
            rows.refuse("Elapsed time", elapsed_s < 0, "negative; wanted seconds")
            columns["elapsed_s"] = elapsed_s
        yield rows.kept(columns)


def _finish(table: pa.Table, findings: Findings) -> pa.Table:
    """`session`, `turn` and `think_s` from names and elapsed times: thinking ends when the next request is sent."""
    if "session_name" not in table.column_names:
        return table
    codes = one_chunk(table["session_name"].dictionary_encode().unify_dictionaries())
    none = np.asarray(pc.equal(codes.dictionary, ""))
    session = np.asarray(codes.indices).astype(np.int64)
    session = np.where(none[session], NO_SESSION, session)
    arrival_s, elapsed_s = np.asarray(table["arrival_s"]), np.asarray(table["elapsed_s"])
    rows = np.flatnonzero(session != NO_SESSION)
    rows = rows[np.argsort(session[rows], kind="stable")]
    begins = np.concatenate(([True], np.diff(session[rows]) != 0))[: len(rows)]
    place = np.arange(len(rows))
    turn = np.zeros(len(session), dtype=np.int32)
    turn[rows] = place - np.maximum.accumulate(np.where(begins, place, 0)) + 1
    think_s = np.full(len(session), np.nan)
    later, before = rows[1:][~begins[1:]], rows[:-1][~begins[1:]]
    gap_s = arrival_s[later] - (arrival_s[before] + elapsed_s[before])
    early = int((gap_s < 0).sum())
    if early:
        findings.note(f"{early:,} turns were sent before the answer to the turn above had ended; they think for 0 s")
    think_s[later] = np.maximum(gap_s, 0.0)
    for name, values in (("session", session), ("turn", turn), ("think_s", think_s)):
        table = table.append_column(name, pa.array(values))
    return table.drop_columns(["session_name", "elapsed_s"])


BURSTGPT = TraceFormat(
    name="burstgpt",
    about="BurstGPT CSV, with or without Session ID and Elapsed time; s since the first day",
    matches=lambda head: set(COLUMNS) <= set(head.header),
    batches=_batches,
    finish=_finish,
    times=NumberTimes(unit="s", fractions=False),
)

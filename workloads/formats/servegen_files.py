"""The files of ServeGen: client windows and, for each client, how long its requests are."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workloads.formats.csv_rows import csv_rows
from workloads.formats.findings import Findings
from workloads.formats.text_rows import TextRows
from workloads.lengths import MOST_TOKENS
from workloads.strict_json import require_each_key_once
from workloads.trace_checks import TraceError

WINDOW_COLUMNS = ("t", "rate", "cv", "pat", "p1", "p2")
_NAME = re.compile(r"chunk-([0-9]{1,9})-trace\.csv")
LONGEST_S = 400 * 86_400.0
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Client windows, arrays of one length; `weibull` says where the gaps' law is Weibull, Gamma elsewhere."""

    client: npt.NDArray[np.int64]
    begins_s: Floats
    rate_per_s: Floats
    weibull: npt.NDArray[np.bool_]
    shape: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthShares:
    """One client's lengths by the second from which they hold: (tokens, cumulative shares) of prompt and output."""

    source: Path
    from_s: Floats
    prompt: tuple[tuple[npt.NDArray[np.int32], Floats] | None, ...]
    output: tuple[tuple[npt.NDArray[np.int32], Floats] | None, ...]

    def drawn(
        self, rng: np.random.Generator, at_s: float, count: int, findings: Findings
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Prompt and output tokens of `count` requests at `at_s`; where none are known then, those of the nearest time.

        Raises TraceError for a client whose lengths are never known.
        """
        known = [place for place in range(len(self.from_s)) if self.prompt[place] and self.output[place]]
        if not known:
            raise TraceError(f"{self.source}: no lengths in it, though the client sends requests")
        place = max(int(np.searchsorted(self.from_s, at_s, side="right")) - 1, 0)
        if place not in known:
            place = min(known, key=lambda other: abs(self.from_s[other] - at_s))
            findings.note("some windows have no lengths: those of their client's nearest time are taken")
        found = []
        for shares in (self.prompt[place], self.output[place]):
            assert shares is not None, "chosen among those known"
            tokens, cumulative = shares
            drawn = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
            found.append(tokens[np.minimum(drawn, len(tokens) - 1)])
        return found[0], found[1]


def window_files(path: Path) -> dict[int, Path]:
    """Client number to its file of windows, in order, for all at `path`. Raises TraceError for two of a number."""
    files = sorted(path.glob("chunk-*-trace.csv")) if path.is_dir() else [path]
    found: dict[int, Path] = {}
    for file in files:
        match = _NAME.fullmatch(file.name)
        if match:
            first = found.setdefault(int(match[1]), file)
            if first != file:
                raise TraceError(f"{file} is of client {int(match[1])}, as is {first.name}; number each client once")
    return dict(sorted(found.items()))


def lengths_file(windows: Path) -> Path:
    """Where the lengths of the client with that file of windows are; it need not exist."""
    return windows.with_name(windows.name.replace("-trace.csv", "-dataset.json"))


def read_windows(path: Path, findings: Findings) -> Windows:
    """All client windows at `path`; rows that cannot be used are skipped and counted. Raises TraceError for none."""
    files = window_files(path)
    if files:
        parts = []
        for client, file in files.items():
            for rows in csv_rows(file, findings, wanted=WINDOW_COLUMNS, names=WINDOW_COLUMNS):
                parts.append(_checked(rows, np.full(len(rows.line), client)))
    else:
        parts = [_from_parquet(path, findings)]
    if not sum(len(part.begins_s) for part in parts):
        raise TraceError(f"{path}: no client windows in it")
    return Windows(
        client=np.concatenate([part.client for part in parts]),
        begins_s=np.concatenate([part.begins_s for part in parts]),
        rate_per_s=np.concatenate([part.rate_per_s for part in parts]),
        weibull=np.concatenate([part.weibull for part in parts]),
        shape=np.concatenate([part.shape for part in parts]),
    )


def _from_parquet(path: Path, findings: Findings) -> Windows:
    table = pq.read_table(path, columns=["client", *WINDOW_COLUMNS], partitioning=None)
    if not pa.types.is_integer(table["client"].type) or table["client"].null_count:
        raise TraceError(f"{path}: column client is {table['client'].type}; wanted a whole number in every row")
    columns = {name: pc.fill_null(table[name].cast(pa.string()), "") for name in WINDOW_COLUMNS}
    rows = TextRows(
        {name: column.combine_chunks().cast(pa.binary()) for name, column in columns.items()},
        np.arange(1, len(table) + 1),
        findings,
    )
    return _checked(rows, np.asarray(table["client"]).astype(np.int64))


def _checked(rows: TextRows, client: npt.NDArray[np.int64]) -> Windows:
    begins_s = rows.numbers("t", "wanted the window's beginning in s")
    rows.refuse("t", begins_s < 0, "negative; wanted the window's beginning in s")
    rows.refuse("t", begins_s > LONGEST_S, "after more than 400 days; wanted the window's beginning in s")
    rate = rows.numbers("rate", "wanted requests/s")
    rows.refuse("rate", rate < 0, "negative; wanted requests/s")
    law = rows.optional_texts("pat")
    weibull, gamma = np.asarray(pc.equal(law, "Weibull")), np.asarray(pc.equal(law, "Gamma"))
    rows.refuse("pat", (rate > 0) & ~weibull & ~gamma, "wanted Gamma or Weibull where there is a rate")
    shape = rows.numbers("p1", "wanted the shape of the law")
    rows.refuse("p1", (rate > 0) & (shape <= 0), "wanted a shape above 0")
    good = rows.good
    return Windows(
        client=client[good], begins_s=begins_s[good], rate_per_s=rate[good], weibull=weibull[good], shape=shape[good]
    )


def read_shares(path: Path) -> LengthShares:
    """One client's lengths. Raises TraceError for a file that does not hold them."""
    try:
        text = path.read_bytes()
        require_each_key_once(text)
        given = json.loads(text)
        times = sorted(given, key=float)
        columns = {
            name: tuple(_shares(given[time].get(name, "{}")) for time in times)
            for name in ("input_tokens", "output_tokens")
        }
        from_s = np.array([float(time) for time in times])
        if not np.isfinite(from_s).all():
            raise ValueError("a time that is no finite number")
    except (ValueError, AttributeError, TypeError, LookupError, OverflowError, RecursionError, OSError) as error:
        raise TraceError(f"{path}: not the lengths of a client ({' '.join(str(error).split())})") from None
    return LengthShares(source=path, from_s=from_s, prompt=columns["input_tokens"], output=columns["output_tokens"])


def _shares(text: Any) -> tuple[npt.NDArray[np.int32], Floats] | None:
    """Tokens and their cumulative shares of "{tokens: share, ...}"; None of an empty one. A length of 0 counts as 1."""
    body = str(text).strip().removeprefix("{").removesuffix("}").strip()
    if not body:
        return None
    pairs = [pair.split(":") for pair in body.split(",")]
    tokens = np.array([int(pair[0]) for pair in pairs], dtype=np.int64)
    shares = np.array([float(pair[1]) for pair in pairs])
    if (tokens < 0).any() or (tokens > MOST_TOKENS).any() or not (shares >= 0).all() or not 0 < shares.sum() < np.inf:
        raise ValueError(f"lengths of 0 to {MOST_TOKENS:,} tokens and shares of 0 or more were expected")
    return np.maximum(tokens, 1).astype(np.int32), np.cumsum(shares)

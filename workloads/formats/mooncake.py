"""Mooncake's traces (github.com/kvcache-ai/Mooncake, FAST'25 release): read, and written for its users.

JSON lines: `timestamp` in ms, `input_length`, `output_length`, `hash_ids` of 512-token blocks; equal numbers are equal
prefixes up to the end of that block.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.formats.findings import Findings
from workloads.formats.json_rows import json_rows
from workloads.formats.number_times import UNITS_PER_S, NumberTimes
from workloads.formats.options import ReadOptions
from workloads.formats.prefix_rows import prefix_hashes
from workloads.formats.trace_format import TraceFormat
from workloads.partial_file import partial_file
from workloads.trace_metadata import TraceMetadata

BLOCK_TOKENS = 512
KEYS = ("timestamp", "input_length", "output_length")
TIMES = "wanted milliseconds since the beginning, 0 or more"


def _batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    units_per_s = UNITS_PER_S[options.time_unit or "ms"]
    findings.prefix_block_tokens = BLOCK_TOKENS
    for rows, records in json_rows(path, findings, wanted=KEYS):
        # Divided rather than multiplied: 27482 ms are 27.482 s, not 27.482000000000003.
        arrival_s = rows.numbers("timestamp", TIMES) / units_per_s
        rows.refuse("timestamp", arrival_s < 0, f"negative; {TIMES}")
        prompt, output = rows.tokens("input_length"), rows.tokens("output_length")
        hashes = prefix_hashes(rows, records, prompt, BLOCK_TOKENS, findings)
        columns = {"arrival_s": arrival_s, "prompt_tokens": prompt, "output_tokens": output, "prefix_hashes": hashes}
        yield rows.kept(columns)


def _write(batches: Iterable[pa.Table], metadata: Callable[[], TraceMetadata], path: Path) -> tuple[str, ...]:
    numbers: _BlockNumbers | None = None
    with partial_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for table in batches:
            # Only now: what a stream's metadata say is known with its first table.
            numbers = numbers or _BlockNumbers(metadata().prefix_block_tokens)
            time_ms = np.rint(np.asarray(table["arrival_s"]) * 1000).astype(np.int64)
            prompt = np.asarray(table["prompt_tokens"])
            blocks = numbers.of(table, prompt)
            for row in zip(time_ms.tolist(), prompt.tolist(), table["output_tokens"].to_pylist(), blocks, strict=True):
                file.write(json.dumps(dict(zip((*KEYS, "hash_ids"), row, strict=True))) + "\n")
    shared = "" if numbers and numbers.known else "; no prefix is known, so every block has a number of its own"
    return (f"kept: arrival to the millisecond, tokens and prefix blocks of {BLOCK_TOKENS}{shared}; nothing else",)


class _BlockNumbers:
    """Numbers of 512-token blocks, counted from 0, equal for equal prefixes.

    From smaller blocks, a large one is the small ones in it and all before; a prompt's last block, which no small one
    may reach to the end of, is its own.
    """

    def __init__(self, block_tokens: int | None) -> None:
        self.known = block_tokens is not None and BLOCK_TOKENS % block_tokens == 0
        self._per_block = BLOCK_TOKENS // block_tokens if block_tokens and self.known else 1
        self._number: dict[tuple[int, tuple[int, ...]], int] = {}
        self._next = 0

    def of(self, table: pa.Table, prompt: npt.NDArray[np.integer]) -> Iterator[list[int]]:
        """The numbers of each row's prompt of `prompt` tokens, shape (rows,)."""
        blocks = -(-prompt.astype(np.int64) // BLOCK_TOKENS)
        if not self.known:
            for count in blocks.tolist():
                yield list(range(self._next, self._next + count))
                self._next += count
            return
        for small, count in zip(table["prefix_hashes"].to_pylist(), blocks.tolist(), strict=True):
            numbers: list[int] = []
            before = -1
            for place in range(count):
                part = tuple(small[place * self._per_block : (place + 1) * self._per_block])
                # Beyond what is known, a block is shared with nobody.
                before = self._number.setdefault((before, part), self._next) if part else self._next
                self._next += before == self._next
                numbers.append(before)
            yield numbers


MOONCAKE = TraceFormat(
    name="mooncake",
    about="Mooncake JSON lines: timestamp in ms, hash_ids of 512-token blocks",
    matches=lambda head: set(KEYS) <= head.json_keys and "chat_id" not in head.json_keys,
    batches=_batches,
    times=NumberTimes(unit="ms", fractions=False),
    write=_write,
)

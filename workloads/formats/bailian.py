"""Qwen-Bailian usage traces (github.com/alibaba-edu/qwen-bailian-usagetraces-anon).

JSON lines: `chat_id`, `parent_chat_id` (-1: the first turn), `timestamp` in s since the beginning, `input_length`,
`output_length`, `type`, `turn` (from 1), `hash_ids` of 16-token blocks.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from workloads.formats.findings import Findings, shortened
from workloads.formats.json_rows import json_rows
from workloads.formats.number_times import UNITS_PER_S, NumberTimes
from workloads.formats.options import ReadOptions
from workloads.formats.prefix_rows import prefix_hashes
from workloads.formats.trace_format import TraceFormat

BLOCK_TOKENS = 16
NUMBERS = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "turn")
TIMES = "wanted seconds since the beginning, 0 or more"


def _batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    units_per_s = UNITS_PER_S[options.time_unit or "s"]
    findings.prefix_block_tokens = BLOCK_TOKENS
    types: Counter[str] = Counter()
    for rows, records in json_rows(path, findings, wanted=NUMBERS):
        arrival_s = rows.numbers("timestamp", TIMES) / units_per_s
        rows.refuse("timestamp", arrival_s < 0, f"negative; {TIMES}")
        chat = rows.whole("chat_id", "wanted a whole number")
        parent = rows.whole("parent_chat_id", "wanted a whole number, -1 for none")
        turn = rows.whole("turn", "wanted a whole number, 1 or more")
        rows.refuse("turn", (turn < 1) | (turn > 10**6), "wanted a whole number, 1 or more")
        prompt, output = rows.tokens("input_length"), rows.tokens("output_length")
        hashes = prefix_hashes(rows, records, prompt, BLOCK_TOKENS, findings)
        types.update(
            shortened(str(record.get("type"))) for record, good in zip(records, rows.good, strict=True) if good
        )
        yield rows.kept(
            {
                "request_id": chat,
                "arrival_s": arrival_s,
                "prompt_tokens": prompt,
                "output_tokens": output,
                "parent": parent,
                "told_turn": turn.astype(np.int32),
                "prefix_hashes": hashes,
            }
        )
    told = ", ".join(f"{name} {count:,}" for name, count in types.most_common(6))
    findings.note(f"types of request, which a trace does not hold: {told}")


def _finish(table: pa.Table, findings: Findings) -> pa.Table:
    """`session` and `turn` along the chains of parents, rows in order of arrival.

    Where two requests name one parent, the later one begins a session of its own: a session is a chain.
    """
    session_of: dict[int, int] = {}
    turn_of: dict[int, int] = {}
    followed: set[int] = set()
    sessions: list[int] = []
    turns: list[int] = []
    orphans = branches = begun = 0
    columns = ("request_id", "parent", "told_turn")
    for chat, parent, told_turn in zip(*(table[name].to_pylist() for name in columns), strict=True):
        turn = told_turn
        if parent in session_of and parent not in followed:
            session_of[chat] = session_of[parent]
            turn = max(told_turn, turn_of[parent] + 1)
            followed.add(parent)
        else:
            session_of[chat] = begun
            begun += 1
            orphans += parent >= 0 and parent not in turn_of
            branches += parent in followed
        turn_of[chat] = turn
        sessions.append(session_of[chat])
        turns.append(turn)
    if orphans:
        findings.note(f"{orphans:,} requests follow one that is not in the file: they begin a session at a later turn")
    if branches:
        findings.note(f"{branches:,} requests share the request before them with another: they begin their own session")
    table = table.append_column("session", pa.array(sessions, pa.int64()))
    table = table.append_column("turn", pa.array(turns, pa.int32()))
    return table.drop_columns(["parent", "told_turn"])


BAILIAN = TraceFormat(
    name="bailian",
    about="Qwen-Bailian JSON lines: chat_id, parent_chat_id, turn, timestamp in s, hash_ids of 16-token blocks",
    matches=lambda head: {"chat_id", "parent_chat_id", "timestamp"} <= head.json_keys,
    batches=_batches,
    finish=_finish,
    times=NumberTimes(unit="s", fractions=True),
)

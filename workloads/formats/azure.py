"""Azure's LLM inference traces: 2023 and 2024 (requests), and 2025 with images (LMM).

Columns as published in github.com/Azure/AzurePublicDataset: `TIMESTAMP` (2023: no zone, 100 ns; 2024: UTC, no fraction
on whole seconds; 2025: ISO, ms, Z), `ContextTokens`, `GeneratedTokens`, in 2025 `NumImages`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from workloads.formats.csv_rows import csv_rows
from workloads.formats.findings import Findings
from workloads.formats.options import ReadOptions
from workloads.formats.trace_format import TraceFormat

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
LMM_COLUMNS = ("TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens")


def _rows(path: Path, _: ReadOptions, findings: Findings, *, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    images = requests = 0
    zero_ns: int | None = None
    for rows in csv_rows(path, findings, wanted=columns):
        time_ns = rows.dates_ns("TIMESTAMP")
        prompt, output = rows.tokens("ContextTokens"), rows.tokens("GeneratedTokens")
        if "NumImages" in columns:
            wanted = "wanted a whole number of images, 0 or more"
            count = rows.whole("NumImages", wanted)
            rows.refuse("NumImages", count < 0, wanted)
            images += int(count[rows.good].sum())
            requests += int((count[rows.good] > 0).sum())
        if zero_ns is None and rows.good.any():
            # The second in which the first request arrives, so that merged files can be put on one clock.
            zero_ns = int(time_ns[rows.good].min()) // 10**9 * 10**9
            findings.time_zero = datetime.fromtimestamp(zero_ns // 10**9, UTC)
        yield rows.kept(
            {"arrival_s": (time_ns - (zero_ns or 0)) / 1e9, "prompt_tokens": prompt, "output_tokens": output}
        )
    if images:
        findings.note(
            f"{images:,} images in {requests:,} requests are not in the trace, which has no place for them; "
            "the requests and their ContextTokens are"
        )


AZURE = TraceFormat(
    name="azure",
    about="Azure LLM inference trace 2023 and 2024: TIMESTAMP,ContextTokens,GeneratedTokens",
    matches=lambda head: set(head.header) == set(COLUMNS),
    batches=partial(_rows, columns=COLUMNS),
)
AZURE_LMM = TraceFormat(
    name="azure-lmm",
    about="Azure LMM inference trace 2025: the same with NumImages; images are counted and left out",
    matches=lambda head: set(head.header) == set(LMM_COLUMNS),
    batches=partial(_rows, columns=LMM_COLUMNS),
)

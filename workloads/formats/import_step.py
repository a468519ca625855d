"""What a trace that was read from a file says of itself."""

from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from workloads.formats.arrivals_seen import ArrivalsSeen
from workloads.formats.findings import Findings
from workloads.formats.options import ReadOptions
from workloads.trace_metadata import HOURS_PER_WEEK, LONGEST_HORIZON_S, Calendar, TraceMetadata


def imported(
    path: Path,
    options: ReadOptions,
    findings: Findings,
    seen: ArrivalsSeen,
    rows_kept: int,
    base: TraceMetadata | None,
) -> TraceMetadata:
    """Metadata with a step "import"; `base` is what a file of ours said, which stays as it is if nothing was changed.

    Without it the trace ends with the whole second of the last arrival, unless the format says where; the calendar is
    that of `findings.time_zero`.
    """
    asked = _asked(options)
    # Where a window is cut out, a wrong date may lie outside it.
    last_s = min(seen.last_s, LONGEST_HORIZON_S)
    if base is not None:
        base = base.model_copy(update={"horizon_s": max(base.horizon_s, last_s)})
        if not findings.skipped and not asked:
            return base
    else:
        zero = findings.time_zero
        base = TraceMetadata(
            horizon_s=max(1.0, float(np.ceil(last_s))) if findings.horizon_s is None else findings.horizon_s,
            seed=findings.seed,
            calendar=Calendar(start_hour_of_week=hour_of_week(zero)) if zero else None,
            prefix_block_tokens=findings.prefix_block_tokens,
        )
    report = findings.report(rows_kept)
    step: dict[str, JsonValue] = {
        "file": path.name,
        "format": findings.format,
        "rows_read": report.rows_read,
        "rows_kept": rows_kept,
        "skipped": {skip.reason: skip.rows for skip in report.skipped},
        "notes": list(report.notes),
        "time_zero": report.time_zero.isoformat() if report.time_zero else None,
        **asked,
    }
    return base.after("import", step, horizon_s=base.horizon_s, calendar=base.calendar)


def hour_of_week(moment: datetime) -> float:
    """Hours since Monday 00:00 of `moment`'s own zone."""
    hour = moment.weekday() * 24 + moment.hour + moment.minute / 60 + moment.second / 3600
    return hour % HOURS_PER_WEEK


def _asked(options: ReadOptions) -> dict[str, JsonValue]:
    """What was given beside the file and shows in the trace."""
    given: dict[str, JsonValue] = {
        "model": options.model,
        "region": options.region,
        "tier": str(options.tier) if options.tier else None,
        "time_unit": options.time_unit,
        "prompt_tokens": [list(point) for point in options.prompt_tokens or ()] or None,
        "output_tokens": [list(point) for point in options.output_tokens or ()] or None,
    }
    return {name: value for name, value in given.items() if value is not None}

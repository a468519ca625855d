"""What went by of a file's arrivals, block by block: their range, their order, whether they are whole seconds."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from workloads.formats.findings import Findings
from workloads.trace_checks import TraceError


@dataclass(slots=True, kw_only=True)
class ArrivalsSeen:
    """Seconds are those of the format's unit. `earliest_line` and `latest_line` are where the first and the last
    of them stand. `fall_s` is the deepest step back in time, at `fall_line`; `out_of_order` rows lie before the row
    above, the first of them in `first_line`."""

    rows: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    earliest_line: int = 0
    latest_line: int = 0
    whole: bool = True
    out_of_order: int = 0
    first_line: int = 0
    fall_s: float = 0.0
    fall_line: int = 0
    _latest_row_s: float = -np.inf

    def add(self, table: pa.Table, findings: Findings) -> None:
        """Take note of a block of at least one row. Raises TraceError for a step back where `findings` are strict."""
        arrival_s = np.asarray(table["arrival_s"])
        lines = np.asarray(table["line"]) if "line" in table.column_names else np.arange(1, len(arrival_s) + 1)
        steps_s = np.diff(arrival_s, prepend=self._latest_row_s)
        if (steps_s < 0).any():
            first, deepest = int(np.argmax(steps_s < 0)), int(np.argmin(steps_s))
            if findings.strict:
                raise TraceError(
                    f"{findings.source}, line {lines[first]}, arrival: {-steps_s[first]:g} s before the row above; "
                    "sort the rows by time"
                )
            self.first_line = self.first_line or int(lines[first])
            self.out_of_order += int((steps_s < 0).sum())
            if -steps_s[deepest] > self.fall_s:
                self.fall_s, self.fall_line = float(-steps_s[deepest]), int(lines[deepest])
        low, high = int(np.argmin(arrival_s)), int(np.argmax(arrival_s))
        if not self.rows or arrival_s[low] < self.first_s:
            self.first_s, self.earliest_line = float(arrival_s[low]), int(lines[low])
        if not self.rows or arrival_s[high] > self.last_s:
            self.last_s, self.latest_line = float(arrival_s[high]), int(lines[high])
        self.whole = self.whole and bool((arrival_s == np.floor(arrival_s)).all())
        self.rows += len(arrival_s)
        self._latest_row_s = float(arrival_s[-1])

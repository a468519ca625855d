"""The page of a trace: does it look like production, and what does it look like."""

from collections.abc import Sequence

from results.pages import filled
from results.trace_charts import trace_groups
from results.trace_tables import statistics_table, target_counts, target_table
from workloads.description import TraceDescription
from workloads.targets import TargetResult
from workloads.trace import Trace


def trace_page(name: str, trace: Trace, description: TraceDescription, results: Sequence[TargetResult]) -> str:
    """HTML of a trace with at least one request; `name` is what it is called."""
    return filled(
        "trace.html.j2",
        name=name,
        trace=trace,
        digest=trace.digest(),
        parts={column: trace.labels(column).names for column in ("tier", "model", "region")},
        counts=target_counts(results),
        targets=target_table(results),
        statistics=statistics_table(description),
        groups=trace_groups(trace),
    )

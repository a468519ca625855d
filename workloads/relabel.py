"""Other models, regions and tiers for the requests of a trace, and deadlines for those that wait."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from workloads.derived import derived, with_column
from workloads.request import Tier
from workloads.trace import TIME_DECIMALS, Trace
from workloads.trace_checks import LABELS

ANY_OTHER = "*"


def renamed(names: tuple[str, ...], column: str, new_names: Mapping[str, str]) -> list[str]:
    """What each of `names` becomes: `new_names` of it, else of "*", else itself.

    Raises ValueError for a name to replace that does not occur, or a tier that is none.
    """
    for old, new in new_names.items():
        if old != ANY_OTHER and old not in names:
            raise ValueError(f"map {column} {old}={new}: no {column} {old!r} here; there are {', '.join(names)}")
        if column == "tier" and new not in set(Tier):
            raise ValueError(f"map tier {old}={new}: no tier {new!r}; there are {', '.join(Tier)}")
        if not new.strip():
            raise ValueError(f"map {column} {old}=: the new name is empty")
    return [new_names.get(name, new_names.get(ANY_OTHER, name)) for name in names]


def relabel(
    trace: Trace,
    *,
    model: Mapping[str, str] | None = None,
    region: Mapping[str, str] | None = None,
    tier: Mapping[str, str] | None = None,
) -> Trace:
    """`trace` with models, regions and tiers renamed, old name to new; "*" stands for every name not given.

    Two names may become one. A request that becomes interactive loses its deadline. Raises ValueError for a name that
    the trace lacks.
    """
    given = {"model": model or {}, "region": region or {}, "tier": tier or {}}
    table = trace.table
    for column in LABELS:
        if given[column] and len(trace):
            labels = trace.labels(column)
            names = renamed(labels.names, column, given[column])
            found, code = np.unique(names, return_inverse=True)
            array = pa.DictionaryArray.from_arrays(
                pa.array(code[labels.codes].astype(np.int16)), pa.array(found.tolist(), pa.string())
            )
            table = with_column(table, column, array)
    if tier and len(trace):
        niw = np.asarray(table["tier"].combine_chunks().cast(pa.string())) == Tier.NIW.value
        table = with_column(table, "deadline_s", np.where(niw, trace.numbers("deadline_s"), np.nan))
    return derived(trace, table, "relabel", {column: dict(names) for column, names in given.items() if names})


def set_deadlines(trace: Trace, after_s: float) -> Trace:
    """NIW requests that have no deadline are due `after_s` after their arrival. Raises ValueError for 0 or less."""
    if not 0 < after_s < float("inf"):
        raise ValueError(f"deadline after {after_s} s; must be above 0 and finite")
    arrival_s, deadline_s = trace.numbers("arrival_s"), trace.numbers("deadline_s")
    without = ~trace.interactive & np.isnan(deadline_s)
    due_s = np.where(without, np.round(arrival_s + after_s, TIME_DECIMALS), deadline_s)
    table = with_column(trace.table, "deadline_s", due_s)
    return derived(trace, table, "set_deadlines", {"after_s": after_s, "requests": int(without.sum())})

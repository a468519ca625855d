"""The CSV of SageServe's simulator (github.com/shashwatj07/SageServe): 15 columns and no other, read and written.

`regions` is the order in which regions are preferred, as text of the digits 0 west, 1 central, 2 east: the first is the
region of origin. `workload_type` is prod (interactive) or dev (NIW). `sla` and `utility` follow the simulator's own
generator: prod with sla 10 is IW-F, prod with more is IW-N; a dev row's deadline is its sla, where that is above 60 s
(its recorded traces have 10 throughout).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workloads.formats.byte_blocks import head
from workloads.formats.csv_rows import csv_rows, header_of
from workloads.formats.csv_writing import write_csv
from workloads.formats.findings import Findings
from workloads.formats.number_times import UNITS_PER_S, NumberTimes
from workloads.formats.options import ReadOptions
from workloads.formats.trace_format import TraceFormat
from workloads.request import Tier
from workloads.trace import TIME_DECIMALS
from workloads.trace_checks import NO_TENANT, TraceError
from workloads.trace_metadata import TraceMetadata

COLUMNS = (
    "request_id", "batch_id", "client_tenant", "request_type", "scenario", "sla", "utility", "regions", "model_type",
    "workload_type", "application_id", "arrival_timestamp", "batch_size", "prompt_size", "token_size",
)  # fmt: skip
REGIONS = ("west", "central", "east")
PREFERENCE = {"west": "012", "central": "102", "east": "210"}
ORDERS = ("012", "021", "102", "120", "201", "210")
FAST_SLA_S = 10
NORMAL_SLA_S = 3600
NO_SLA = -1
LEAST_DEADLINE_S = 60
UTILITY = {Tier.IW_F: 3, Tier.IW_N: 2, Tier.NIW: 1}
READ = (
    "request_id", "client_tenant", "sla", "regions", "model_type", "workload_type", "arrival_timestamp", "prompt_size",
    "token_size",
)  # fmt: skip
SECONDS = "wanted seconds, 0 or more"


def _batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    header = header_of(head(path, 1 << 16))
    if sorted(header) != sorted(COLUMNS):
        raise TraceError(f"{path}: wanted the columns {', '.join(COLUMNS)} and no other; it has {', '.join(header)}")
    if header != COLUMNS:
        findings.note("columns are in another order than the simulator's 15")
    units_per_s = UNITS_PER_S[options.time_unit or "s"]
    lost_zeros = 0
    for rows in csv_rows(path, findings, wanted=READ):
        request_id = rows.whole("request_id", "wanted a whole number")
        tenant = rows.whole("client_tenant", "wanted a whole number")
        out_of_range = (tenant < NO_TENANT) | (tenant > np.iinfo(np.int32).max)
        rows.refuse("client_tenant", out_of_range, "wanted a whole number, -1 or more")
        sla_s = rows.numbers("sla", "wanted seconds, -1 for none")
        arrival_s = rows.numbers("arrival_timestamp", SECONDS) / units_per_s
        rows.refuse("arrival_timestamp", arrival_s < 0, f"negative; {SECONDS}")
        order = rows.texts("regions")
        # As numbers, which a spreadsheet makes of them, 012 and 021 lose their leading 0.
        short = np.asarray(pc.is_in(order, pa.array(["12", "21"])))
        lost_zeros += int(short.sum())
        order = pc.if_else(pa.array(short), pc.binary_join_element_wise("0", order, ""), order)
        unknown = ~np.asarray(pc.is_in(order, pa.array(ORDERS)))
        rows.refuse("regions", unknown, f"not an order of the regions; wanted one of {', '.join(ORDERS)}")
        kind = rows.texts("workload_type")
        niw = np.asarray(pc.equal(kind, "dev"))
        rows.refuse("workload_type", ~niw & ~np.asarray(pc.equal(kind, "prod")), "wanted prod or dev")
        prompt, output = rows.tokens("prompt_size"), rows.tokens("token_size")
        tier = np.where(niw, 2, np.where(sla_s > FAST_SLA_S, 1, 0)).astype(np.int32)
        digit = pc.fill_null(pc.index_in(pc.utf8_slice_codeunits(order, 0, 1), pa.array(["0", "1", "2"])), 0)
        due_s = np.where(niw & (sla_s > LEAST_DEADLINE_S), np.round(arrival_s + sla_s, TIME_DECIMALS), np.nan)
        yield rows.kept(
            {
                "request_id": request_id,
                "arrival_s": arrival_s,
                "model": rows.texts("model_type"),
                "region": pa.DictionaryArray.from_arrays(digit, pa.array(REGIONS)),
                "tier": pa.DictionaryArray.from_arrays(
                    pa.array(tier), pa.array([Tier.IW_F.value, Tier.IW_N.value, Tier.NIW.value])
                ),
                "prompt_tokens": prompt,
                "output_tokens": output,
                "deadline_s": due_s,
                "tenant": tenant.astype(np.int32),
            }
        )
    if lost_zeros:
        findings.note(f"{lost_zeros:,} values of regions had lost a leading 0 (12, 21); it is put back")
    findings.note("of regions, the first is kept as the region of origin; which others follow, a scenario says")


def _write(batches: Iterable[pa.Table], _: Callable[[], TraceMetadata], path: Path) -> tuple[str, ...]:
    lost = _Lost()
    write_csv(path, COLUMNS, (_fifteen(table, path, lost) for table in batches))
    notes = ["kept: request_id, arrival, model, region of origin, tier, tokens, tenant, deadlines in whole seconds"]
    if lost.deadlines:
        notes.append(f"{lost.deadlines:,} deadlines are not whole seconds above {LEAST_DEADLINE_S} after the arrival")
    return tuple(notes)


class _Lost:
    deadlines = 0


def _fifteen(table: pa.Table, path: Path, lost: _Lost) -> pa.Table:
    region = pc.cast(table["region"], pa.string())
    for name in pc.unique(region).to_pylist():
        if name not in PREFERENCE:
            raise TraceError(
                f"{path}: region {name!r}; the simulator has {', '.join(REGIONS)}: say which (--map-region {name}=west)"
            )
    tier = pc.cast(table["tier"], pa.string())
    niw = np.asarray(pc.equal(tier, Tier.NIW.value))
    fast = np.asarray(pc.equal(tier, Tier.IW_F.value))
    slack_s = np.asarray(table["deadline_s"]) - np.asarray(table["arrival_s"])
    due = niw & ~np.isnan(slack_s)
    whole = np.rint(np.where(due, slack_s, NO_SLA))
    lost.deadlines += int((due & ((np.abs(whole - slack_s) > 1e-6) | (whole <= LEAST_DEADLINE_S))).sum())
    sla = np.where(niw, whole, np.where(fast, FAST_SLA_S, NORMAL_SLA_S)).astype(np.int64)
    utility = np.where(niw, UTILITY[Tier.NIW], np.where(fast, UTILITY[Tier.IW_F], UTILITY[Tier.IW_N]))
    columns = {
        "request_id": table["request_id"],
        "batch_id": _constant(-1, len(table)),
        "client_tenant": table["tenant"],
        "request_type": _constant(2, len(table)),
        "scenario": pa.array(["testbed"]).take(pa.array(_constant(0, len(table)))),
        "sla": sla,
        "utility": utility,
        "regions": pa.array(list(PREFERENCE.values())).take(pc.index_in(region, pa.array(list(PREFERENCE)))),
        "model_type": table["model"],
        "workload_type": pa.array(["prod", "dev"]).take(pa.array(niw.astype(np.int64))),
        "application_id": _constant(-1, len(table)),
        "arrival_timestamp": table["arrival_s"],
        "batch_size": _constant(1, len(table)),
        "prompt_size": table["prompt_tokens"],
        "token_size": table["output_tokens"],
    }
    return pa.table(columns)


def _constant(value: int, rows: int) -> npt.NDArray[np.int64]:
    return np.full(rows, value, dtype=np.int64)


SAGESERVE = TraceFormat(
    name="sageserve",
    about="SageServe simulator CSV of 15 columns; regions are 0 west, 1 central, 2 east",
    matches=lambda found: {"request_id", "arrival_timestamp", "regions", "workload_type"} <= set(found.header),
    batches=_batches,
    times=NumberTimes(unit="s", fractions=True),
    write=_write,
)

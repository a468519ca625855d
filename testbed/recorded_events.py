"""The events of a run again, from its folder, in the order of time."""

from collections.abc import Iterator
from enum import StrEnum
from heapq import merge
from itertools import groupby
from typing import Any, TypeVar

from controller.records import decode_all
from controller.types import Placement, PlacementState, Role
from profiler.gpu_meter import GpuReading
from results.decisions import UNREADABLE
from results.run_folder import PolicyFolder
from results.run_folder_error import RunFolderError
from results.schema import COMPLETIONS, GAUGES, GPUS, POOLS, SERVERS, Table
from testbed.live_events import Began, Decided, Event, GpuGauge, PoolGauge, Served, ServerChange, ServerGauge
from testbed.server import ServerState
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier

Timed = tuple[float, Event]
_Kind = TypeVar("_Kind", bound=StrEnum)


def recorded_events(folder: PolicyFolder, end_s: float | None) -> Iterator[Timed]:
    """(seconds of the run, event), the soonest first; `end_s` is None for a run that did not come to its end.

    Records that another version wrote are left out: decisions that cannot be read. How late requests were handed over
    is not recorded one by one, and so not told. Raises RunFolderError for a table that this version cannot read.
    """
    began: list[Timed] = [(0.0, Began(before_s=0.0))]
    served: list[Timed] = [] if end_s is None else [(end_s, Served(at_s=end_s))]
    gauges = (_gauges(folder), _pools(folder), _gpus(folder))
    sources = (recorded_changes(folder), began, _decisions(folder), *gauges, recorded_completions(folder), served)
    return merge(*sources, key=lambda timed: timed[0])


def _rows(folder: PolicyFolder, table: Table) -> Iterator[dict[str, Any]]:
    for batch in folder.batches(table):
        # In slices: a batch as Python objects takes many times its size.
        for begin in range(0, batch.num_rows, 1000):
            yield from batch.slice(begin, 1000).to_pylist()


def _as_recorded(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """The columns that an event calls by the same names."""
    return {name: row[name] for name in names}


def _placement(row: dict[str, Any]) -> Placement:
    return Placement(row["model"], row["region"], row["gpu_type"], _one_of(Role, row["role"]))


def _one_of(kind: type[_Kind], recorded: str) -> _Kind:
    try:
        return kind(recorded)
    except ValueError:
        known = ", ".join(kind)
        raise RunFolderError(
            f"this run records {kind.__name__} {recorded!r}, this version knows {known}; watch it with the version "
            "that wrote it"
        ) from None


def recorded_changes(folder: PolicyFolder) -> Iterator[tuple[float, ServerChange]]:
    """Of the servers, in the order recorded."""
    for row in _rows(folder, SERVERS):
        change = ServerChange(
            **_as_recorded(row, "at_s", "server_id", "gpus", "reason"),
            placement=_placement(row),
            state=_one_of(ServerState, row["state"]),
        )
        yield change.at_s, change


def _gauges(folder: PolicyFolder) -> Iterator[Timed]:
    gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage")
    for row in _rows(folder, GAUGES):
        yield row["at_s"], ServerGauge(**_as_recorded(row, "at_s", "server_id", *gauges))


def _pools(folder: PolicyFolder) -> Iterator[Timed]:
    for at_s, rows in groupby(_rows(folder, POOLS), key=lambda row: row["at_s"]):
        placements, queued = {}, {}
        for row in rows:
            queued[row["model"]] = row["niw_queued"]
            placements[_placement(row)] = PlacementState(
                **_as_recorded(row, "starting", "ready", "draining", "sleeping", "utilisation", "outstanding_tokens")
            )
        yield at_s, PoolGauge(at_s=at_s, placements=placements, niw_queued=queued)


def _gpus(folder: PolicyFolder) -> Iterator[Timed]:
    for row in _rows(folder, GPUS):
        reading = GpuReading(
            **_as_recorded(row, "at_s", "energy_j", "power_w", "temperature_c", "sm_clock_mhz", "memory_used_bytes"),
            utilization=row["utilisation"],
        )
        yield reading.at_s, GpuGauge(gpu=row["gpu"], reading=reading)


def _decisions(folder: PolicyFolder) -> Iterator[Timed]:
    try:
        decided = decode_all(list(folder.decisions()))
    except RunFolderError:  # a ValueError too
        raise
    except UNREADABLE:
        return
    for seen, plan in decided:
        yield seen.at_s, Decided(seen=seen, plan=plan)


def recorded_completions(folder: PolicyFolder) -> Iterator[tuple[float, Completion]]:
    """The ends of requests, in the order recorded."""
    for row in _rows(folder, COMPLETIONS):
        request = Request(
            **_as_recorded(row, "request_id", "arrival_s", "model", "region", "prompt_tokens", "deadline_s"),
            tier=_one_of(Tier, row["tier"]),
            output_tokens=row["output_tokens_asked"],
        )
        completion = Completion(
            **_as_recorded(row, "server_id", "sent_s", "first_token_s", "last_token_s"),
            **_as_recorded(row, "output_tokens", "cached_tokens", "reason"),
            request=request,
            region=row["served_region"],
            outcome=_one_of(Outcome, row["outcome"]),
        )
        yield completion.last_token_s, completion

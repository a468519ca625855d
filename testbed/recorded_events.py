"""The events of a run again, from its folder, in the order of time."""

from collections.abc import Iterator
from enum import StrEnum
from heapq import merge
from itertools import groupby
from typing import Any, TypeVar

from controller.records import decode_all
from controller.types import Placement, PlacementState, Role
from profiler.gpu_meter import GpuReading
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
    sources = (_changes(folder), began, _decisions(folder), *gauges, _completions(folder), served)
    return merge(*sources, key=lambda timed: timed[0])


def _rows(folder: PolicyFolder, table: Table) -> Iterator[dict[str, Any]]:
    for batch in folder.batches(table):
        # In slices: a batch as Python objects takes many times its size.
        for begin in range(0, batch.num_rows, 1000):
            yield from batch.slice(begin, 1000).to_pylist()


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


def _changes(folder: PolicyFolder) -> Iterator[Timed]:
    for row in _rows(folder, SERVERS):
        change = ServerChange(
            at_s=row["at_s"],
            server_id=row["server_id"],
            placement=_placement(row),
            gpus=row["gpus"],
            state=_one_of(ServerState, row["state"]),
            reason=row["reason"],
        )
        yield change.at_s, change


def _gauges(folder: PolicyFolder) -> Iterator[Timed]:
    for row in _rows(folder, GAUGES):
        yield (
            row["at_s"],
            ServerGauge(
                at_s=row["at_s"],
                server_id=row["server_id"],
                num_requests_running=row["num_requests_running"],
                num_requests_waiting=row["num_requests_waiting"],
                kv_cache_usage=row["kv_cache_usage"],
            ),
        )


def _pools(folder: PolicyFolder) -> Iterator[Timed]:
    for at_s, rows in groupby(_rows(folder, POOLS), key=lambda row: row["at_s"]):
        placements, queued = {}, {}
        for row in rows:
            queued[row["model"]] = row["niw_queued"]
            counts = {name: row[name] for name in ("starting", "ready", "draining", "sleeping")}
            placements[_placement(row)] = PlacementState(
                **counts, utilisation=row["utilisation"], outstanding_tokens=row["outstanding_tokens"]
            )
        yield at_s, PoolGauge(at_s=at_s, placements=placements, niw_queued=queued)


def _gpus(folder: PolicyFolder) -> Iterator[Timed]:
    for row in _rows(folder, GPUS):
        reading = GpuReading(
            at_s=row["at_s"],
            energy_j=row["energy_j"],
            power_w=row["power_w"],
            temperature_c=row["temperature_c"],
            sm_clock_mhz=row["sm_clock_mhz"],
            memory_used_bytes=row["memory_used_bytes"],
            utilization=row["utilisation"],
        )
        yield reading.at_s, GpuGauge(gpu=row["gpu"], reading=reading)


def _decisions(folder: PolicyFolder) -> Iterator[Timed]:
    try:
        decided = decode_all(folder.decisions())
    except (KeyError, TypeError, ValueError, AttributeError):  # as results.decisions does
        return
    for seen, plan in decided:
        yield seen.at_s, Decided(seen=seen, plan=plan)


def _completions(folder: PolicyFolder) -> Iterator[Timed]:
    for row in _rows(folder, COMPLETIONS):
        request = Request(
            request_id=row["request_id"],
            arrival_s=row["arrival_s"],
            model=row["model"],
            region=row["region"],
            tier=_one_of(Tier, row["tier"]),
            prompt_tokens=row["prompt_tokens"],
            output_tokens=row["output_tokens_asked"],
            deadline_s=row["deadline_s"],
        )
        completion = Completion(
            request=request,
            server_id=row["server_id"],
            region=row["served_region"],
            sent_s=row["sent_s"],
            first_token_s=row["first_token_s"],
            last_token_s=row["last_token_s"],
            output_tokens=row["output_tokens"],
            outcome=_one_of(Outcome, row["outcome"]),
            reason=row["reason"],
            cached_tokens=row["cached_tokens"],
        )
        yield completion.last_token_s, completion

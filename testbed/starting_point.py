"""Where a policy's run begins: at its first moment, or, in real time, where an earlier one was cut off."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import merge
from types import MappingProxyType

import pyarrow.compute as pc

from controller.records import decode_all
from controller.types import Observation, ScalingPlan
from results.decisions import UNREADABLE
from results.run_folder import PolicyFolder
from results.run_folder_error import RunFolderError
from results.schema import SERVERS, TABLES
from results.standing import STANDING
from testbed.demand_meter import DemandMeter
from testbed.flight import unfinished
from testbed.live_events import ServerChange
from testbed.recorded_events import recorded_changes, recorded_completions
from testbed.server import ServerState
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.sessions import ReplayPlan, replay_plan
from workloads.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingPoint:
    """What lies before a run at `from_s`, and what lies ahead.

    `replay` is what is still to arrive. `ended` and `outstanding` have arrived: those have ended, these have not.
    `decided` is the last decision, `lost` are the servers that stood until now, each as it is recorded to have FAILED,
    and `server_numbers` the last numbers in the ids of servers, by what stands before them.
    """

    from_s: float = 0.0
    replay: ReplayPlan
    ended: tuple[Completion, ...] = ()
    outstanding: tuple[Request, ...] = ()
    decided: tuple[Observation, ScalingPlan] | None = None
    lost: tuple[ServerChange, ...] = ()
    server_numbers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def plan(self) -> ScalingPlan | None:
        """The last plan."""
        return None if self.decided is None else self.decided[1]

    @property
    def lost_requests(self) -> list[Completion]:
        """The ends of the interactive requests that were under way: their clients are gone."""
        why = f"lost: the run was cut off at {self.from_s:.1f} s"
        return [
            unfinished(request, self.from_s, self.from_s, Outcome.FAILED, why)
            for request in self.outstanding
            if request.tier.interactive
        ]

    @property
    def waiting(self) -> list[Request]:
        """The non-interactive ones, which go back into the queue."""
        return [request for request in self.outstanding if request.tier is Tier.NIW]

    def tell(self, meter: DemandMeter) -> None:
        """Let the meter see what it had seen."""
        arrived = [completion.request for completion in self.ended]
        arrivals = sorted((*arrived, *self.outstanding), key=lambda request: request.arrival_s)
        ends = sorted(self.ended, key=lambda completion: completion.last_token_s)
        events: Iterable[tuple[float, Request | Completion]] = merge(
            ((request.arrival_s, request) for request in arrivals),
            ((completion.last_token_s, completion) for completion in ends),
            key=lambda event: event[0],
        )
        for at_s, event in events:
            if isinstance(event, Request):
                meter.arrived(event, at_s)
            else:
                meter.ended(event, at_s)
        if self.decided is not None:
            meter.recall(self.decided[0].demand)


def first_moment(trace: Trace) -> StartingPoint:
    """Of a run that begins."""
    return StartingPoint(replay=replay_plan(trace))


def where_cut_off(folder: PolicyFolder, trace: Trace, end_s: float | None) -> StartingPoint:
    """Of a run that was cut off, from what it recorded; `end_s`: when it was interrupted, None of one that was killed.

    It goes on at the last moment of which anything is recorded but servers, whose rows after it tell how they were
    ended. Raises RunFolderError for a folder that cannot be read to its end.
    """
    from_s = max(end_s or 0.0, _last_s(folder))
    ended = tuple(completion for _, completion in recorded_completions(folder))
    # Who interrupts a run has every request that had been handed over end as failed.
    outstanding, replay = _not_ended(trace, ended, 0.0 if end_s is not None else from_s)
    changes = [change for _, change in recorded_changes(folder)]
    return StartingPoint(
        from_s=from_s,
        replay=replay,
        ended=ended,
        outstanding=tuple(outstanding),
        decided=_last_decision(folder),
        lost=_standing_at(from_s, changes),
        server_numbers=_numbers(changes),
    )


def _last_s(folder: PolicyFolder) -> float:
    """The latest time in any table but that of the servers, and in the decisions; 0 when there is none."""
    last_s = max((record["seen"]["at_s"] for record in folder.decisions()), default=0.0)
    for table in TABLES:
        name = "at_s" if "at_s" in table.columns else "last_token_s"
        for batch in folder.batches(table) if table is not SERVERS else ():
            last_s = max(last_s, pc.max(batch[name]).as_py() or 0.0)
    return float(last_s)


def _not_ended(trace: Trace, ended: Iterable[Completion], until_s: float) -> tuple[list[Request], ReplayPlan]:
    """Requests of the trace that have not ended: those that arrived before `until_s`, and the others."""
    ended_s = {completion.request.request_id: completion.last_token_s for completion in ended}
    plan = replay_plan(trace)
    following, due = {}, []
    for before, turn in plan.following.items():
        if turn.request.request_id in ended_s:
            continue
        if before in ended_s:
            due.append(turn.due(ended_s[before]))
        else:
            following[before] = turn
    due.sort(key=lambda request: request.arrival_s)
    scheduled = (request for request in plan.scheduled if request.request_id not in ended_s)
    left = list(merge(scheduled, due, key=lambda request: request.arrival_s))
    arrived = sum(request.arrival_s < until_s for request in left)
    return left[:arrived], ReplayPlan(scheduled=iter(left[arrived:]), following=following)


def _last_decision(folder: PolicyFolder) -> tuple[Observation, ScalingPlan] | None:
    try:
        decided = decode_all(folder.decisions())
    except RunFolderError:  # a ValueError too
        raise
    except UNREADABLE as error:
        raise RunFolderError(
            f"{folder.path}: its decisions cannot be read ({error}); go on with the version that wrote them"
        ) from error
    return decided[-1] if decided else None


def _standing_at(at_s: float, changes: Iterable[ServerChange]) -> tuple[ServerChange, ...]:
    last = {change.server_id: change for change in changes if change.at_s <= at_s}
    return tuple(
        replace(change, at_s=at_s, state=ServerState.FAILED, reason="the run was cut off")
        for change in last.values()
        if change.state in STANDING
    )


def _numbers(changes: Iterable[ServerChange]) -> Mapping[str, int]:
    numbers: dict[str, int] = {}
    for change in changes:
        stem, _, number = change.server_id.rpartition("-")
        numbers[stem] = max(numbers.get(stem, 0), int(number))
    return numbers

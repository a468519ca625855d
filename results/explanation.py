"""One recorded decision in words: what was seen, forecast, solved, done, and what was wanted and not granted."""

from collections.abc import Sequence
from typing import Any

from controller.records import decode_all
from controller.types import Observation, Placement, Pool, ScalingPlan
from results.decisions import UNREADABLE
from results.explained_observation import concerns, demand_table, gpus_left, niw_table, servers_table
from results.explained_program import forecast_tables, program_tables
from results.quantities import clock
from results.text_table import TextTable

Decided = tuple[Observation, ScalingPlan]


class UnreadableDecisions(ValueError):
    """Records that this version cannot read; the message says why."""


def decisions_of(records: Sequence[dict[str, Any]]) -> list[Decided]:
    """Observation and plan of every record of a policy. Raises UnreadableDecisions for records of another version."""
    try:
        return decode_all(records)
    except UNREADABLE as error:
        named = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise UnreadableDecisions(f"written by another version of the testbed, or cut in between ({named})") from error


def changing(decisions: Sequence[Decided], pool: Pool | None = None) -> list[int]:
    """Indices of the decisions that changed something (in the pool), in order."""
    return [
        index for index, (_, plan) in enumerate(decisions) if any(concerns(step.placement, pool) for step in plan.steps)
    ]


def latest_at(decisions: Sequence[Decided], at_s: float) -> int | None:
    """Index of the last decision at or before `at_s`; None where there is none."""
    found = [index for index, (seen, _) in enumerate(decisions) if seen.at_s <= at_s + 1e-3]
    return found[-1] if found else None


def explain(name: str, decisions: Sequence[Decided], index: int, pool: Pool | None = None) -> tuple[TextTable, ...]:
    """The whole of one decision of the policy `name`, as tables; with `pool` only what concerns it."""
    seen, plan = decisions[index]
    return (
        _heading(name, decisions, index),
        demand_table(seen, pool),
        niw_table(seen, pool),
        servers_table(seen, plan, pool),
        *forecast_tables(decisions, index, pool),
        *program_tables(decisions, index, pool),
        _done(decisions, index, pool),
        *_not_granted(plan, seen, pool),
        *_remembered(plan, seen, pool),
    )


def changes_table(
    name: str, decisions: Sequence[Decided], indices: Sequence[int], pool: Pool | None = None
) -> TextTable:
    """The changes of several decisions, one row each."""
    rows = []
    for index in indices:
        seen, plan = decisions[index]
        rows += [(clock(seen.at_s), *row) for row in _step_rows(plan, pool)]
    return TextTable(
        title=f"{name}: what it changed last",
        columns=("at", "what", "from", "to", "why"),
        rows=tuple(rows),
        lead="" if rows else "No decision changed anything.",
        prose=True,
    )


def _heading(name: str, decisions: Sequence[Decided], index: int) -> TextTable:
    seen, plan = decisions[index]
    changes = len(plan.steps)
    did = "It changed nothing" if not changes else f"It changed {changes} placement{'s' if changes > 1 else ''}"
    return TextTable(
        title=f"{name}: decision {index + 1} of {len(decisions)}, at {clock(seen.at_s)} ({seen.at_s:.6g} s)",
        columns=(),
        lead=f"{did}; the next one was due at {clock(plan.next_decision_s)}.",
    )


def _done(decisions: Sequence[Decided], index: int, pool: Pool | None) -> TextTable:
    rows = tuple(_step_rows(decisions[index][1], pool))
    earlier = changing(decisions[:index], pool)
    since = f" since {clock(decisions[earlier[-1]][0].at_s)}" if earlier else " from the beginning"
    return TextTable(
        title="What was done, and why",
        columns=("what", "from", "to", "why"),
        rows=rows,
        lead="" if rows else f"Nothing: the counts stand as they have{since}.",
        prose=True,
    )


def _step_rows(plan: ScalingPlan, pool: Pool | None) -> list[tuple[str, str, str, str]]:
    return [
        (str(step.placement), str(count - step.change), str(count), step.reason)
        for step in plan.steps
        if concerns(step.placement, pool)
        for count in [plan.counts[step.placement]]
    ]


def _not_granted(plan: ScalingPlan, seen: Observation, pool: Pool | None) -> list[TextTable]:
    """Where the plan is not what the policy's budget names, and silos below their minimum."""
    left = gpus_left(seen, plan)
    rows = []
    for placement, wanted in plan.memory.budget.items():
        planned = plan.counts.get(placement, 0)
        if planned != wanted and concerns(placement, pool):
            rows.append((str(placement), str(wanted), str(planned), _why_not(seen, plan, placement, wanted, left)))
    for silo in dict.fromkeys(p.silo for p in plan.counts if concerns(p, pool)):
        have, least = _in_silo(plan, silo), seen.limits.min_servers
        if have < least:
            rows.append((str(silo), f"at least {least}", str(have), "no GPU is free for more"))
    if not rows:
        return []
    return [
        TextTable(
            title="Wanted and not granted", columns=("what", "wanted", "planned", "why"), rows=tuple(rows), prose=True
        )
    ]


def _why_not(
    seen: Observation, plan: ScalingPlan, placement: Placement, wanted: int, left: dict[tuple[str, str], float]
) -> str:
    where = (placement.region, placement.gpu_type)
    gpus = seen.limits.capacity[placement.model, placement.gpu_type].gpus
    if plan.counts.get(placement, 0) < wanted and left[where] < gpus - 1e-9:
        return f"{left[where]:g} GPUs left in {'/'.join(where)}, a server takes {gpus:g}"
    if plan.counts.get(placement, 0) > wanted and _in_silo(plan, placement.silo) <= seen.limits.min_servers:
        return f"the minimum of {seen.limits.min_servers}"
    return "the policy's rule for steps did not ask for it"


def _in_silo(plan: ScalingPlan, silo: object) -> int:
    return sum(count for placement, count in plan.counts.items() if placement.silo == silo)


def _remembered(plan: ScalingPlan, seen: Observation, pool: Pool | None) -> list[TextTable]:
    numbers = {name: value for name, value in plan.memory.numbers.items() if _is_about(name, pool, seen.limits.models)}
    if not numbers:
        return []
    return [
        TextTable(
            title="What it remembers for the next decision",
            columns=("", ""),
            rows=tuple((name, f"{value:.6g}") for name, value in sorted(numbers.items())),
        )
    ]


def _is_about(name: str, pool: Pool | None, models: Sequence[str]) -> bool:
    """Whether a remembered number is the pool's, its model's, or nobody's."""
    if pool is None or str(pool) in name:
        return True
    return "@" not in name and (pool.model in name or not any(model in name for model in models))

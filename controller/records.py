"""Recorded decisions: (Observation, ScalingPlan) pairs as JSON, and back.

A record carries what the record before it does not: the new bins of demand, and limits, budget and forecasts only where
they changed. Floats keep every bit, so that a policy fed with a decoded observation gives the recorded plan.

    seen  at_s, placements [[model, region, gpu_type, role, {state}]], niw_queued_tokens {model: tokens},
          niw_due {model: [[due_s, tokens]]}, left out when empty,
          demand {bin_s, until_s, bins, interactive [[model, region, [tokens/s]]], niw, ended, missed}: the new bins;
          `bins` is how many the observation held; limits in a first record and where they changed; and in a first
          record, where there was one, previous (a plan)
    plan  counts [[model, region, gpu_type, role, servers]], sleeping likewise, next_decision_s,
          steps [{placement, change, reason}], solve,
          memory {budget, budget_until_s, forecasts [[model, region, {forecast}]], last_change_s, numbers [[name,
          value]], unchanged}: a name in `unchanged` stands as in the record before and its list is empty
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np

from controller.history import SERIES, DemandHistory, Key, Series
from controller.record_shape import require_shape
from controller.types import (
    Binding,
    Capacity,
    FleetLimits,
    Forecast,
    ForecastQuantile,
    Memory,
    Observation,
    Placement,
    PlacementState,
    Pool,
    Role,
    ScalingPlan,
    SolveReport,
    Step,
)

Record = dict[str, Any]

_REMEMBERED = ("budget", "forecasts", "last_change_s", "numbers")
_NO_LIMITS = "the first decision record has no limits; decode a run's decisions from its first record on"


def encode(seen: Observation, plan: ScalingPlan, before: Observation | None) -> Record:
    """One decision as JSON-able values; `before` is the observation of the record before, None for the first.

    A first record stands alone: it holds the limits, all of the history and, where there is one, the previous plan.
    """
    remembered = seen.previous.memory if before is not None and seen.previous is not None else None
    observed: Record = {
        "at_s": seen.at_s,
        "placements": [[*p, _flat(state)] for p, state in seen.placements.items()],
        "demand": _demand_to_json(seen.demand, None if before is None else before.demand.until_s),
        "niw_queued_tokens": dict(seen.niw_queued_tokens),
    }
    if seen.niw_due:
        observed["niw_due"] = {model: [list(entry) for entry in due] for model, due in seen.niw_due.items()}
    if before is None or seen.limits != before.limits:
        observed["limits"] = _limits_to_json(seen.limits)
    if before is None and seen.previous is not None:
        observed["previous"] = _plan_to_json(seen.previous, None)
    return {"seen": observed, "plan": _plan_to_json(plan, remembered)}


def _flat(state: PlacementState) -> Record:
    """As `asdict`, for a dataclass of plain values: this runs for every placement of every decision."""
    return {name: getattr(state, name) for name in PlacementState.__slots__}


def _state(given: Record) -> PlacementState:
    return PlacementState(**{**given, "ready_at_s": tuple(given["ready_at_s"])})


def _placement(place: list[str]) -> Placement:
    model, region, gpu_type, role = place
    return Placement(model, region, gpu_type, Role(role))


def decode_all(records: Iterable[Record]) -> list[tuple[Observation, ScalingPlan]]:
    """The decisions of one run, in order, from its first record on.

    Raises ValueError when the first record has no limits, or bins between two records are missing.
    """
    given = list(records)
    if not given:
        return []
    for record in given:
        require_shape(record)
    observed = [record["seen"] for record in given]
    if "limits" not in observed[0]:
        raise ValueError(_NO_LIMITS)
    joined = {kind: _joined(observed, kind) for kind in SERIES}
    previous = _plan_from_json(observed[0]["previous"], None) if "previous" in observed[0] else None
    limits = _limits_from_json(observed[0]["limits"])
    decisions = []
    for index, record in enumerate(given):
        row = record["seen"]
        demand = row["demand"]
        if index and "limits" in row:
            limits = _limits_from_json(row["limits"])
        seen = Observation(
            at_s=row["at_s"],
            limits=limits,
            placements=MappingProxyType({_placement(place): _state(state) for *place, state in row["placements"]}),
            demand=DemandHistory(
                bin_s=demand["bin_s"],
                until_s=demand["until_s"],
                **{kind: _cut(series, ends[index], demand["bins"]) for kind, (series, ends) in joined.items()},
            ),
            niw_queued_tokens=MappingProxyType(dict(row["niw_queued_tokens"])),
            previous=previous,
            niw_due=MappingProxyType(
                {
                    model: tuple((due_s, tokens) for due_s, tokens in due)
                    for model, due in row.get("niw_due", {}).items()
                }
            ),
        )
        plan = _plan_from_json(record["plan"], previous.memory if previous is not None else None)
        _require_known(limits, (*seen.placements, *plan.counts))
        decisions.append((seen, plan))
        previous = plan
    return decisions


def decode_plans(records: Iterable[Record]) -> Iterator[tuple[float, FleetLimits, ScalingPlan]]:
    """Of each decision of one run, from its first record on: its time, the limits then, and the plan.

    As `decode_all` without what was observed, one record at a time: of a long run that is little of what it recorded.
    Raises ValueError when the first record has no limits, or bins between two records are missing.
    """
    limits: FleetLimits | None = None
    memory: Memory | None = None
    demand_before: Record = {}
    for index, record in enumerate(records):
        require_shape(record)
        seen = record["seen"]
        if "limits" in seen:
            limits = _limits_from_json(seen["limits"])
        if limits is None:
            raise ValueError(_NO_LIMITS)
        if index == 0 and "previous" in seen:
            memory = _plan_from_json(seen["previous"], None).memory
        for kind in SERIES if index else ():
            for *_, values in seen["demand"].get(kind, ())[:1]:
                _require_next(index, len(values), seen["demand"], demand_before)
        demand_before = seen["demand"]
        plan = _plan_from_json(record["plan"], memory)
        memory = plan.memory
        yield seen["at_s"], limits, plan


def _require_known(limits: FleetLimits, placements: Iterable[Placement]) -> None:
    for place in placements:
        known = (place.model, place.gpu_type) in limits.capacity and (place.region, place.gpu_type) in limits.quota_gpus
        if not known:
            raise ValueError(f"a decision names {place}, of which its limits have no capacity or quota")


def _require_next(index: int, new: int, demand: Record, before: Record) -> None:
    expected = round((demand["until_s"] - before["until_s"]) / demand["bin_s"])
    if new != expected:
        raise ValueError(
            f"decision record {index + 1} holds {new} new bins of demand, {expected} passed since the one "
            "before; give every record of the run, in order"
        )


def decision_to_json(seen: Observation, plan: ScalingPlan) -> Record:
    """One decision as a record that stands alone."""
    return encode(seen, plan, None)


def decision_from_json(record: Record) -> tuple[Observation, ScalingPlan]:
    """The decision of a record that stands alone. Raises ValueError for one that does not."""
    return decode_all([record])[0]


def _demand_to_json(demand: DemandHistory, since_s: float | None) -> Record:
    new = None if since_s is None else round((demand.until_s - since_s) / demand.bin_s)
    return {
        "bin_s": demand.bin_s,
        "until_s": demand.until_s,
        "bins": max((len(series) for kind in SERIES for series in getattr(demand, kind).values()), default=0),
        **{kind: _series_to_json(getattr(demand, kind), new) for kind in SERIES},
    }


def _series_to_json(series: Mapping[Key, Series], new: int | None) -> list[list[Any]]:
    return [
        [*key, (values if new is None else values[max(0, len(values) - new) :]).tolist()]
        for key, values in series.items()
    ]


def _joined(observed: list[Record], kind: str) -> tuple[dict[Key, Series], list[int]]:
    """All bins of all records end to end, and the length after each record: observations are views of one array."""
    parts: dict[Key, list[Series]] = {}
    ends: list[int] = []
    for index, demand in enumerate(row["demand"] for row in observed):
        new = 0
        for model, region, values in demand.get(kind, ()):
            parts.setdefault((model, region), []).append(np.array(values, dtype=np.float64))
            new = len(values)
        if index > 0 and demand.get(kind):
            _require_next(index, new, demand, observed[index - 1]["demand"])
        ends.append(new + (ends[-1] if ends else 0))
    return {key: np.concatenate(values) for key, values in parts.items()}, ends


def _cut(series: Mapping[Key, Series], end: int, bins: int) -> Mapping[Key, Series]:
    return MappingProxyType({key: values[max(0, end - bins) : end] for key, values in series.items()})


def _plan_to_json(plan: ScalingPlan, before: Memory | None) -> Record:
    memory = plan.memory
    unchanged = [name for name in _REMEMBERED if before is not None and getattr(memory, name) == getattr(before, name)]
    return {
        "counts": [[*placement, count] for placement, count in plan.counts.items()],
        "sleeping": [[*placement, count] for placement, count in plan.sleeping.items()],
        "next_decision_s": plan.next_decision_s,
        "steps": [{"placement": list(s.placement), "change": s.change, "reason": s.reason} for s in plan.steps],
        "solve": None if plan.solve is None else asdict(plan.solve),
        "memory": {
            "budget": [] if "budget" in unchanged else [[*p, count] for p, count in memory.budget.items()],
            "budget_until_s": memory.budget_until_s,
            "forecasts": []
            if "forecasts" in unchanged
            else [[*pool, asdict(f)] for pool, f in memory.forecasts.items()],
            "last_change_s": [] if "last_change_s" in unchanged else [[*p, s] for p, s in memory.last_change_s.items()],
            "numbers": [] if "numbers" in unchanged else [[*item] for item in memory.numbers.items()],
            "unchanged": unchanged,
        },
    }


def _plan_from_json(given: Record, before: Memory | None) -> ScalingPlan:
    memory = given["memory"]
    new: dict[str, Mapping[Any, Any]] = {
        "budget": {_placement(place): count for *place, count in memory["budget"]},
        "forecasts": {Pool(*pool): _forecast(fields) for *pool, fields in memory["forecasts"]},
        "last_change_s": {_placement(place): at_s for *place, at_s in memory["last_change_s"]},
        "numbers": dict(memory["numbers"]),
    }
    kept = {name: getattr(before, name) if name in memory["unchanged"] else MappingProxyType(new[name]) for name in new}
    return ScalingPlan(
        counts=MappingProxyType({_placement(place): count for *place, count in given["counts"]}),
        sleeping=MappingProxyType({_placement(place): count for *place, count in given["sleeping"]}),
        next_decision_s=given["next_decision_s"],
        steps=tuple(
            Step(placement=_placement(s["placement"]), change=s["change"], reason=s["reason"]) for s in given["steps"]
        ),
        solve=None if given["solve"] is None else _solve(given["solve"]),
        memory=Memory(budget_until_s=memory["budget_until_s"], **kept),
    )


def _solve(fields: Record) -> SolveReport:
    return SolveReport(**{**fields, "binding": tuple(Binding(**row) for row in fields["binding"])})


def _forecast(fields: Record) -> Forecast:
    series = {name: tuple(fields.get(name, ())) for name in ("mean_tokens_per_s", "upper_tokens_per_s", "warnings")}
    quantiles = tuple(
        ForecastQuantile(**{**each, "path_tokens_per_s": tuple(each["path_tokens_per_s"])})
        for each in fields.get("quantiles", ())
    )
    return Forecast(**{**fields, **series, "quantiles": quantiles})


def _limits_to_json(limits: FleetLimits) -> Record:
    return {
        "models": list(limits.models),
        "regions": list(limits.regions),
        "capacity": [[*key, asdict(capacity)] for key, capacity in limits.capacity.items()],
        "quota_gpus": [[*key, gpus] for key, gpus in limits.quota_gpus.items()],
        "min_servers": limits.min_servers,
        "roles": list(limits.roles),
        "rtt_s": [[*key, seconds] for key, seconds in limits.rtt_s.items()],
    }


def _limits_from_json(given: Record) -> FleetLimits:
    return FleetLimits(
        models=tuple(given["models"]),
        regions=tuple(given["regions"]),
        capacity=MappingProxyType({(m, gpu_type): Capacity(**fields) for m, gpu_type, fields in given["capacity"]}),
        quota_gpus=MappingProxyType({(region, gpu_type): gpus for region, gpu_type, gpus in given["quota_gpus"]}),
        min_servers=given["min_servers"],
        roles=tuple(map(Role, given["roles"])),
        rtt_s=MappingProxyType({(origin, region): seconds for origin, region, seconds in given["rtt_s"]}),
    )

"""What the page is sent of a snapshot: everything, or what has changed since the snapshot before."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from results.standing import WASTED
from testbed.live_decisions import LOG_LENGTH, Decision
from testbed.live_grid import Floats
from testbed.live_servers import ServerTile
from testbed.live_snapshot import LiveSnapshot, RunFacts

# A figure of a chart is not looked at more closely.
_DIGITS = 5


def whole(snapshot: LiveSnapshot) -> bytes:
    """A server-sent event with all of it; `whole` is true in it."""
    return _event({**_state(snapshot), "whole": True, "decisions": _decisions(snapshot, 0)}, _all(snapshot))


def change(snapshot: LiveSnapshot, before: LiveSnapshot) -> bytes:
    """A server-sent event for who has `before`: series from their first value that differs, decisions that are new."""
    seen = before.decisions[-1].number if before.decisions else 0
    return _event(
        {**_state(snapshot), "whole": False, "decisions": _decisions(snapshot, seen)}, _changed(snapshot, before)
    )


def _event(fields: dict[str, Any], series: Iterator[tuple[tuple[str, ...], int, Floats]]) -> bytes:
    # Encoded in pieces: the interpreter is not held for longer than one of them takes.
    pieces = [json.dumps([name, begin, _rounded(values)], separators=(",", ":")) for name, begin, values in series]
    text = json.dumps(fields, separators=(",", ":"))
    return f'data: {text[:-1]},"series":[{",".join(pieces)}]}}\n\n'.encode()


def _all(snapshot: LiveSnapshot) -> Iterator[tuple[tuple[str, ...], int, Floats]]:
    for name, values in snapshot.series.items():
        yield name, 0, _known(values)


def _changed(snapshot: LiveSnapshot, before: LiveSnapshot) -> Iterator[tuple[tuple[str, ...], int, Floats]]:
    for name, values in snapshot.series.items():
        old = before.series.get(name)
        differs = np.ones(len(values), dtype=np.bool_) if old is None else _differ(values, old)
        if differs.any():
            begin = int(np.argmax(differs))
            yield name, begin, _known(values)[begin:]


def _differ(values: Floats, old: Floats) -> npt.NDArray[np.bool_]:
    # To the last digit: of a value that drifts slowly each change is small, and together they are not.
    differs: npt.NDArray[np.bool_] = ~((values == old) | (np.isnan(values) & np.isnan(old)))
    return differs


def _known(values: Floats) -> Floats:
    there = np.flatnonzero(~np.isnan(values))
    return values[: there[-1] + 1] if len(there) else values[:0]


def _rounded(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else float(f"{value:.{_DIGITS}g}") for value in values.tolist()]


def _state(snapshot: LiveSnapshot) -> dict[str, Any]:
    return {
        "facts": _facts(snapshot.facts),
        "policy": snapshot.policy,
        "stage": snapshot.stage.value,
        "now_s": snapshot.now_s,
        "offered": snapshot.offered,
        "arrived": snapshot.arrived,
        "requests": {
            tier.value: {**counts.outcomes, "met": counts.met, "ended": counts.ended}
            for tier, counts in snapshot.requests.items()
        },
        "niw_queued": sum(snapshot.pools.niw_queued.values()) if snapshot.pools is not None else 0,
        "servers": [_tile(tile) for tile in snapshot.servers],
        "gpu_hours": sum(snapshot.gpu_hours.values()),
        "wasted_gpu_hours": sum(snapshot.gpu_hours[state] for state in WASTED),
        "decisions_total": snapshot.decisions_total,
        "decisions_kept": LOG_LENGTH,
        "lateness_s": None if snapshot.lateness_s is None else asdict(snapshot.lateness_s),
        "gpus": [{"gpu": gauge.gpu, **asdict(gauge.reading)} for gauge in snapshot.gpus],
        "bin_s": float(snapshot.edges_s[1]),
        "bins": snapshot.bins,
        "lost": snapshot.lost,
    }


def _facts(facts: RunFacts) -> dict[str, Any]:
    return {
        "scenario": facts.scenario,
        "mode": facts.mode,
        "seed": facts.seed,
        "policies": facts.policies,
        "horizon_s": facts.horizon_s,
        "slos": {tier.value: asdict(slo) for tier, slo in facts.slos.items()},
    }


def _tile(tile: ServerTile) -> dict[str, Any]:
    place, gauge = tile.placement, tile.gauge
    return {
        "id": tile.server_id,
        "model": place.model,
        "region": place.region,
        "gpu_type": place.gpu_type,
        "role": place.role.value,
        "state": tile.state.value,
        "since_s": tile.since_s,
        "reason": tile.reason,
        "running": None if gauge is None else gauge.num_requests_running,
        "waiting": None if gauge is None else gauge.num_requests_waiting,
        "kv_cache_usage": None if gauge is None else gauge.kv_cache_usage,
    }


def _decisions(snapshot: LiveSnapshot, seen: int) -> list[dict[str, Any]]:
    return [_decision(decision) for decision in snapshot.decisions if decision.number > seen]


def _decision(decision: Decision) -> dict[str, Any]:
    solve = decision.solve
    return {
        "number": decision.number,
        "at_s": decision.at_s,
        "steps": decision.steps,
        "more_steps": decision.more_steps,
        "fell_back": decision.fell_back,
        "solve": None
        if solve is None
        else {
            "termination": solve.termination,
            "gap": solve.gap,
            "shortfall_tokens_per_s": solve.shortfall_tokens_per_s,
            "solve_wall_s": solve.solve_wall_s,
        },
    }

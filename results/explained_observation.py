"""What a decision saw, as tables: demand, the NIW queue, servers and GPUs."""

import numpy as np

from controller.history import DemandHistory, Series
from controller.types import Observation, Placement, PlacementState, Pool, ScalingPlan
from results.quantities import percent, seconds
from results.text_table import TextTable

_TRAILING_BINS = (15, 60)
_NOTHING = PlacementState()


def concerns(placement: Placement, pool: Pool | None) -> bool:
    """Whether a placement belongs to the pool asked for; None asks for all."""
    return pool is None or placement.pool == pool


def demand_table(seen: Observation, pool: Pool | None) -> TextTable:
    """Tokens/s by model and region of origin: the last bin and what trails behind it; SLO misses lately."""
    demand = seen.demand
    short, long = (seconds(bins * demand.bin_s) for bins in _TRAILING_BINS)
    keys = [key for key in demand.interactive if pool is None or key == pool]
    seen_at_all = any(len(demand.interactive[key]) for key in keys)
    return TextTable(
        title="What was seen: demand, tokens/s",
        columns=(
            "from",
            f"last {seconds(demand.bin_s)}",
            f"mean of {short}",
            f"mean of {long}",
            f"highest of {long}",
            f"NIW, mean of {long}",
            f"missed SLO, {short}",
        ),
        rows=tuple(_demand_row(demand, key) for key in keys) if seen_at_all else (),
        lead="" if seen_at_all else f"Not one whole bin of {seconds(demand.bin_s)} yet.",
    )


def _demand_row(demand: DemandHistory, key: tuple[str, str]) -> tuple[str, ...]:
    short, long = _TRAILING_BINS
    series, niw = demand.interactive[key], demand.niw.get(key, np.zeros(0))
    return (
        str(Pool(*key)),
        _mean(series[-1:]),
        _mean(series[-short:]),
        _mean(series[-long:]),
        f"{series[-long:].max():,.0f}" if len(series) else "-",
        _mean(niw[-long:]),
        _missed(demand, key, short),
    )


def _mean(series: Series) -> str:
    return f"{series.mean():,.0f}" if len(series) else "-"


def _missed(demand: DemandHistory, key: tuple[str, str], bins: int) -> str:
    nothing: Series = np.zeros(0)
    ended = float(demand.ended.get(key, nothing)[-bins:].sum())
    missed = float(demand.missed.get(key, nothing)[-bins:].sum())
    return f"{missed:,.0f} of {ended:,.0f} ({percent(missed / ended)})" if ended else "-"


def niw_table(seen: Observation, pool: Pool | None) -> TextTable:
    """Tokens in the NIW queue by model, and when the first of them are due."""
    rows = []
    for model, tokens in seen.niw_queued_tokens.items():
        if tokens and (pool is None or pool.model == model):
            due = seen.niw_due.get(model, ())
            first = f"{due[0][1]:,.0f} tokens in {seconds(max(0.0, due[0][0] - seen.at_s))}" if due else "-"
            rows.append((model, f"{tokens:,}", first))
    return TextTable(
        title="What was seen: the NIW queue",
        columns=("model", "tokens", "due first"),
        rows=tuple(rows),
        lead="" if rows else "Empty.",
    )


def servers_table(seen: Observation, plan: ScalingPlan, pool: Pool | None) -> TextTable:
    """Servers by placement and state, with the counts planned; GPUs that the plan leaves free."""
    rows = []
    for placement, count in plan.counts.items():
        if concerns(placement, pool):
            state = seen.placements.get(placement, _NOTHING)
            change = count - state.active
            rows.append(
                (
                    str(placement),
                    *(str(n) for n in (state.ready, state.starting)),
                    seconds(max(0.0, state.ready_at_s[0] - seen.at_s)) if state.ready_at_s else "-",
                    *(str(n) for n in (state.draining, state.sleeping)),
                    f"{state.utilisation:.2f}" if state.ready else "-",
                    f"{state.outstanding_tokens:,}",
                    f"{count} ({change:+d})" if change else str(count),
                    str(plan.sleeping.get(placement, 0)),
                )
            )
    left = gpus_left(seen, plan)
    shown = {place: gpus for place, gpus in left.items() if pool is None or place[0] == pool.region}
    free = ", ".join(
        f"{'/'.join(place)} {gpus:g} of {seen.limits.quota_gpus[place]:g}" for place, gpus in shown.items()
    )
    return TextTable(
        title="What was seen: servers",
        columns=(
            "where",
            "ready",
            "starting",
            "next ready in",
            "draining",
            "sleeping",
            "utilisation",
            "tokens in flight",
            "planned",
            "to sleep",
        ),
        rows=tuple(rows),
        notes=(f"GPUs left free by the plan: {free}",),
    )


def gpus_left(seen: Observation, plan: ScalingPlan) -> dict[tuple[str, str], float]:
    """GPUs by (region, GPU type) that are neither held now nor taken by the plan: what it removes drains first."""
    left = dict(seen.limits.quota_gpus)
    for placement, count in plan.counts.items():
        state = seen.placements.get(placement, _NOTHING)
        gpus = seen.limits.capacity[placement.model, placement.gpu_type].gpus
        left[placement.region, placement.gpu_type] -= gpus * (max(count, state.active) + state.draining)
    return left

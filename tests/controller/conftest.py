"""Builders of small fleets and observations; session-wide, so that hypothesis may use them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from controller.history import DemandHistory
from controller.types import Capacity, FleetLimits, Observation, Placement, PlacementState, ScalingPlan


def _limits(
    *,
    models: tuple[str, ...] = ("llama", "bloom"),
    regions: tuple[str, ...] = ("west", "east"),
    gpu_types: tuple[str, ...] = ("h100",),
    theta: float = 1000.0,
    gpus: float = 1.0,
    quota: float = 10.0,
    min_servers: int = 1,
    usd: Mapping[str, float] | None = None,
    start_s: float = 60.0,
) -> FleetLimits:
    return FleetLimits(
        models=models,
        regions=regions,
        capacity={
            (m, g): Capacity(
                theta_tokens_per_s=theta, gpus=gpus, start_s=start_s, usd_per_gpu_h=(usd or {}).get(g, 4.0)
            )
            for m in models
            for g in gpu_types
        },
        quota_gpus={(r, g): quota for r in regions for g in gpu_types},
        min_servers=min_servers,
    )


def _history(
    limits: FleetLimits,
    *,
    until_s: float = 0.0,
    bins: int = 0,
    bin_s: float = 60.0,
    level: float = 0.0,
    niw: float = 0.0,
    series: Mapping[tuple[str, str], np.ndarray] | None = None,
) -> DemandHistory:
    keys = [(m, r) for m in limits.models for r in limits.regions]
    given = series or {}
    length = max((len(values) for values in given.values()), default=bins)
    return DemandHistory(
        bin_s=bin_s,
        until_s=until_s,
        interactive={k: np.asarray(given.get(k, np.full(length, float(level))), dtype=float) for k in keys},
        niw={k: np.full(length, float(niw)) for k in keys},
    )


def _seen(
    limits: FleetLimits,
    states: Mapping[Placement, PlacementState] | int = 2,
    *,
    at_s: float = 0.0,
    demand: DemandHistory | None = None,
    previous: ScalingPlan | None = None,
    utilisation: float = 0.5,
    **history: Any,
) -> Observation:
    placements = (
        {p: PlacementState(ready=states, utilisation=utilisation) for p in limits.placements()}
        if isinstance(states, int)
        else dict(states)
    )
    return Observation(
        at_s=at_s,
        limits=limits,
        placements=placements,
        demand=demand if demand is not None else _history(limits, until_s=at_s, **history),
        niw_queued_tokens=dict.fromkeys(limits.models, 0),
        previous=previous,
    )


@pytest.fixture(scope="session")
def make_limits() -> Callable[..., FleetLimits]:
    return _limits


@pytest.fixture(scope="session")
def make_history() -> Callable[..., DemandHistory]:
    return _history


@pytest.fixture(scope="session")
def make_seen() -> Callable[..., Observation]:
    return _seen

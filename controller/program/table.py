"""A scaling problem as arrays: the indices i, j, k of the program flattened to one axis of placements."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from controller.program.prices import hourly_price, start_up_price
from controller.program.problem import ScalingProblem
from controller.types import Placement, Pool

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Name = TypeVar("Name")

TOLERANCE = 1e-6
"""Of a row, relative to its right side, and of a quota in GPUs: what the solver itself allows."""
DUST = 1e-5
"""A share of a row too small to be more than such tolerances."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """One entry per placement in `pool`, `model`, `slot` (positions in `pools`, `models`, `slots`), `theta` (tokens/s),
    `gpus`, `hold` (running one server for the period), `start` (starting one), `standing` and `most` (what the quota
    alone allows). Costs are USD, or GPU-hours where a price is unknown.

    Right sides: `local` and `minimum` by pool, `everything` by model (tokens/s, servers, tokens/s; 0: no such row),
    `quota` by slot in GPUs. A slot is a GPU type of a region. Demand that no placement could serve at all has no row.
    """

    placements: tuple[Placement, ...]
    pools: tuple[Pool, ...]
    models: tuple[str, ...]
    slots: tuple[tuple[str, str], ...]
    pool: Ints
    model: Ints
    slot: Ints
    theta: Floats
    gpus: Floats
    hold: Floats
    start: Floats
    standing: Ints
    most: Ints
    local: Floats
    minimum: Floats
    everything: Floats
    quota: Floats
    hours: float

    def cost(self, counts: Ints | Floats) -> float:
        """Of the period: every server that runs, and every one that is started."""
        return float(self.hold @ counts + self.start @ np.maximum(counts - self.standing, 0))

    def gpus_held(self, counts: Ints | Floats) -> Floats:
        """GPUs by slot."""
        return self._by(self.slot, len(self.slots), self.gpus * counts)

    def served_locally(self, counts: Ints | Floats) -> Floats:
        """Tokens/s by pool."""
        return self._by(self.pool, len(self.pools), self.theta * counts)

    def servers(self, counts: Ints | Floats) -> Floats:
        """Servers by pool."""
        return self._by(self.pool, len(self.pools), counts)

    def served(self, counts: Ints | Floats) -> Floats:
        """Tokens/s by model."""
        return self._by(self.model, len(self.models), self.theta * counts)

    def reaches_all(self, counts: Ints) -> bool:
        """Whether the counts satisfy every row with demand or minimum."""
        return all(
            bool(np.all(got >= least * (1 - DUST)))
            for got, least in (
                (self.served_locally(counts), self.local),
                (self.servers(counts), self.minimum),
                (self.served(counts), self.everything),
            )
        )

    def holds(self, counts: Ints) -> bool:
        """Whether the counts satisfy every row, quotas too."""
        return self.reaches_all(counts) and bool(np.all(self.gpus_held(counts) <= self.quota + DUST))

    def lowered_to(self, counts: Ints | Floats, *, slack: float) -> "Table":
        """The same problem, asking no more of any row than `counts` reach, less the share `slack` of the row."""
        return replace(
            self,
            local=_lowered(self.local, self.served_locally(counts), slack),
            minimum=_lowered(self.minimum, self.servers(counts), slack),
            everything=_lowered(self.everything, self.served(counts), slack),
        )

    def of_models(self, chosen: Ints, counts: Ints) -> tuple["Table", Ints]:
        """The problem of some models alone when all others stay at `counts`; and where its placements lie here."""
        inside = np.flatnonzero(np.isin(self.model, chosen))
        others = counts.copy()
        others[inside] = 0
        pools, pool = np.unique(self.pool[inside], return_inverse=True)
        models, model = np.unique(self.model[inside], return_inverse=True)
        slots, slot = np.unique(self.slot[inside], return_inverse=True)
        part = Table(
            placements=_picked(self.placements, inside),
            pools=_picked(self.pools, pools),
            models=_picked(self.models, models),
            slots=_picked(self.slots, slots),
            pool=pool,
            model=model,
            slot=slot,
            theta=self.theta[inside],
            gpus=self.gpus[inside],
            hold=self.hold[inside],
            start=self.start[inside],
            standing=self.standing[inside],
            most=self.most[inside],
            local=self.local[pools],
            minimum=self.minimum[pools],
            everything=self.everything[models],
            quota=(self.quota - self.gpus_held(others))[slots],
            hours=self.hours,
        )
        return part, inside

    @staticmethod
    def _by(group: Ints, groups: int, values: Ints | Floats) -> Floats:
        return np.bincount(group, weights=np.asarray(values, dtype=np.float64), minlength=groups).astype(np.float64)


def tabulate(problem: ScalingProblem) -> Table:
    """Everything of the problem that has a place in the program."""
    limits, hours = problem.limits, problem.period_s / 3600.0
    placements = limits.placements()
    pools, models = _numbered(p.pool for p in placements), _numbered(p.model for p in placements)
    slots = _numbered((p.region, p.gpu_type) for p in placements)
    # A price depends on the model and the GPU type alone: asked once for each.
    first = {(p.model, p.gpu_type): p for p in reversed(placements)}
    hold = {key: hourly_price(limits, p) * hours for key, p in first.items()}
    start = {key: start_up_price(limits, p) for key, p in first.items()}
    keys = [(p.model, p.gpu_type) for p in placements]
    capacity = [limits.capacity[key] for key in keys]
    pool = np.array([pools[p.pool] for p in placements], dtype=np.int64)
    model = np.array([models[p.model] for p in placements], dtype=np.int64)
    slot = np.array([slots[p.region, p.gpu_type] for p in placements], dtype=np.int64)
    theta = np.array([c.theta_tokens_per_s for c in capacity], dtype=np.float64)
    gpus = np.array([c.gpus for c in capacity], dtype=np.float64)
    quota = np.array([limits.quota_gpus[key] for key in slots], dtype=np.float64)
    most = np.minimum(quota[slot] / gpus + TOLERANCE, 1e9).astype(np.int64) if placements else np.zeros(0, np.int64)
    local = [problem.epsilon * max(0.0, problem.demand.local.get(key, 0.0)) for key in pools]
    of_model = {key: max(0.0, problem.demand.anywhere.get(key, 0.0)) for key in models}
    for key, tokens in problem.demand.local.items():
        if key.model in of_model:
            of_model[key.model] += max(0.0, tokens)
    table = Table(
        placements=placements,
        pools=tuple(pools),
        models=tuple(models),
        slots=tuple(slots),
        pool=pool,
        model=model,
        slot=slot,
        theta=theta,
        gpus=gpus,
        hold=np.array([hold[key] for key in keys], dtype=np.float64),
        start=np.array([start[key] for key in keys], dtype=np.float64),
        standing=np.clip(np.array([problem.standing.get(p, 0) for p in placements], dtype=np.int64), 0, most),
        most=most,
        local=np.array(local, dtype=np.float64),
        minimum=np.full(len(pools), float(max(0, limits.min_servers))),
        everything=np.array(list(of_model.values()), dtype=np.float64),
        quota=quota,
        hours=hours,
    )
    reach = table.served_locally(np.ones(len(placements))), table.served(np.ones(len(placements)))
    return replace(
        table,
        local=np.where(reach[0] > 0, table.local, 0.0),
        everything=np.where(reach[1] > 0, table.everything, 0.0),
    )


def _numbered(names: Iterable[Name]) -> dict[Name, int]:
    return {name: position for position, name in enumerate(dict.fromkeys(names))}


def _picked(names: tuple[Name, ...], positions: Ints) -> tuple[Name, ...]:
    return tuple(names[position] for position in positions)


def _lowered(least: Floats, reached: Floats, slack: float) -> Floats:
    return np.where(reached < least, np.maximum(reached - slack * least, 0.0), least)

"""Whole servers from an LP's fractions: round down, then add where rows fall short. Greedy, and always within quotas.

Rows are served in order of their relative shortfall, so that what cannot be served in full is shared out.
"""

from heapq import heapify, heappop, heappush
from math import ceil

import numpy as np

from controller.program.formulation import MINIMUM_WEIGHT
from controller.program.relaxation import Relaxation
from controller.program.table import TOLERANCE, Floats, Ints, Table

_MOST_SCANS = 500
"""Slots looked through for a server that could move: where everything is full, each would be in vain."""


def rounded(table: Table, relaxation: Relaxation) -> Ints:
    """A plan near the relaxation's: within every quota; it reaches every row that the greedy search finds room for."""
    floor = np.floor(relaxation.counts + TOLERANCE).astype(np.int64)
    return repaired(table, floor, relaxation)


def repaired(table: Table, counts: Ints, relaxation: Relaxation | None = None) -> Ints:
    """`counts` (any; cut down to the quotas first) and as many servers more as it takes to reach the rows."""
    worth = np.zeros(len(table.models)) if relaxation is None else relaxation.worth
    rent = np.zeros(len(table.slots)) if relaxation is None else relaxation.rent
    filling = _Filling(table, within_quotas(table, counts), worth, rent)
    filling.fill()
    return np.array(filling.counts, dtype=np.int64)


def within_quotas(table: Table, counts: Ints) -> Ints:
    """`counts` with servers taken from the end of every slot that holds more than its quota."""
    cut = np.clip(counts, 0, table.most)
    over = table.gpus_held(cut) - table.quota
    for slot in np.flatnonzero(over > TOLERANCE):
        for index in reversed(np.flatnonzero((table.slot == slot) & (cut > 0))):
            drop = min(int(cut[index]), ceil((over[slot] - TOLERANCE) / table.gpus[index]))
            cut[index] -= drop
            over[slot] -= drop * table.gpus[index]
            if over[slot] <= TOLERANCE:
                break
    return cut


class _Filling:
    """Counts under construction, with what every row has reached. Plain lists: each step touches a few numbers."""

    def __init__(self, table: Table, counts: Ints, worth: Floats, rent: Floats) -> None:
        self.counts: list[int] = counts.tolist()
        self._pool, self._model, self._slot = table.pool.tolist(), table.model.tolist(), table.slot.tolist()
        self._theta: list[float] = table.theta.tolist()
        self._gpus: list[float] = table.gpus.tolist()
        self._standing: list[int] = table.standing.tolist()
        self._most: list[int] = table.most.tolist()
        # A server costs what its GPUs could earn elsewhere too, and is worth what it adds to its model everywhere.
        held = table.hold + rent[table.slot] * table.gpus
        self._hold: list[float] = held.tolist()
        self._start: list[float] = table.start.tolist()
        self._worth = (worth[table.model] * table.theta).tolist()
        self._local, self._minimum, self._everything = (
            table.local.tolist(),
            table.minimum.tolist(),
            table.everything.tolist(),
        )
        self._served_locally = table.served_locally(counts).tolist()
        self._servers = table.servers(counts).tolist()
        self._served = table.served(counts).tolist()
        self._free: list[float] = (table.quota - table.gpus_held(counts)).tolist()
        self._of_pool = _members(table.pool, len(table.pools))
        self._of_model = _members(table.model, len(table.models))
        self._of_slot = _members(table.slot, len(table.slots))
        self._scans_left = _MOST_SCANS

    def fill(self) -> None:
        """Add servers until no row falls short, or none that does has room left."""
        pools, models = len(self._of_pool), len(self._of_model)
        short = [(-self._pool_lacks(pool), 0, pool) for pool in range(pools)]
        self._serve([row for row in short if row[0] < -TOLERANCE])
        # Local servers count everywhere too: only now is it known what models lack beyond them.
        short = [(-self._model_lacks(model), 1, model) for model in range(models)]
        self._serve([row for row in short if row[0] < -TOLERANCE])

    def _serve(self, short: list[tuple[float, int, int]]) -> None:
        heapify(short)
        while short:
            _, whole_model, row = heappop(short)
            chosen = self._for_model(row) if whole_model else self._for_pool(row)
            if chosen is None:
                continue
            self._add(chosen, 1)
            lacks = self._model_lacks(row) if whole_model else self._pool_lacks(row)
            if lacks > TOLERANCE:
                heappush(short, (-lacks, whole_model, row))

    def _pool_lacks(self, pool: int) -> float:
        local, minimum = self._local[pool], self._minimum[pool]
        tokens = 1 - self._served_locally[pool] / local if local > 0 else 0.0
        servers = MINIMUM_WEIGHT * (1 - self._servers[pool] / minimum) if minimum > 0 else 0.0
        return max(tokens, servers)

    def _model_lacks(self, model: int) -> float:
        return 1 - self._served[model] / self._everything[model] if self._everything[model] > 0 else 0.0

    def _for_pool(self, pool: int) -> int | None:
        """The GPU type with which reaching the pool's rows costs least; what the model gains elsewhere counts too."""
        tokens = self._local[pool] * (1 - TOLERANCE) - self._served_locally[pool]
        servers = ceil(self._minimum[pool] - self._servers[pool] - TOLERANCE)
        best, least = None, 0.0
        for index in self._of_pool[pool]:
            if tokens > 0 and servers <= 0 and self._theta[index] <= 0:
                continue
            if not self._has_room(index):
                continue
            theta = self._theta[index]
            needed = max(servers, ceil(tokens / theta) if tokens > 0 and theta > 0 else 0, 1)
            price = needed * (self._adding(index) - self._worth[index])
            if best is None or price < least:
                best, least = index, price
        if best is None:
            useful = (i for i in self._of_pool[pool] if self._theta[i] > 0 or servers > 0)
            return next((i for i in useful if self._make_room(i)), None)
        return best

    def _for_model(self, model: int) -> int | None:
        """The placement whose next server costs least per token/s that the model still lacks."""
        tokens = self._everything[model] * (1 - TOLERANCE) - self._served[model]
        best, least = None, 0.0
        for index in self._of_model[model]:
            if self._theta[index] <= 0 or not self._has_room(index):
                continue
            price = self._adding(index) / min(self._theta[index], tokens)
            if best is None or price < least:
                best, least = index, price
        if best is None:
            return next((i for i in self._of_model[model] if self._theta[i] > 0 and self._make_room(i)), None)
        return best

    def _adding(self, index: int) -> float:
        starts = self.counts[index] >= self._standing[index]
        return self._hold[index] + (self._start[index] if starts else 0.0)

    def _has_room(self, index: int) -> bool:
        fits = self._free[self._slot[index]] + TOLERANCE >= self._gpus[index]
        return fits and self.counts[index] < self._most[index]

    def _add(self, index: int, servers: int) -> None:
        self.counts[index] += servers
        self._served_locally[self._pool[index]] += servers * self._theta[index]
        self._servers[self._pool[index]] += servers
        self._served[self._model[index]] += servers * self._theta[index]
        self._free[self._slot[index]] -= servers * self._gpus[index]

    def _make_room(self, index: int) -> bool:
        """Give one server of the slot up, or move it to another GPU type of its pool, where its rows allow it."""
        slot = self._slot[index]
        if self._most[index] <= self.counts[index] or self._scans_left == 0:
            return False
        self._scans_left -= 1
        for other in self._of_slot[slot]:
            if other == index or self.counts[other] == 0:
                continue
            if self._free[slot] + self._gpus[other] + TOLERANCE < self._gpus[index]:
                continue
            self._add(other, -1)
            if self._kept(other):
                return True
            for moved in self._of_pool[self._pool[other]]:
                if moved == other or not self._has_room(moved):
                    continue
                self._add(moved, 1)
                if self._kept(moved):
                    return True
                self._add(moved, -1)
            self._add(other, 1)
        return False

    def _kept(self, index: int) -> bool:
        """Whether the rows of the placement's pool and model are still reached."""
        pool, model = self._pool[index], self._model[index]
        return self._pool_lacks(pool) <= TOLERANCE and self._model_lacks(model) <= TOLERANCE


def _members(group: Ints, groups: int) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(groups)]
    for index, of in enumerate(group.tolist()):
        members[of].append(index)
    return members

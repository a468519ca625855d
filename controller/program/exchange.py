"""A plan made cheaper by exchanges within a model: a server or two less here, one or two more there, while it pays."""

from dataclasses import dataclass

import numpy as np

from controller.program.table import TOLERANCE, Floats, Ints, Table

_SIZES = ((1, 0), (1, 1), (1, 2), (2, 1), (1, 3), (3, 1))
"""Servers that go and servers that come, each of one placement; the next is tried where those before save nothing."""


def exchanged(table: Table, counts: Ints) -> Ints:
    """`counts` after exchanges within each model, the one that saves most first, until none saves anything.

    Rows that are reached stay so, rows that are not lose nothing, and quotas hold.
    """
    better = counts.copy()
    free = table.quota - table.gpus_held(better)
    for model in range(len(table.models)):
        inside = np.flatnonzero(table.model == model)
        part = _Model(table, inside, better, free)
        while (exchange := part.best()) is not None:
            part.make(exchange)
        better[inside] = part.counts
    return better


@dataclass(frozen=True, slots=True)
class _Exchange:
    """`less` servers fewer of the placement `away`, `more` more of `here`, positions in the model."""

    away: int
    less: int
    here: int
    more: int


class _Model:
    """The placements of one model: their counts, what their pools serve, and the `free` GPUs of all slots (shared)."""

    def __init__(self, table: Table, inside: Ints, counts: Ints, free: Floats) -> None:
        self._pools, self._pool = np.unique(table.pool[inside], return_inverse=True)
        self._slot, self._theta, self._gpus = table.slot[inside], table.theta[inside], table.gpus[inside]
        self._hold, self._start = table.hold[inside], table.start[inside]
        self._standing, self._most = table.standing[inside], table.most[inside]
        self._same_pool = self._pool[:, None] == self._pool[None, :]
        self._free = free
        self.counts = counts[inside]
        self._served = np.bincount(self._pool, weights=self._theta * self.counts)
        self._servers = np.bincount(self._pool, weights=self.counts)
        self._least = np.minimum(table.local[self._pools] * (1 - TOLERANCE), self._served)
        self._least_servers = np.minimum(table.minimum[self._pools], self._servers)
        everything = table.everything[table.model[inside[0]]] * (1 - TOLERANCE)
        self._least_in_all = min(float(everything), float(self._served.sum()))
        self._pays = TOLERANCE * float(self._hold.min())

    def best(self) -> _Exchange | None:
        """The exchange that saves most, of the first size that saves anything."""
        for less, more in _SIZES:
            gain = self._gain(less, more)
            away, here = np.unravel_index(int(np.argmax(gain)), gain.shape)
            if gain[away, here] > self._pays:
                return _Exchange(int(away), less, int(here), more)
        return None

    def make(self, exchange: _Exchange) -> None:
        """Carry it out, here and in the free GPUs."""
        for at, change in ((exchange.away, -exchange.less), (exchange.here, exchange.more)):
            self.counts[at] += change
            self._served[self._pool[at]] += change * self._theta[at]
            self._servers[self._pool[at]] += change
            self._free[self._slot[at]] -= change * self._gpus[at]

    def _gain(self, less: int, more: int) -> Floats:
        """What each exchange (away x here) saves; -inf where a row or a quota forbids it. With `more` 0, one column."""
        x, started = self.counts, np.maximum(self.counts - self._standing, 0)
        goes = np.where(x >= less, less * self._hold + self._start * np.minimum(started, less), -np.inf)
        to_spare, in_all = (self._served - self._least)[self._pool], float(self._served.sum()) - self._least_in_all
        may_go = (self._servers - less >= self._least_servers)[self._pool]
        lost = less * self._theta
        if more == 0:
            allowed = may_go & (lost <= to_spare) & (lost <= in_all)
            return np.where(allowed, goes, -np.inf)[:, None]
        starts = np.clip(x + more - self._standing, 0, more)
        has_room = (x + more <= self._most) & (self._free[self._slot] + TOLERANCE >= more * self._gpus)
        comes = np.where(has_room, more * self._hold + self._start * starts, np.inf)
        change = lost[:, None] - more * self._theta[None, :]
        allowed = (np.where(self._same_pool, change, lost[:, None]) <= to_spare[:, None]) & (change <= in_all)
        stays = (self._servers - less + more >= self._least_servers)[self._pool]
        allowed &= np.where(self._same_pool, stays[:, None], may_go[:, None])
        allowed[np.diag_indices(len(x))] = False
        gain: Floats = np.where(allowed, goes[:, None] - comes[None, :], -np.inf)
        return gain

"""A live view's servers: each with its state, and all of them over time by the report's own formulas."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from controller.types import Placement
from results.standing import gpu_hours, mean_between, server_intervals
from testbed.live_events import ServerChange, ServerGauge
from testbed.live_grid import Floats, Grid
from testbed.server import ServerState

ENDED = (ServerState.STOPPED, ServerState.FAILED)
# Of the servers that have ended so many stay in sight.
ENDED_SHOWN = 24
# A server that sleeps and wakes all day keeps so many of its changes.
CHANGES_KEPT = 16

_COLUMNS = ("at_s", "server_id", "model", "region", "gpu_type", "role", "gpus", "state", "reason")
_KEY = ("model", "region", "gpu_type", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTile:
    """A server as it stands: in `state` since `since_s`, with its last gauges while it is READY."""

    server_id: str
    placement: Placement
    state: ServerState
    since_s: float
    reason: str
    gauge: ServerGauge | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What servers came to by now.

    `gpu_hours` by state; `servers` are means per bin by (model, region, GPU type, state), up to now.
    """

    gpu_hours: dict[str, float] = field(default_factory=dict)
    servers: dict[tuple[str, str, str, str], Floats] = field(default_factory=dict)


class LiveServers:
    """Keeps the last changes of the servers that stand; of earlier ones, and of servers that have ended, only what
    they came to.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._changes: dict[str, list[ServerChange]] = {}
        self._gauges: dict[str, ServerGauge] = {}
        self._hours: dict[str, float] = {}
        self._told_hours: dict[str, float] = {}
        self._server_s: dict[tuple[str, str, str, str], Floats] = {}

    def changed(self, change: ServerChange, now_s: float) -> None:
        """`now_s` stands still at the end of the run, while its servers stop."""
        told = self._changes.setdefault(change.server_id, [])
        told.append(change)
        if len(told) > CHANGES_KEPT:
            self._sum([told], min(change.at_s, now_s), self._hours, self._server_s)
            del told[:-1]
        if change.state is not ServerState.READY:
            self._gauges.pop(change.server_id, None)
        if change.state in ENDED:
            ended = [server_id for server_id, told in self._changes.items() if told[-1].state in ENDED]
            # Twice as many before they are let go, so that this happens seldom.
            if len(ended) > 2 * ENDED_SHOWN:
                self._let_go(ended[:-ENDED_SHOWN], now_s)

    def read(self, gauge: ServerGauge) -> None:
        self._gauges[gauge.server_id] = gauge

    def began(self, before_s: float) -> None:
        """Time 0 was `before_s` later than thought until now; what servers came to before it does not count."""
        self._hours, self._told_hours, self._server_s = {}, {}, {}
        for told in self._changes.values():
            told[:] = [replace(change, at_s=change.at_s - before_s) for change in told]

    def tiles(self) -> tuple[ServerTile, ...]:
        """In the order in which they first started; those that ended long ago are left out."""
        return tuple(
            ServerTile(
                server_id=server_id,
                placement=told[-1].placement,
                state=told[-1].state,
                since_s=told[-1].at_s,
                reason=told[-1].reason,
                gauge=self._gauges.get(server_id),
            )
            for server_id, told in self._changes.items()
        )

    def standing(self, now_s: float) -> Standing:
        """As of `now_s`; GPU-hours never go down from one call to the next, as rounding would have it."""
        hours, server_s = dict(self._hours), {key: values.copy() for key, values in self._server_s.items()}
        edges = np.minimum(self._grid.edges_s, max(now_s, 0.0))
        self._sum(list(self._changes.values()), now_s, hours, server_s)
        self._told_hours |= {state: max(held, self._told_hours.get(state, 0.0)) for state, held in hours.items()}
        lengths = np.diff(edges)
        with np.errstate(invalid="ignore", divide="ignore"):
            return Standing(
                gpu_hours=dict(self._told_hours),
                servers={key: np.where(lengths > 0, values / lengths, np.nan) for key, values in server_s.items()},
            )

    def _let_go(self, server_ids: list[str], now_s: float) -> None:
        self._sum([self._changes.pop(server_id) for server_id in server_ids], now_s, self._hours, self._server_s)

    def _sum(
        self,
        servers: list[list[ServerChange]],
        now_s: float,
        hours: dict[str, float],
        server_s: dict[tuple[str, str, str, str], Floats],
    ) -> None:
        """Add GPU-hours by state, and seconds of servers per bin."""
        rows = [_row(change) for told in servers for change in told]
        if not rows:
            return
        intervals = server_intervals(pd.DataFrame(rows, columns=_COLUMNS).astype({"server_id": "category"}), now_s)
        for state, held in zip(intervals["state"], gpu_hours(intervals), strict=True):
            hours[state] = hours.get(state, 0.0) + held
        from_s, to_s = intervals["from_s"].to_numpy(np.float64), intervals["to_s"].to_numpy(np.float64)
        rows_of: dict[tuple[str, str, str, str], list[int]] = {}
        for row, key in enumerate(zip(*(intervals[name] for name in _KEY), strict=True)):
            rows_of.setdefault(key, []).append(row)
        for key, own in rows_of.items():
            mean = mean_between(from_s[own], to_s[own], self._grid.edges_s, np.ones(len(own)))
            server_s[key] = server_s.get(key, 0.0) + mean * self._grid.width_s


def _row(change: ServerChange) -> tuple[object, ...]:
    place = change.placement
    return (
        *(change.at_s, change.server_id, place.model, place.region, place.gpu_type, place.role.value),
        *(change.gpus, change.state.value, change.reason),
    )

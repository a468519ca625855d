"""What the bound is asked: the whole demand, known in advance, and the fleet that may serve it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.bound.need import Counts, Values
from controller.types import Capacity, FleetLimits, Placement, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTokens:
    """Pieces of work of one model that may wait, in the order of arrival; all of shape (pieces,).

    `arrives`: step of arrival. `due`: step by whose end it must be done; at `steps` or later, or infinite, it may be
    done after the last step. `tokens`: prompt and output tokens.
    """

    arrives: Counts
    due: Values
    tokens: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeDemand:
    """Everything that will be asked, on a grid of `step_s` seconds from time 0.

    `interactive`: tokens/s by (model, region of origin), each of shape (steps,). `waiting`: by model; left out where
    none may wait.
    Raises ValueError when series differ in length or there are none.
    """

    step_s: float
    interactive: Mapping[Pool, Values]
    waiting: Mapping[str, WaitingTokens]

    def __post_init__(self) -> None:
        lengths = {len(series) for series in self.interactive.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"demand series have {sorted(lengths)} steps; give every pool the same number, at least 1")

    @property
    def steps(self) -> int:
        return len(next(iter(self.interactive.values())))

    def of_model(self, model: str) -> Values:
        """Interactive tokens/s of a model over all regions, shape (steps,)."""
        series = [values for pool, values in self.interactive.items() if pool.model == model]
        return np.sum(series, axis=0) if series else np.zeros(self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForesightProblem:
    """Serve `demand` with the fewest GPU-hours that `limits` allow.

    `limits.capacity` has theta without any margin: what a server sustains, not what is planned with.
    `violated_share` (0..1): share of steps in which a model may miss its SLO. `epsilon` (0..1): share of a region's
    demand to be served in that region. `initial`: servers READY at time 0; None lets hindsight choose them, free of
    charge for their start. Where a server can sleep, only its first start takes `start_s`, every later one `wake_s`:
    asleep it holds no GPU.
    Raises ValueError for a share outside 0..1.
    """

    demand: WholeDemand
    limits: FleetLimits
    violated_share: float = 0.0
    epsilon: float = 0.0
    initial: Mapping[Placement, int] | None = None

    def __post_init__(self) -> None:
        for name in ("violated_share", "epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}; wanted a fraction 0..1")

    def lead_s(self, capacity: Capacity) -> float:
        """The least time for which a start holds GPUs before the server is READY."""
        return capacity.start_s if capacity.wake_s is None else min(capacity.wake_s, capacity.start_s)

    @property
    def budget(self) -> int:
        """Steps that a model may violate."""
        return int(self.violated_share * self.demand.steps + 1e-9)

"""A run as it stands at one moment: what the page, /metrics and the terminal draw from. Nothing in it changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from controller.types import SolveReport
from testbed.live_decisions import Decision
from testbed.live_events import GpuGauge, PoolGauge
from testbed.live_grid import Floats, Name
from testbed.live_requests import Histogram, RequestCounts
from testbed.live_servers import ServerTile
from workloads.request import Tier
from workloads.samples import Quantiles
from workloads.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What does not change while a run goes on. `policies` in the order in which they run."""

    scenario: str
    mode: str
    seed: int
    policies: tuple[str, ...]
    horizon_s: float
    grace_s: float
    demand_bin_s: float
    slos: Mapping[Tier, Slo]


class Stage(StrEnum):
    """starting: until the initial servers are READY. stopping: all is served, servers go home."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSnapshot:
    """One policy's run by `now_s`.

    `number` grows with each snapshot that tells something new. `requests` by tier; `arrived` of `offered` requests.
    `gpu_hours` by state. `gpus` are the machine's, where the run reads them. `series` hold one value per bin between
    `edges_s`, of which `bins` have begun; forecasts reach further. Their names:

        ("ttft" | "tpot" | "e2e", tier, "p50" | "p95" | "p99")            seconds, by the bin in which requests ended
        ("interactive" | "niw" | "forecast" | "forecast upper", model, region)   tokens/s, region of origin
        ("capacity", model, region)                                       tokens/s of READY servers
        ("utilisation", model, region, GPU type, role), ("NIW queue", model), ("servers", state)
        ("lateness", "p50" | "p99" | "max")                               seconds

    `lateness_s` is of the whole run, None in virtual time. `lost` events were told faster than could be kept.
    """

    facts: RunFacts
    policy: str
    number: int
    stage: Stage
    now_s: float
    offered: int
    arrived: int
    requests: Mapping[Tier, RequestCounts]
    histograms: Mapping[tuple[str, Tier], Histogram]
    servers: tuple[ServerTile, ...]
    gpu_hours: Mapping[str, float]
    pools: PoolGauge | None
    edges_s: Floats
    bins: int
    series: Mapping[Name, Floats]
    decisions: tuple[Decision, ...]
    decisions_total: int
    terminations: Mapping[str, int]
    last_solve: SolveReport | None
    gpus: tuple[GpuGauge, ...]
    lateness_s: Quantiles | None
    lost: int = 0

    @property
    def ended(self) -> int:
        """Requests that have ended, however they did."""
        return sum(counts.ended for counts in self.requests.values())

    def last(self, *name: str) -> float | None:
        """The newest value of a series that is there; None where there is none."""
        values = self.series.get(name)
        if values is None:
            return None
        there = values[: self.bins][~np.isnan(values[: self.bins])]
        return float(there[-1]) if len(there) else None

"""What a fluid study found."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.history import Series
from controller.types import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidOutcome:
    """GPU-hours of servers that start, serve and drain, and how demand fared.

    `wasted_gpu_h`: those of starting and draining servers. A bin of a model is violated where its demand exceeds the
    capacity of its READY servers over all regions. `violated_share`: violated bins among those with demand, mean over
    models; `violated_by_model`. `missed_share`: share of all interactive demand that lies in violated bins;
    `unserved_share`: the part of it beyond capacity. `capacity_tokens_per_s`: mean capacity of READY servers in each
    bin, shape (bins,), by pool. `niw_late_tokens`: served after the deadline, or due and not served.
    """

    gpu_h: float
    starting_gpu_h: float
    draining_gpu_h: float
    sleeping_server_h: float
    violated_share: float
    violated_by_model: Mapping[str, float]
    missed_share: float
    unserved_share: float
    starts: int
    wakes: int
    stops: int
    decisions: int
    niw_served_tokens: float
    niw_late_tokens: float
    capacity_tokens_per_s: Mapping[Pool, Series]

    @property
    def wasted_gpu_h(self) -> float:
        return self.starting_gpu_h + self.draining_gpu_h

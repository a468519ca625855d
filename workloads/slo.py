"""Service level objectives of the tiers."""

from dataclasses import dataclass

from workloads.completion import Completion, Outcome
from workloads.request import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Upper limits in seconds; None leaves a latency free. `deadline_s` counts from arrival to the last token."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "deadline_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"SLO {name}={value}; must be above 0, or left out")

    def met_by(self, completion: Completion) -> bool:
        """Whether a completion meets every limit; a request that did not complete meets none."""
        return completion.outcome is Outcome.COMPLETED and not (
            (self.ttft_s is not None and _beyond(completion.ttft_s, self.ttft_s))
            or (self.tpot_s is not None and _beyond(completion.tpot_s, self.tpot_s))
            or (self.deadline_s is not None and _beyond(completion.e2e_s, self.deadline_s))
        )


def _beyond(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


# SageServe, section 2: TTFT < 1 s, TTFT < 60 s, done within 24 h.
SAGESERVE_SLOS: dict[Tier, Slo] = {
    Tier.IW_F: Slo(ttft_s=1.0),
    Tier.IW_N: Slo(ttft_s=60.0),
    Tier.NIW: Slo(deadline_s=24 * 3600.0),
}

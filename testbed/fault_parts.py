"""What a scenario says of faults: those it makes on purpose, and how the fleet gets over any."""

from typing import Annotated

from pydantic import Field, model_validator

from testbed.fault import FaultKind
from testbed.scenario_parts import Interval, Positive
from testbed.strict import Strict


class FaultConfig(Strict):
    """A fault at `at_s` of the run, or faults at random moments, `per_h` of them in a mean hour, from the scenario's
    seed.

    It hits `servers` of those there are then (kill: whatever starts, serves, drains or sleeps; hang and slow: what
    serves or drains), drawn at random among those of `model`, `region` and `gpu_type`, as far as these are given;
    fail_start hits the next so many starts. `for_s` left out: a hang lasts until the fleet notices, a slow server stays
    slow.
    """

    kind: FaultKind
    at_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    per_h: Positive | None = None
    model: str | None = None
    region: str | None = None
    gpu_type: str | None = None
    servers: int = Field(default=1, ge=1)
    for_s: Positive | None = None
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "FaultConfig":
        if (self.at_s is None) == (self.per_h is None):
            raise ValueError("give exactly one of at_s and per_h")
        if (self.factor is None) == (self.kind is FaultKind.SLOW):
            raise ValueError(
                "factor says how many times slower a server of kind slow runs; give it there and only there"
            )
        if self.for_s is not None and self.kind not in (FaultKind.HANG, FaultKind.SLOW):
            raise ValueError(f"for_s is how long a server hangs or is slow; leave it out of kind {self.kind}")
        return self


class RecoveryConfig(Strict):
    """How the fleet gets over a server that dies, hangs or cannot start, and what becomes of its requests.

    The server is started again on its GPUs after `restart_after_s`, twice that after the second failure in a row, and
    so on up to `restart_after_at_most_s`; a row ends when a server has been READY for `stable_after_s`. After
    `give_up_after` restarts in a row that failed, its GPUs are given up: the policy sees so much less quota. A server
    that has not answered its health check for `health_timeout_s`, asked every `health_every_s`, counts as hung and is
    killed. A request that a server lost before its first token is sent again, `request_retries` times at most.
    """

    restart_after_s: Positive = 10.0
    restart_after_at_most_s: Positive = 300.0
    stable_after_s: Positive = 600.0
    give_up_after: int = Field(default=5, ge=0)
    health_every_s: Interval = 5.0
    health_timeout_s: Positive = 60.0
    request_retries: int = Field(default=2, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> "RecoveryConfig":
        if self.restart_after_s > self.restart_after_at_most_s:
            raise ValueError(
                f"restart_after_s {self.restart_after_s:g} lies above restart_after_at_most_s "
                f"{self.restart_after_at_most_s:g}; swap them"
            )
        if self.health_every_s > self.health_timeout_s:
            raise ValueError(
                f"health_every_s {self.health_every_s:g} lies above health_timeout_s {self.health_timeout_s:g}: nobody "
                "would have been asked; ask more often"
            )
        return self

    def restart_s(self, failures: int) -> float | None:
        """Seconds until a server is started again after so many failures in a row, from 1 on; None: given up."""
        if failures > self.give_up_after:
            return None
        doubled = self.restart_after_s * 2.0 ** min(failures - 1, 60)
        return min(doubled, self.restart_after_at_most_s)

"""What a trace says about itself: how it came to be, how far it reaches, where in the week it begins."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

HOURS_PER_WEEK = 168.0
LONGEST_HORIZON_S = 1e9  # 31 years: what is longer is in another unit


class TraceStep(BaseModel):
    """One step of how a trace came to be: the name of the function and what it was given and found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class Calendar(BaseModel):
    """Where in the week time 0 lies, in hours since Monday 00:00, and how many seconds one day of it takes.

    `day_s` is 86400 unless the trace's time is compressed or stretched.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_hour_of_week: float = Field(ge=0, lt=HOURS_PER_WEEK)
    day_s: float = Field(default=86400.0, gt=0, allow_inf_nan=False)

    def moved(self, by_s: float) -> "Calendar":
        """The calendar of a trace whose time 0 lies `by_s` later."""
        # Rounding may carry the remainder up to the modulus itself, which the field forbids.
        hour = (self.start_hour_of_week + by_s * 24.0 / self.day_s) % HOURS_PER_WEEK
        return Calendar(start_hour_of_week=hour if hour < HOURS_PER_WEEK else 0.0, day_s=self.day_s)


class TraceMetadata(BaseModel):
    """Kept in the Parquet schema under "sageserve_testbed".

    `horizon_s` is the end of the covered time, no earlier than the last arrival. `seed` is that of the synthesis,
    None for a recorded trace. `calendar` is None where the weekday of time 0 is not known. `prefix_block_tokens` is the
    size of the blocks that column `prefix_hashes` numbers, None where the trace has no such column.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    horizon_s: float = Field(ge=0, le=LONGEST_HORIZON_S, allow_inf_nan=False)
    seed: int | None = None
    calendar: Calendar | None = None
    prefix_block_tokens: int | None = Field(default=None, ge=1)
    steps: tuple[TraceStep, ...] = ()

    def after(
        self, name: str, parameters: dict[str, JsonValue], *, horizon_s: float, calendar: Calendar | None
    ) -> Self:
        """This metadata with one more step."""
        step = TraceStep(name=name, parameters=parameters)
        return self.model_copy(
            update={"horizon_s": horizon_s, "calendar": calendar, "steps": (*self.steps, step)},
        )

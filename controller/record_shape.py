"""The shape of a recorded decision, held against every one that is decoded: a file may hold anything."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError
from pydantic_core import to_json

from controller.types import Capacity, Forecast, PlacementState, Role, SolveReport

# Seconds of a run: 31 years either way.
Seconds = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
Width = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Series = list[tuple[str, str, list[Finite]]]
Counts = list[tuple[str, str, str, Role, NonNegativeInt]]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Demand(_Shape):
    bin_s: Width
    until_s: Seconds
    bins: NonNegativeInt
    interactive: Series
    niw: Series
    ended: Series
    missed: Series
    interactive_output: Series = []


class _Limits(_Shape):
    models: list[str]
    regions: list[str]
    capacity: list[tuple[str, str, Capacity]]
    quota_gpus: list[tuple[str, str, Finite]]
    min_servers: NonNegativeInt
    roles: list[Role]
    rtt_s: list[tuple[str, str, Seconds]]


class _Step(_Shape):
    placement: tuple[str, str, str, Role]
    change: int
    reason: str


class _Memory(_Shape):
    budget: Counts
    budget_until_s: Seconds
    forecasts: list[tuple[str, str, Forecast]]
    last_change_s: list[tuple[str, str, str, Role, Seconds]]
    numbers: list[tuple[str, float]]
    unchanged: list[str]


class _Plan(_Shape):
    counts: Counts
    sleeping: Counts
    next_decision_s: float
    steps: list[_Step]
    solve: SolveReport | None
    memory: _Memory


class _Seen(_Shape):
    at_s: Seconds
    placements: list[tuple[str, str, str, Role, PlacementState]]
    demand: _Demand
    niw_queued_tokens: dict[str, Finite]
    # Deadlines may lie beyond any run.
    niw_due: dict[str, list[tuple[Finite, Finite]]] = {}
    limits: _Limits | None = None
    previous: _Plan | None = None


class _Decision(_Shape):
    seen: _Seen
    plan: _Plan


_DECISION = TypeAdapter(_Decision)


def require_shape(record: Any) -> None:
    """Raise ValueError, one line, where a record is not what controller.records writes."""
    try:
        # As JSON, where strict means that text is no number while a list is a tuple.
        _DECISION.validate_json(to_json(record), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None

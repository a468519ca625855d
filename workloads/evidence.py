"""What the targets of a trace are measured on: the trace, its description, and the week that it belongs to."""

from dataclasses import dataclass

from pydantic import ValidationError

from workloads.describe import describe
from workloads.description import TraceDescription
from workloads.hourly_load import HourlyLoad, hourly_load
from workloads.synthesis import STEP, SyntheticWorkload, synthesise
from workloads.trace import Trace

DAYS_PER_WEEK = 7
AROUND_H = 336.0  # two weeks: the chance of a correlation of 0 to look like 0.29 is one in a hundred in one week
AROUND_REQUESTS = 800_000  # in these: chance in single requests hardly moves an hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A trace, and the one on which weekdays and weekends are measured.

    `week` is the trace itself where it covers a week or where nothing else is known; `week_is` then is empty, and
    otherwise tells what `week` is. `interactive` and `niw` are its load by the hour. `declared` is the workload that
    the trace was drawn from, None for any other trace.
    """

    trace: Trace
    description: TraceDescription
    week: Trace
    week_is: str
    interactive: HourlyLoad
    niw: HourlyLoad
    declared: SyntheticWorkload | None


def evidence(trace: Trace, description: TraceDescription | None = None) -> Evidence:
    """What can be known of `trace`; `description` is its own, if at hand.

    What only weeks can tell, a synthetic trace that is shorter still tells: its workload and seed are in its metadata,
    and a day is the same whatever window it is drawn in, so the two weeks from its Monday on are drawn and measured.
    Levels, bursts and regimes are then those of this very trace; only single requests are drawn anew where the rate is
    lowered to keep the weeks small. Any other trace is measured as it is.
    """
    declared = _declared(trace)
    week, week_is = _week(trace, declared)
    interactive = week.interactive
    return Evidence(
        trace=trace,
        description=description or describe(trace),
        week=week,
        week_is=week_is,
        interactive=hourly_load(week, interactive),
        niw=hourly_load(week, ~interactive),
        declared=declared,
    )


def _week(trace: Trace, declared: SyntheticWorkload | None) -> tuple[Trace, str]:
    calendar = trace.metadata.calendar
    if declared is None or calendar is None or trace.horizon_s >= DAYS_PER_WEEK * calendar.day_s - 1e-6:
        return trace, ""
    seed, from_h = trace.metadata.seed, trace.metadata.steps[0].parameters["from_h"]
    assert seed is not None and isinstance(from_h, int | float), "a synthesis records its seed and its window"
    rate_per_s = min(declared.mean_requests_per_s, AROUND_REQUESTS / declared.seconds(AROUND_H))
    thinner = declared.model_copy(update={"mean_requests_per_s": rate_per_s})
    monday_h = from_h - calendar.start_hour_of_week
    week = synthesise(thinner, seed, from_h=monday_h, to_h=monday_h + AROUND_H)
    at = f"{rate_per_s:.3g} requests/s"
    return week, f"the two weeks from its Monday on, drawn from the same workload and seed at {at}"


def _declared(trace: Trace) -> SyntheticWorkload | None:
    """The workload of a trace that is as it was drawn; what was changed afterwards is no longer what it declares."""
    if len(trace.metadata.steps) != 1 or trace.metadata.steps[0].name != STEP:
        return None
    try:
        return SyntheticWorkload.model_validate(trace.metadata.steps[0].parameters.get("workload"))
    except ValidationError:  # drawn by another version
        return None

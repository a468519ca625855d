"""Timestamps that are plain numbers: which unit they are in, and what gives a wrong one away."""

from dataclasses import dataclass

from workloads.formats.arrivals_seen import ArrivalsSeen
from workloads.trace_checks import TraceError
from workloads.trace_metadata import LONGEST_HORIZON_S

DAY_S = 86_400.0
LONGEST_S = 400 * DAY_S
MOST_PER_S = 1000.0
FEWEST_ROWS = 20
UNITS_PER_S = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTimes:
    """What a format says of its timestamps: their `unit`, and whether they are `fractions` of a second."""

    unit: str
    fractions: bool


def check_span(seen: ArrivalsSeen, source: str, *, dates: bool, window_s: tuple[float, float] | None) -> None:
    """Raise TraceError where arrivals reach further than any trace does: 400 days of dates, 31 years of numbers.

    Of a file that is cut to a window, the window alone must be no longer.
    """
    most_s = LONGEST_S if dates else LONGEST_HORIZON_S
    if window_s is not None:
        if window_s[1] - window_s[0] > most_s:
            raise TraceError(
                f"{source}: cut to {(window_s[1] - window_s[0]) / DAY_S:,.6g} days; at most {most_s / DAY_S:,.0f} are "
                "read: cut less out of it"
            )
        return
    reach_s = seen.last_s - min(seen.first_s, 0.0)
    if reach_s > most_s:
        raise TraceError(
            f"{source}, line {seen.latest_line}: {reach_s / DAY_S:,.6g} days after the beginning (the earliest: line "
            f"{seen.earliest_line}); at most {most_s / DAY_S:,.0f} are read: a wrong date or unit?"
        )


def check_unit(times: NumberTimes, seen: ArrivalsSeen, source: str) -> None:
    """Raise TraceError where the arrivals cannot be what the format says.

    They are refused when they are the time since 1970 or span more than 400 days; when they are whole seconds over more
    than a day in a format that has fractions; when, in milliseconds or finer, they come to more than 1000 requests/s;
    when they fall by more than half a day without ever passing a day. `--time-unit` says the unit and ends the doubt.
    """
    span_s = seen.last_s - seen.first_s
    range_s = f"{seen.first_s:,.6g} to {seen.last_s:,.6g} s"
    told = f"{source}: {seen.rows:,} requests from {range_s} if timestamps are in {times.unit}"
    say = "say the unit with --time-unit s, ms, us or ns"
    if seen.fall_s > DAY_S / 2 and seen.last_s <= DAY_S:
        raise TraceError(
            f"{source}, line {seen.fall_line}: the timestamp falls by {seen.fall_s:,.0f} s: seconds of the day, which "
            "begin anew at midnight? Wanted seconds since the beginning: add 86400 for every day before"
        )
    if seen.last_s > LONGEST_S:
        if seen.last_s - seen.first_s <= LONGEST_S:
            raise TraceError(
                f"{told}: the time since 1970? Wanted the time since the beginning: subtract the first one"
            )
        raise TraceError(f"{told}, more than 400 days: a finer unit? {say}")
    if seen.rows < FEWEST_ROWS:
        return
    if times.fractions and seen.whole and span_s > DAY_S:
        raise TraceError(f"{told}, and none has a fraction: a finer unit? {say}")
    if UNITS_PER_S[times.unit] > 1 and seen.rows > MOST_PER_S * span_s:
        raise TraceError(f"{told}, more than 1000 requests/s: in seconds rather than {times.unit}? {say}")

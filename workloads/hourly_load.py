"""Load by the hour of a trace's calendar, and what days and weeks can be told from it."""

from dataclasses import dataclass
from math import isclose

import numpy as np
import numpy.typing as npt

from workloads.description import Statistic
from workloads.trace import Trace
from workloads.trace_metadata import Calendar

Series = npt.NDArray[np.float64]
WholeNumbers = npt.NDArray[np.int64]

HOURS_PER_DAY = 24
HOURS_PER_WEEK = 168
WEEKDAYS = 5
WEEKDAY_HOURS = WEEKDAYS * HOURS_PER_DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyLoad:
    """Load in the whole clock hours of a trace, shape (hours,), and for each its hour of the week from Monday 00:00.

    An hour is a 24th of the calendar's day. Without a calendar hours are counted from time 0 (`hour_of_week` is None):
    every day may be any day, and weekday statistics are refused.
    """

    load: Series
    hour_of_week: WholeNumbers | None

    @property
    def weekday(self) -> npt.NDArray[np.bool_]:
        """Which hours lie on Monday to Friday; all where that is not known."""
        if self.hour_of_week is None:
            return np.ones(len(self.load), dtype=np.bool_)
        return np.asarray(self.hour_of_week < WEEKDAY_HOURS)

    @property
    def hour_of_day(self) -> WholeNumbers:
        hours = np.arange(len(self.load)) if self.hour_of_week is None else self.hour_of_week
        return np.asarray(hours % HOURS_PER_DAY)

    def mean_weekday(self) -> Series | None:
        """Mean load of each hour of a weekday, shape (24,); None where the trace lacks one of them."""
        seen = np.bincount(self.hour_of_day[self.weekday], minlength=HOURS_PER_DAY)
        if (seen == 0).any():
            return None
        load = np.bincount(self.hour_of_day[self.weekday], weights=self.load[self.weekday], minlength=HOURS_PER_DAY)
        return np.asarray(load / seen)

    def phase_h(self) -> Statistic:
        """Hour of the day (0..24) at which the first harmonic of the mean weekday peaks."""
        day = self.mean_weekday()
        if day is None:
            return Statistic(value=None, reason="the trace does not cover every hour of a weekday")
        harmonic = (day * np.exp(2j * np.pi * (np.arange(HOURS_PER_DAY) + 0.5) / HOURS_PER_DAY)).sum()
        if abs(harmonic) <= 1e-9 * day.sum():
            return Statistic(value=None, reason="no daily rhythm")
        return Statistic(value=float(np.angle(harmonic) * HOURS_PER_DAY / (2 * np.pi) % HOURS_PER_DAY))

    def peak_to_trough(self, hours: int = 1) -> Statistic:
        """Highest over lowest mean of `hours` hours (1, 2, 3, 4, ...) of the mean weekday."""
        day = self.mean_weekday()
        if day is None:
            return Statistic(value=None, reason="the trace does not cover every hour of a weekday")
        day = day.reshape(-1, hours).mean(axis=1)
        if day.min() <= 0:
            return Statistic(value=None, reason="an hour of the day without load")
        return Statistic(value=float(day.max() / day.min()))

    def daily_swing(self, hours: int) -> Statistic:
        """Highest over lowest mean of `hours` hours (1, 2, 3, 4, ...) within a weekday: the median of whole weekdays.

        Unlike `peak_to_trough` it sees the swing of days whose peaks lie at different hours.
        """
        starts = np.flatnonzero((self.hour_of_day == 0) & self.weekday)
        days = [self.load[start : start + HOURS_PER_DAY] for start in starts.tolist()]
        parts = [day.reshape(-1, hours).mean(axis=1) for day in days if len(day) == HOURS_PER_DAY]
        if not parts:
            return Statistic(value=None, reason="no whole weekday")
        if min(part.min() for part in parts) <= 0:
            return Statistic(value=None, reason=f"{hours} hours without load")
        return Statistic(value=float(np.median([part.max() / part.min() for part in parts])))

    def autocorrelation_24h(self) -> Statistic:
        """Correlation of the loads of two hours a day apart, both on weekdays."""
        early, late = self.load[:-HOURS_PER_DAY], self.load[HOURS_PER_DAY:]
        pairs = self.weekday[:-HOURS_PER_DAY] & self.weekday[HOURS_PER_DAY:]
        early, late = early[pairs], late[pairs]
        if len(early) < HOURS_PER_DAY:
            return Statistic(value=None, reason="shorter than two whole weekdays in a row")
        if isclose(float(early.std()), 0.0) or isclose(float(late.std()), 0.0):
            return Statistic(value=None, reason="the load does not change")
        return Statistic(value=float(np.corrcoef(early, late)[0, 1]))

    def weekend_to_weekday(self) -> Statistic:
        """Mean load of the weekend's hours over that of the weekdays'."""
        if self.hour_of_week is None:
            return Statistic(value=None, reason="the weekday of time 0 is not known")
        weekday = self.weekday
        if weekday.sum() < HOURS_PER_DAY or (~weekday).sum() < HOURS_PER_DAY:
            return Statistic(value=None, reason="the trace lacks a day of weekdays or a day of weekend")
        if self.load[weekday].sum() <= 0:
            return Statistic(value=None, reason="no load on weekdays")
        return Statistic(value=float(self.load[~weekday].mean() / self.load[weekday].mean()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """The whole clock hours of a trace: where the first begins, how long each is, how many they are."""

    first_s: float
    hour_s: float
    count: int
    hour_of_week: WholeNumbers | None

    @property
    def start_h(self) -> float:
        """Hours of the calendar from time 0 to the first whole one, 0..1."""
        return self.first_s / self.hour_s


def whole_hours(trace: Trace) -> Hours:
    """The hours that `trace` covers from beginning to end."""
    calendar = trace.metadata.calendar or Calendar(start_hour_of_week=0.0)
    hour_s = calendar.day_s / HOURS_PER_DAY
    first_h = int(np.ceil(calendar.start_hour_of_week - 1e-9))
    first_s = max(0.0, (first_h - calendar.start_hour_of_week) * hour_s)
    count = max(0, int((trace.horizon_s - first_s) / hour_s + 1e-9))
    known = trace.metadata.calendar is not None
    hour_of_week = (first_h + np.arange(count)) % HOURS_PER_WEEK if known else None
    return Hours(first_s=first_s, hour_s=hour_s, count=count, hour_of_week=hour_of_week)


def hourly_load(trace: Trace, rows: npt.NDArray[np.bool_]) -> HourlyLoad:
    """Prompt and output tokens of the requests `rows` (a mask over the trace) in the hour of their arrival."""
    hours = whole_hours(trace)
    tokens = trace.total_tokens[rows]
    place = np.floor((trace.numbers("arrival_s")[rows] - hours.first_s) / hours.hour_s).astype(np.int64)
    inside = (place >= 0) & (place < hours.count)
    load = np.bincount(place[inside], weights=tokens[inside], minlength=hours.count).astype(np.float64)
    return HourlyLoad(load=load, hour_of_week=hours.hour_of_week)

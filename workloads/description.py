"""What a description of a trace holds, and the table it makes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A number, or None with the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTotals:
    """Requests and tokens of one tier, model or region, and their shares (0..1) of the trace."""

    requests: int
    prompt_tokens: int
    output_tokens: int
    request_share: float
    token_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDescription:
    """How the load of one class of tiers moves. Load is prompt + output tokens by arrival.

    An hour is a 24th of the calendar's day. `peak_to_trough`: of the mean weekday's hourly load; `peak_to_trough_4h`:
    of its 4 h means. `autocorrelation_24h`: correlation of hourly loads a day apart, both on weekdays.
    `weekend_to_weekday`: ratio of mean loads. `minute_p99_to_hour_median`: p99 over minutes of the requests in the
    minute by the median minute of its hour (60 and 3600 s of the trace). `interarrival_cv`, `index_of_dispersion_10s`:
    see workloads.dispersion.
    """

    requests_per_s: Statistic
    tokens_per_s: Statistic
    peak_to_trough: Statistic
    peak_to_trough_4h: Statistic
    autocorrelation_24h: Statistic
    weekend_to_weekday: Statistic
    minute_p99_to_hour_median: Statistic
    interarrival_cv: Statistic
    index_of_dispersion_10s: Statistic


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthDescription:
    """Token counts per request."""

    mean: float
    p50: float
    p90: float
    p98: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptionRow:
    """One line of the table: what it is about, the statistic, its value or why there is none."""

    subject: str
    statistic: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceDescription:
    """Statistics of a trace; `loads` by class ("all", "interactive", "niw"), lengths by model."""

    requests: int
    horizon_s: float
    tiers: Mapping[str, GroupTotals]
    models: Mapping[str, GroupTotals]
    regions: Mapping[str, GroupTotals]
    interactive_per_niw: Statistic
    top_10_tenants_share: Statistic
    loads: Mapping[str, LoadDescription]
    prompt_lengths: Mapping[str, LengthDescription]
    output_lengths: Mapping[str, LengthDescription]

    def to_rows(self) -> list[DescriptionRow]:
        """Everything as one flat table, in a fixed order."""
        rows = [
            DescriptionRow(subject="trace", statistic="requests", value=float(self.requests)),
            DescriptionRow(subject="trace", statistic="horizon_s", value=self.horizon_s),
            _row("trace", "interactive_per_niw", self.interactive_per_niw),
            _row("trace", "top_10_tenants_share", self.top_10_tenants_share),
        ]
        for kind in ("tiers", "models", "regions", "loads", "prompt_lengths", "output_lengths"):
            parts: Mapping[str, GroupTotals | LoadDescription | LengthDescription] = getattr(self, kind)
            for name, part in parts.items():
                rows.extend(_rows(f"{kind} {name}", part))
        return rows


def _rows(subject: str, part: GroupTotals | LoadDescription | LengthDescription) -> Iterator[DescriptionRow]:
    for field in fields(part):
        value = getattr(part, field.name)
        yield _row(subject, field.name, value if isinstance(value, Statistic) else Statistic(value=float(value)))


def _row(subject: str, name: str, statistic: Statistic) -> DescriptionRow:
    return DescriptionRow(subject=subject, statistic=name, value=statistic.value, reason=statistic.reason)

"""What `testbed trace convert` is asked to do to a trace, parsed from its options, and done in one fixed order."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from testbed.bad_input import BadInput
from workloads.lengths import QuantileTable
from workloads.relabel import relabel, set_deadlines
from workloads.trace import Trace
from workloads.transforms import clip_lengths, cut, jitter, scale_rate, stretch_time, thin

SECONDS_PER = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
Keep = Literal["dispersion", "clients"]
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)")
_TABLE: TypeAdapter[QuantileTable] = TypeAdapter(QuantileTable)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceChanges:
    """Changes in the order in which they are made; None and empty ones are left out."""

    cut_s: tuple[float, float | None] | None = None
    models: Mapping[str, str]
    regions: Mapping[str, str]
    tiers: Mapping[str, str]
    niw_deadline_s: float | None = None
    jitter_s: float | None = None
    stretch: float | None = None
    rate_scale: float | None = None
    keep: Keep = "dispersion"
    clip_context: Sequence[str] = ()
    seed: int | None = None

    @property
    def only_cut_s(self) -> tuple[float, float] | None:
        """The window, if it is closed; what is left of `cut` once the file was read in it alone is to move time 0."""
        return None if self.cut_s is None or self.cut_s[1] is None else (self.cut_s[0], self.cut_s[1])

    @property
    def need_all_rows(self) -> bool:
        """Whether anything but a closed window is asked for."""
        window = self.cut_s is not None and self.cut_s[1] is None
        others = (self.niw_deadline_s, self.jitter_s, self.stretch, self.rate_scale)
        return (
            window
            or any(other is not None for other in others)
            or any((self.models, self.regions, self.tiers, self.clip_context))
        )

    def of(self, trace: Trace) -> Trace:
        """The changed trace. Raises ValueError where one cannot be made."""
        if self.cut_s is not None:
            trace = cut(trace, self.cut_s[0], trace.horizon_s if self.cut_s[1] is None else self.cut_s[1])
        if self.models or self.regions or self.tiers:
            trace = relabel(trace, model=self.models, region=self.regions, tier=self.tiers)
        if self.niw_deadline_s is not None:
            trace = set_deadlines(trace, self.niw_deadline_s)
        if self.jitter_s is not None:
            trace = jitter(trace, self.jitter_s, self._seed("--jitter"))
        if self.stretch is not None:
            trace = stretch_time(trace, self.stretch)
        if self.rate_scale is not None:
            seed = self._seed("--rate-scale")
            if self.keep == "clients":
                trace = thin(trace, self.rate_scale, seed, how="sample_tenants")
            else:
                trace = scale_rate(trace, self.rate_scale, seed)
        if self.clip_context:
            trace = clip_lengths(trace, _limits(self.clip_context, trace.labels("model").names))
        return trace

    def _seed(self, option: str) -> int:
        if self.seed is None:
            raise BadInput(f"{option} draws at random; give --seed N")
        return self.seed


def duration_s(text: str, option: str) -> float:
    """Seconds of 90, 90s, 15m, 8h or 2d. Raises BadInput."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or match[2] not in SECONDS_PER:
        raise BadInput(f"{option} {text}: not a time; give seconds or a number with ms, s, m, h or d, such as 8h")
    return float(match[1]) * SECONDS_PER[match[2]]


def window_s(text: str) -> tuple[float, float | None]:
    """Beginning and end of 8h:12h; None for the end of 8h: (to the end of the trace). Raises BadInput."""
    begin, colon, end = text.partition(":")
    if not colon:
        raise BadInput(f"--cut {text}: wanted FROM:TO, such as 8h:12h, or 8h: to the end")
    from_s, to_s = (duration_s(part, "--cut") if part.strip() else None for part in (begin, end))
    if to_s is not None and to_s <= (from_s or 0.0):
        raise BadInput(f"--cut {text}: it ends before it begins; wanted FROM:TO with FROM below TO")
    return from_s or 0.0, to_s


def names_map(texts: Sequence[str], option: str) -> dict[str, str]:
    """{old: new} of OLD=NEW, once each. Raises BadInput."""
    found: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not equals or not old or not new or old in found:
            raise BadInput(f"{option} {text}: wanted OLD=NEW, each old name once")
        found[old] = new
    return found


def quantile_table(text: str, option: str) -> QuantileTable:
    """The table of 0:1,0.5:928,1:7999, or of one length for all requests. Raises BadInput."""
    try:
        points = [tuple(point.split(":")) for point in text.split(",")] if ":" in text else [(0, text), (1, text)]
        return _TABLE.validate_python(points)
    except (ValueError, ValidationError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise BadInput(f"{option} {text}: {why}; wanted tokens, or QUANTILE:TOKENS,... from 0 to 1") from error


def _limits(texts: Sequence[str], models: tuple[str, ...]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for text in texts:
        model, equals, limit = text.rpartition("=")
        if not limit.isdecimal() or (equals and model not in models):
            raise BadInput(f"--clip-context {text}: wanted tokens, or MODEL=tokens with one of {', '.join(models)}")
        limits.update({model: int(limit)} if equals else dict.fromkeys(models, int(limit)))
    return limits

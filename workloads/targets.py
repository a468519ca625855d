"""What production-style means: twelve targets for a trace, each with its source, range and measure, and verdicts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from workloads import target_measures as measure
from workloads.description import TraceDescription
from workloads.evidence import Evidence, evidence
from workloads.target_measures import Measured
from workloads.trace import Trace

NEAR_DECLARED = 0.3  # random levels of hours move the mix of a day by as much

WEEK = "SageServe, production week of November 2024"
AZURE = "Azure LLM inference traces 2023 and 2024"
SERVEGEN = "ServeGen, client windows of m-large"


class Verdict(StrEnum):
    PASS = "pass"
    MISS = "miss"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """From `low` to `high`, both inclusive; `name` where a target has more than one."""

    low: float = -inf
    high: float = inf
    name: str = ""

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.low == -inf or self.high == inf:
            text = f"at most {self.high:g}" if self.low == -inf else f"at least {self.low:g}"
        else:
            text = f"{self.low:g} to {self.high:g}"
        return f"{text} ({self.name})" if self.name else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One line of the table. All values measured must lie in one and the same of `wanted`.

    A parameter that the trace declares is held against what was declared too, within 30 %. `of_week` tells that it is
    measured on the trace's weeks (see workloads.evidence).
    """

    number: str
    name: str
    source: str
    wanted: tuple[Range, ...]
    measure: Callable[[Evidence], Measured]
    of_week: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """The verdict on one target, and its `values` by name (of a model; "" for one of the whole).

    `note` says why a target does not apply, or what was declared; `on_week` what it was measured on if not the trace.
    """

    target: Target
    verdict: Verdict
    values: Mapping[str, float]
    note: str = ""
    on_week: str = ""


TARGETS: tuple[Target, ...] = (
    Target(
        number="1",
        name="IW : NIW by requests",
        source=f"a parameter; {WEEK}: 5.3, its second day 6.3",
        wanted=(),
        measure=measure.interactive_per_niw,
    ),
    Target(
        number="2",
        name="IW-F : IW-N by requests",
        source="a declared assumption, measured nowhere in public; IW-F is the larger",
        wanted=(Range(low=1.0),),
        measure=measure.iw_f_per_iw_n,
    ),
    Target(
        number="3a",
        name="IW: 24 h autocorrelation of hourly load, weekdays",
        source=f"{WEEK}; 0.61 to 0.95 by model",
        wanted=(Range(low=0.75),),
        measure=measure.interactive_daily_correlation,
        of_week=True,
    ),
    Target(
        number="3b",
        name="NIW: the same",
        source=WEEK,
        wanted=(Range(low=-0.29, high=0.29),),
        measure=measure.niw_daily_correlation,
        of_week=True,
    ),
    Target(
        number="4a",
        name="IW: hourly peak / trough of a weekday",
        source=f"{WEEK}; {AZURE}",
        wanted=(Range(low=3.0, high=10.0, name="office"), Range(low=1.5, high=2.5, name="consumer")),
        measure=measure.interactive_peak_to_trough,
        of_week=True,
    ),
    Target(
        number="4b",
        name="IW: weekend / weekday",
        source=f"{WEEK}: 0.24; {AZURE}",
        wanted=(Range(low=0.16, high=0.57),),
        measure=measure.interactive_weekend,
        of_week=True,
    ),
    Target(
        number="5a",
        name="NIW: weekend / weekday",
        source=WEEK,
        wanted=(Range(low=0.6, high=0.8),),
        measure=measure.niw_weekend,
        of_week=True,
    ),
    Target(
        number="5b",
        name="NIW: 4 h peak / trough within a weekday",
        source=WEEK,
        wanted=(Range(low=1.1, high=2.0),),
        measure=measure.niw_daily_swing,
        of_week=True,
    ),
    Target(
        number="6a",
        name="inter-arrival CV within minutes",
        source=f"{AZURE}: 1.0 chat, 3.2 code",
        wanted=(Range(low=1.0, high=3.2),),
        measure=measure.interarrival_cv,
    ),
    Target(
        number="6b",
        name="index of dispersion of 10 s counts at 28-45/s",
        source=AZURE,
        wanted=(Range(low=1.8, high=3.2),),
        measure=measure.dispersion_at_rate,
    ),
    Target(
        number="7a",
        name="minute over its hour's median, p99",
        source=f"{WEEK}; {AZURE}",
        wanted=(Range(low=1.2, high=3.3),),
        measure=measure.minute_peaks,
    ),
    Target(
        number="7b",
        name="the same of one model, largest",
        source=f"{WEEK}: now and then",
        wanted=(Range(low=5.0, high=18.0),),
        measure=measure.largest_burst,
    ),
    Target(
        number="8a",
        name="regions: distance from shares .43 .30 .28",
        source=WEEK,
        wanted=(Range(high=0.05),),
        measure=measure.region_shares,
    ),
    Target(
        number="8b",
        name="regions: largest / smallest of the most uneven model",
        source=f"{WEEK}: up to 4",
        wanted=(Range(low=2.0, high=4.4),),
        measure=measure.most_uneven_model,
    ),
    Target(
        number="8c",
        name="regions: hours between their daily peaks",
        source="optional, 0 to 3",
        wanted=(Range(low=0.0, high=3.0),),
        measure=measure.region_phases,
        of_week=True,
    ),
    Target(
        number="9a",
        name="models: most / fewest weekly tokens",
        source=WEEK,
        wanted=(Range(high=2.0),),
        measure=measure.model_balance,
        of_week=True,
    ),
    Target(
        number="9b",
        name="models: largest step of one against the others",
        source=f"{WEEK}: model D",
        wanted=(Range(low=1.5),),
        measure=measure.largest_step,
        of_week=True,
    ),
    Target(
        number="10a",
        name="prompt tokens p50 by model",
        source=WEEK,
        wanted=(Range(low=3400, high=5600),),
        measure=measure.prompt_p50,
    ),
    Target(
        number="10b",
        name="prompt tokens p90 by model",
        source=WEEK,
        wanted=(Range(low=9000, high=16000),),
        measure=measure.prompt_p90,
    ),
    Target(
        number="10c",
        name="prompt tokens p98 by model",
        source=WEEK,
        wanted=(Range(low=11000, high=35000),),
        measure=measure.prompt_p98,
    ),
    Target(
        number="10d",
        name="prompts of nearly one length (template steps) by model",
        source=f"{WEEK}: steps in every model's distribution",
        wanted=(Range(low=0.04),),
        measure=measure.template_steps,
    ),
    Target(
        number="10e",
        name="longest request / context limit by model",
        source="what a server accepts",
        wanted=(Range(high=1.0),),
        measure=measure.context_use,
    ),
    Target(
        number="11a",
        name="output tokens, mean",
        source=f"{WEEK}: 222",
        wanted=(Range(low=198, high=242),),
        measure=measure.output_mean,
    ),
    Target(
        number="11b",
        name="output tokens p50 by model",
        source=WEEK,
        wanted=(Range(low=60, high=140),),
        measure=measure.output_p50,
    ),
    Target(
        number="11c",
        name="output tokens p90 by model",
        source=WEEK,
        wanted=(Range(low=170, high=840),),
        measure=measure.output_p90,
    ),
    Target(
        number="11d",
        name="output tokens p99 by model",
        source=WEEK,
        wanted=(Range(high=2000),),
        measure=measure.output_p99,
    ),
    Target(
        number="11e",
        name="rank correlation of prompt and output by model",
        source=f"{AZURE}: 0.07 in the conversations of 2023",
        wanted=(Range(high=0.1),),
        measure=measure.output_to_prompt,
    ),
    Target(
        number="12a",
        name="share of the top 10 tenants",
        source=SERVEGEN,
        wanted=(Range(low=0.6, high=0.9),),
        measure=measure.top_tenants,
    ),
    Target(
        number="12b",
        name="of the 10 busiest clients, Gamma or Weibull",
        source=SERVEGEN,
        wanted=(Range(low=8),),
        measure=measure.clients_near_a_law,
    ),
)


def judge(trace: Trace, description: TraceDescription | None = None) -> list[TargetResult]:
    """Every target's verdict on `trace`, in the order of the table; `description` is its own, if at hand."""
    of = evidence(trace, description)
    return [_judged(target, of) for target in TARGETS]


def _judged(target: Target, of: Evidence) -> TargetResult:
    measured = target.measure(of)
    notes, near = [], Range()
    if measured.declared is not None:
        notes.append(f"declared {measured.declared:.3g}")
        near = Range(low=measured.declared * (1 - NEAR_DECLARED), high=measured.declared * (1 + NEAR_DECLARED))
    if not measured.values:
        verdict = Verdict.NOT_APPLICABLE
        notes.append(measured.reason)
    elif not target.wanted and measured.declared is None:
        verdict = Verdict.NOT_APPLICABLE
        notes.append("a parameter, and the trace declares none")
    else:
        values = measured.values.values()
        ranges = target.wanted or (near,)
        fits = any(all(each.holds(value) and near.holds(value) for value in values) for each in ranges)
        verdict = Verdict.PASS if fits else Verdict.MISS
    return TargetResult(
        target=target,
        verdict=verdict,
        values=measured.values,
        note="; ".join(notes),
        on_week=of.week_is if target.of_week and measured.values else "",
    )

"""The numbers of a synthetic workload: production-style load of several models from several regions."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from workloads.arrivals import HIGHEST_CV, LOWEST_CV
from workloads.file_part import FilePart
from workloads.lengths import mean_total_tokens
from workloads.model_workload import BUILT_IN_MODELS, LARGEST_SHARE, ModelWorkload
from workloads.request import Tier
from workloads.shapes import LoadShape
from workloads.trace_metadata import Calendar

MOST_DAYS = 1000
MOST_REQUESTS = 10**9


class Weekday(StrEnum):
    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class RegionOrigin(FilePart):
    """A region of origin: its relative share, and how many hours its local time is ahead of the trace's."""

    share: float = Field(default=1.0, gt=0, le=LARGEST_SHARE)
    phase_offset_h: float = Field(default=0.0, ge=-24, le=24)


class LevelStep(FilePart):
    """From `at_h` (hours since time 0, may be negative) on, the rate of `part` of a model is multiplied by `factor`."""

    model: str
    at_h: float
    factor: float = Field(gt=0, le=1e6)
    part: Literal["all", "interactive", "niw"] = "all"

    def touches(self, model: str, tier: Tier) -> bool:
        return self.model == model and self.part in ("all", "interactive" if tier.interactive else "niw")


class SyntheticWorkload(FilePart):
    """What `synthesise` draws from. Hours (`_h`) are of the synthetic day, which takes `day_s` seconds of the run.

    A `day_s` below 86400 compresses everything that has a shape - daily curve, weekend, level, bursts, horizon, NIW
    deadline - while rates (`_per_s`) and the gaps' coefficients of variation stay those of the run's own seconds.

    `mean_requests_per_s` is the expected mean over the run, from time 0 to `horizon_h`; history before time 0 follows
    from the same curve. `interactive_per_niw` counts requests. `tenants` in each (model, region, tier) hold shares that
    fall as rank^-`tenant_skew`; each sends a renewal process of its own. The coefficient of variation of its gaps
    has the tier's `interarrival_cv` as median and a logarithm that spreads by `tenant_cv_sd`; the gaps of a share
    `weibull_share` of the tenants follow a Weibull law, the others' a Gamma law. Where the CV of a whole stream
    matters, set `tenants` to 1: superposed tenants look smoother than each one.

    `models` may leave out what a built-in model (BUILT_IN_MODELS) has already; `max_model_len_cap` limits them all.
    """

    mean_requests_per_s: float = Field(default=1.0, gt=0)
    horizon_h: float = Field(default=168.0, gt=0, le=MOST_DAYS * 24)
    day_s: float = Field(default=86400.0, gt=0, le=86400.0 * 365)
    start_weekday: Weekday = Weekday.MONDAY
    start_hour: float = Field(default=0.0, ge=0, lt=24)
    models: dict[str, ModelWorkload] = Field(default_factory=lambda: dict(BUILT_IN_MODELS), min_length=1)
    shares_of: Literal["tokens", "requests"] = "tokens"
    max_model_len_cap: int = Field(default=32768, ge=2)
    regions: dict[str, RegionOrigin] = Field(
        default_factory=lambda: {
            "west": RegionOrigin(share=0.43),
            "central": RegionOrigin(share=0.30),
            "east": RegionOrigin(share=0.28),
        },
        min_length=1,
    )
    interactive_per_niw: float = Field(default=3.0, ge=0)
    iw_f_share_of_interactive: float = Field(default=0.6, ge=0, le=1)
    interactive: LoadShape = LoadShape()
    niw: LoadShape = LoadShape(
        peak_to_trough=1.05, weekend_to_weekday=0.7, level_sd=0.3, level_correlation_h=2.0, bursts_per_day=1.0
    )
    level_steps: tuple[LevelStep, ...] = ()
    interarrival_cv: dict[Tier, float] = Field(default_factory=lambda: {Tier.IW_F: 1.9, Tier.IW_N: 1.9, Tier.NIW: 2.2})
    tenants: int = Field(default=20, ge=1, le=1000)
    tenant_skew: float = Field(default=1.0, ge=0, le=5)
    tenant_cv_sd: float = Field(default=0.0, ge=0, le=2)
    weibull_share: float = Field(default=0.0, ge=0, le=1)
    niw_deadline_h: float = Field(default=24.0, gt=0)

    @field_validator("models", mode="before")
    @classmethod
    def _fill_from_built_in(cls, models: Any) -> Any:
        if not isinstance(models, dict):
            return models
        filled = {}
        for name, given in models.items():
            given = {} if given is None else given
            known = BUILT_IN_MODELS.get(name)
            filled[name] = {**known.model_dump(), **given} if known and isinstance(given, dict) else given
        return filled

    @model_validator(mode="after")
    def _names_match(self) -> Self:
        requests = self.mean_requests_per_s * self.horizon_s
        if requests > MOST_REQUESTS:
            raise ValueError(
                f"mean_requests_per_s {self.mean_requests_per_s:g} over {self.horizon_s:g} s are {requests:.3g} "
                f"requests; at most {MOST_REQUESTS:,} can be drawn"
            )
        for name, model in self.models.items():
            for region, share in (model.region_shares or {}).items():
                if region not in self.regions:
                    raise ValueError(
                        f"models.{name}.region_shares: no region {region!r}; have {', '.join(self.regions)}"
                    )
                if not 0 <= share <= LARGEST_SHARE:
                    raise ValueError(
                        f"models.{name}.region_shares.{region}={share}; must be 0 or more, at most {LARGEST_SHARE:g}"
                    )
            if model.region_shares is not None and not sum(model.region_shares.values()) > 0:
                raise ValueError(f"models.{name}.region_shares adds up to 0; give a region a share or leave it out")
        if all(model.niw_share == 0 for model in self.models.values()):
            raise ValueError("models: niw_share is 0 for all; give one a share or set interactive_per_niw very high")
        for step in self.level_steps:
            if step.model not in self.models:
                raise ValueError(f"level_steps: no model {step.model!r}; have {', '.join(self.models)}")
        for tier in Tier:
            if not LOWEST_CV <= self.interarrival_cv.get(tier, 0.0) <= HIGHEST_CV:
                raise ValueError(
                    f"interarrival_cv.{tier}={self.interarrival_cv.get(tier)}; every tier needs one in "
                    f"{LOWEST_CV:g}..{HIGHEST_CV:g}"
                )
        return self

    @property
    def horizon_s(self) -> float:
        return self.seconds(self.horizon_h)

    @property
    def calendar(self) -> Calendar:
        start = 24.0 * list(Weekday).index(self.start_weekday) + self.start_hour
        return Calendar(start_hour_of_week=start, day_s=self.day_s)

    def seconds(self, hours: float) -> float:
        """Hours of the synthetic day in seconds of the run."""
        return hours * self.day_s / 24.0

    def shape(self, tier: Tier) -> LoadShape:
        return self.interactive if tier.interactive else self.niw

    def max_model_len(self, model: str) -> int:
        return min(self.models[model].max_model_len, self.max_model_len_cap)

    def request_shares(self) -> dict[tuple[str, str, Tier], float]:
        """Share of all requests by (model, region of origin, tier); adds up to 1, shares of 0 are left out."""
        tokens = {name: self._mean_tokens(name) if self.shares_of == "tokens" else 1.0 for name in self.models}
        of_interactive = {name: model.share / tokens[name] for name, model in self.models.items()}
        of_niw = {
            name: (model.share if model.niw_share is None else model.niw_share) / tokens[name]
            for name, model in self.models.items()
        }
        interactive = self.interactive_per_niw / (1.0 + self.interactive_per_niw)
        of_tier = {
            Tier.IW_F: interactive * self.iw_f_share_of_interactive,
            Tier.IW_N: interactive * (1.0 - self.iw_f_share_of_interactive),
            Tier.NIW: 1.0 - interactive,
        }
        shares: dict[tuple[str, str, Tier], float] = {}
        for name, model in self.models.items():
            of_region = model.region_shares or {region: origin.share for region, origin in self.regions.items()}
            for region, region_share in of_region.items():
                for tier, tier_share in of_tier.items():
                    of_model = of_interactive if tier.interactive else of_niw
                    share = (
                        of_model[name] / sum(of_model.values()) * region_share / sum(of_region.values()) * tier_share
                    )
                    if share > 0:
                        shares[name, region, tier] = share
        return shares

    def _mean_tokens(self, name: str) -> float:
        model = self.models[name]
        return mean_total_tokens(model.prompt_tokens, model.output_tokens, self.max_model_len(name))


def short_workload(
    models: Sequence[str], regions: Sequence[str], *, day_s: float = 180.0, mean_requests_per_s: float = 2.0
) -> SyntheticWorkload:
    """One weekday squeezed into `day_s` seconds, with tiny requests: for real servers on a CPU, or a quick look.

    Prompts of 8-200 tokens, outputs of 4-64, equal shares, one tenant, no bursts (a synthetic minute is an eighth of
    a second here), the peak at 14/24 of the run.
    """
    model = ModelWorkload(
        max_model_len=512,
        prompt_tokens=((0.0, 8), (0.5, 50), (0.9, 130), (1.0, 200)),
        output_tokens=((0.0, 4), (0.5, 16), (0.9, 44), (1.0, 64)),
    )
    return SyntheticWorkload(
        mean_requests_per_s=mean_requests_per_s,
        horizon_h=24.0,
        day_s=day_s,
        start_weekday=Weekday.TUESDAY,
        models=dict.fromkeys(models, model),
        shares_of="requests",
        regions={name: RegionOrigin() for name in regions},
        interactive=LoadShape(bursts_per_day=0),
        niw=LoadShape(peak_to_trough=1.05, weekend_to_weekday=0.7, level_correlation_h=2.0, bursts_per_day=0),
        interarrival_cv={Tier.IW_F: 1.5, Tier.IW_N: 1.5, Tier.NIW: 1.5},
        tenants=1,
    )

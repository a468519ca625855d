"""Study files: policies with a knob each, compared over workloads; every point of it is a scenario that can be run."""

import re
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from testbed.bad_input import BadInput
from testbed.bundled_yaml import bundled_files, yaml_mapping
from testbed.scenario_file import at_home, scenario_values
from testbed.scenario_parts import Fraction, Positive
from testbed.strict import FolderName, Strict, nearest, one_line
from workloads.lengths import QuantileTable
from workloads.request import Tier

_FOLDER_NAME = re.compile(r"[A-Za-z][\w-]{0,99}", re.ASCII)
Shares = Annotated[dict[str, Positive], Field(min_length=1)]


class StudyError(BadInput):
    """A study cannot be read or cannot be run: one line for the user."""


class PublicTrace(Strict):
    """A trace that others publish, found by its file name (or one of several) and made to fit the study once.

    `hours` is the window to take, from the file's time 0; the workload's `history_h` are its first hours. The rate is
    scaled to `mean_requests_per_s` over the hours that are run, as bursty as it was; null, and `fluid`, leave it.
    `models`, `regions` and `tiers` share its requests out: each combination is a stream of its own with the trace's
    shape. The length tables are for files that hold rates; `max_model_len` cuts prompts. `labels_in_file` names what
    the file says itself (it is replaced all the same).
    """

    file: str | tuple[str, ...]
    format: str | None = None
    hours: tuple[float, float] | None = None
    mean_requests_per_s: Positive | None = None
    models: Shares
    regions: Shares
    tiers: Annotated[dict[Tier, Positive], Field(min_length=1)] = Field(default_factory=lambda: {Tier.IW_F: 1.0})
    niw_deadline_h: Positive = 24.0
    prompt_tokens: QuantileTable | None = None
    output_tokens: QuantileTable | None = None
    max_model_len: int | None = Field(default=None, ge=2)
    labels_in_file: tuple[Literal["model", "region", "tier"], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.file,) if isinstance(self.file, str) else self.file

    @model_validator(mode="after")
    def _window_rises(self) -> "PublicTrace":
        if self.hours is not None and not 0 <= self.hours[0] < self.hours[1]:
            raise ValueError(f"hours {list(self.hours)}; wanted [from, to] with 0 <= from < to")
        return self


class StudyWorkload(Strict):
    """What is asked: `set` is laid over the base scenario, where a null takes a key away.

    With `trace` the requests come from a public trace, and `history_h` of it are seen by the forecasts only.
    `fluid_set` is laid over it in a fluid study. `policies`: those of the study that are run on it; left out: all.
    """

    description: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    fluid_set: dict[str, Any] = Field(default_factory=dict)
    trace: PublicTrace | None = None
    history_h: float = Field(default=0.0, ge=0)
    policies: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _history_has_a_trace(self) -> "StudyWorkload":
        if self.history_h and self.trace is None:
            raise ValueError("history_h here belongs to a trace; of a synthetic workload it is set.workload.history_h")
        return self


class StudyPolicy(Strict):
    """A policy, and the parameter of it that is swept.

    `policy` is its name in the catalogue (default: the entry's own); `knob` a parameter such as forecast.peak_quantile,
    which takes each of `values`. `follows`: further parameters that are so many times the knob. `set` is laid over the
    scenario of its runs. Without a knob the policy is one point.
    """

    policy: str | None = None
    knob: str | None = None
    values: tuple[float, ...] = ()
    follows: dict[str, float] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _knob_has_values(self) -> "StudyPolicy":
        if (self.knob is None) != (not self.values):
            raise ValueError("knob and values come together: the parameter to sweep, and what it takes")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"values {list(self.values)}; each once")
        if self.follows and self.knob is None:
            raise ValueError("follows needs a knob to follow")
        return self


class Headline(Strict):
    """The claim that the comparison is held against: `policy` saves these shares of the hours of `against`."""

    policy: str = "mpc"
    against: str = "reactive"
    gpu_hours: Fraction = 0.25
    wasted_gpu_hours: Fraction = 0.80


class Quick(Strict):
    """The variant for a first look: these workloads (default: all), so many values per knob, so much refinement."""

    workloads: tuple[str, ...] = ()
    values: int = Field(default=3, ge=1)
    refine: int = Field(default=0, ge=0)


class Study(Strict):
    """Policies compared over workloads at an SLO attainment.

    `base` (a scenario, bundled or a file relative to this one) or `scenario` (inline; its `policies` and `seed` may be
    left out), or both: then `scenario` is laid over the base. `attainment`: the share of interactive requests within
    their SLO at which policies are compared. `refine` times, each knob gets one more value between the two that enclose
    the attainment. `fidelity`: `requests` runs every request, `fluid` the same policies on tokens/s per bin, public
    traces at their full rate; `fluid_set` is laid over the scenario then (larger regions, for instance).
    """

    name: FolderName
    description: str = ""
    base: str | None = None
    scenario: dict[str, Any] | None = None
    attainment: Annotated[float, Field(gt=0, lt=1)] = 0.99
    seeds: tuple[int, ...] = Field(default=(1,), min_length=1)
    refine: int = Field(default=0, ge=0)
    fidelity: Literal["requests", "fluid"] = "requests"
    fluid_set: dict[str, Any] = Field(default_factory=dict)
    workloads: dict[str, StudyWorkload] = Field(min_length=1)
    policies: dict[str, StudyPolicy] = Field(min_length=1)
    headline: Headline = Headline()
    quick: Quick = Quick()

    @field_validator("workloads", "policies", mode="before")
    @classmethod
    def _bare_entries(cls, value: Any) -> Any:
        """An entry without keys may stand bare: `reactive:`."""
        return {k: {} if v is None else v for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_match(self) -> "Study":
        if self.base is None and self.scenario is None:
            raise ValueError("give a base, a scenario, or both")
        for name in self.quick.workloads:
            if name not in self.workloads:
                raise ValueError(f"quick.workloads: no workload {name!r}{nearest(name, self.workloads)}")
        for name, workload in self.workloads.items():
            for policy in workload.policies:
                if policy not in self.policies:
                    raise ValueError(f"workloads.{name}.policies: no policy {policy!r}{nearest(policy, self.policies)}")
        for name in (*self.workloads, *self.policies):
            if not _FOLDER_NAME.fullmatch(name):
                raise ValueError(f"name {name!r}: it names a folder; use letters, digits, - and _, a letter first")
        return self


def bundled_studies() -> dict[str, Path]:
    """The studies that come with the testbed, by name."""
    return bundled_files("studies")


def is_study(name_or_path: str) -> bool:
    """Whether a bundled name or a file is a study: a mapping with `workloads`, which no scenario has."""
    try:
        values, _ = yaml_mapping(name_or_path, bundled_studies(), "study")
    except BadInput:
        return False  # reading it as a scenario says what is wrong
    return "workloads" in values


def load_study(name_or_path: str) -> tuple[Study, Path]:
    """Read a study, bundled or from a file; returns it and where it was read from.

    Raises StudyError with one line for a missing file, bad YAML, an unknown key or a value out of range.
    """
    try:
        values, path = yaml_mapping(name_or_path, bundled_studies(), "study")
    except BadInput as error:
        raise StudyError(str(error)) from error
    try:
        return Study.model_validate(values), path
    except ValidationError as error:
        raise StudyError(f"{path.name}: {one_line(error, Study)}") from error


def study_of_scenario(name_or_path: str, knobs: tuple[str, ...] = ()) -> tuple[Study, Path]:
    """A study of a scenario's own workload and policies. `knobs`: POLICY.PARAMETER=V1,V2,... to sweep.

    Raises StudyError for a knob of a policy that the scenario lacks, ScenarioError as reading it does.
    """
    values, path = scenario_values(name_or_path)
    given_policies = values.get("policies")
    if not isinstance(given_policies, dict):
        raise StudyError(f"{path.name}: policies holds {given_policies!r}, wanted a mapping of names to parameters")
    policies = {name: {"parameters": given or {}} for name, given in given_policies.items()}
    for text in knobs:
        target, _, listed = text.partition("=")
        name, _, knob = target.partition(".")
        try:
            numbers = [float(value) for value in listed.split(",")]
        except ValueError:
            numbers = []
        if not numbers or not knob or name not in policies or not all(map(isfinite, numbers)):
            known = nearest(name, policies) if name not in policies else ""
            raise StudyError(f"--knob {text}: wanted POLICY.PARAMETER=V1,V2,... with numbers{known}")
        policies[name].update(knob=knob, values=numbers)
    seed = values.get("seed", 1)
    try:
        study = Study(
            name=str(values.get("name", path.stem)),
            description=str(values.get("description", "")),
            scenario=at_home(values, path.parent),
            seeds=(seed,),
            workloads={path.stem: StudyWorkload()},
            policies={name: StudyPolicy.model_validate(given) for name, given in policies.items()},
        )
    except ValidationError as error:
        raise StudyError(f"{path.name}: {one_line(error, Study)}") from error
    return study, path

"""How far emulated servers are from the real ones they stand for: the whole of calibration.json."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from results.atomic_file import replace_text
from results.inside import require_inside
from results.manifest import ClientRecord, HostFacts, Lateness
from workloads.first_fault import first_fault

CALIBRATION_FILE = "calibration.json"
SCHEMA_VERSION: Literal[1] = 1


class CalibrationError(ValueError):
    """A calibration cannot be read; the message is one line for the user."""


class Part(BaseModel):
    """Frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(Part):
    """One quantity, of every real run and of what was emulated of it; None where a run has none.

    `error`: mean of the emulated values over the mean of the real ones, less 1. `noise`: largest less smallest real
    value over their mean, None for a single run: what real runs of the same requests differ by. `limit`: what |error|
    should be at most, where something is asked.
    """

    name: str
    unit: str
    real: tuple[float | None, ...]
    emulated: tuple[float | None, ...]
    error: float | None
    noise: float | None
    limit: float | None = None

    @property
    def within(self) -> bool | None:
        """Whether the error keeps its limit; None without either."""
        return None if self.limit is None or self.error is None else abs(self.error) <= self.limit


class Variant(Part):
    """The servers alone once more with one thing changed; `errors` by the names of the measures."""

    name: str
    why: str
    errors: dict[str, float | None]


class Crowd(Part):
    """Requests that found `fewest` to `most` others in their real server (None: any more), medians in s of all runs."""

    fewest: int
    most: int | None
    requests: int
    real_ttft_s: float
    emulated_ttft_s: float
    real_tpot_s: float | None
    emulated_tpot_s: float | None


class ServerStarts(Part):
    """Seconds from STARTING to READY, and how many of them; None of none."""

    model: str
    gpu_type: str
    real: int
    real_mean_s: float | None
    emulated: int
    emulated_mean_s: float | None


class Difference(Part):
    """A decision at which two runs want other numbers of servers: counts and what a placement was seen as by each."""

    at_s: float
    placement: str
    real_count: int
    emulated_count: int
    real_saw: str
    emulated_saw: str
    real_because: str
    emulated_because: str


class DecisionAgreement(Part):
    """The decisions of a real run against those of the emulated one, matched by their time.

    `same`: matched ones that want the same number of servers everywhere. `unmatched`: of either, with no decision of
    the other within half an interval. `first`: the placements at which the first matched pair differs.
    """

    real: int
    emulated: int
    matched: int
    unmatched: int
    same: int
    placements: int
    same_counts: int
    largest_gap: int
    first: tuple[Difference, ...]


class RunFacts(Part):
    """One real run, and how its load generator fared."""

    folder: str
    mode: str
    requests: int
    completed: int
    compared: int
    requests_per_s: float
    cached_prompt_share: float
    lateness_s: Lateness | None
    client: ClientRecord | None


class ProfileFacts(Part):
    """The profile that stood for a model on a GPU type; errors of its fit are mean absolute relative ones."""

    model: str
    gpu_type: str
    name: str
    kind: str
    date: str | None
    request_overhead_s: float | None
    request_overhead_at_most_s: float | None = None
    fit_error: float | None
    held_out_error: float | None
    noise: float | None
    most_decode_seqs: float | None


class CaseRecord(Part):
    """One workload under one policy: its real runs, each server alone, the whole system.

    `whole_system` empty: it could not be emulated from what is at hand; `remarks` say why.
    """

    name: str
    policy: str
    runs: tuple[RunFacts, ...]
    servers_alone: tuple[Measure, ...]
    variants: tuple[Variant, ...]
    crowds: tuple[Crowd, ...]
    whole_system: tuple[Measure, ...] = ()
    decisions: tuple[DecisionAgreement, ...] = ()
    starts: tuple[ServerStarts, ...] = ()
    remarks: tuple[str, ...] = ()


class CalibrationRecord(Part):
    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    profiles: tuple[ProfileFacts, ...]
    host: HostFacts | None
    cases: tuple[CaseRecord, ...]

    def write(self, folder: Path) -> None:
        """Put it in the place of FOLDER/calibration.json, whole or not at all."""
        replace_text(folder / CALIBRATION_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises CalibrationError naming the file and its first fault."""
        path = folder / CALIBRATION_FILE
        try:
            return cls.model_validate_json(require_inside(folder, path).read_bytes())
        except OSError as error:
            raise CalibrationError(f"{path}: {error.strerror}; give the folder of a `testbed calibrate`") from error
        except ValidationError as error:
            raise CalibrationError(f"{path}: {first_fault(error)}; it was written by another version?") from None

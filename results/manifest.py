"""What a run was: enough to repeat it, to price it and to know whether it ended."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.atomic_file import replace_text
from results.bound import BoundRecord
from results.inside import require_inside
from results.run_folder_error import RunFolderError
from results.schema import SCHEMA_VERSION
from workloads.first_fault import first_fault
from workloads.request import Tier
from workloads.self_watch import ClientHealth
from workloads.slo import Slo
from workloads.strict_json import RepeatedKey, require_each_key_once
from workloads.trace_metadata import LONGEST_HORIZON_S

MANIFEST_FILE = "manifest.json"

Status = Literal["waiting", "running", "finished", "interrupted", "failed"]


class ManifestError(RunFolderError):
    """A manifest that is missing or does not say what a manifest says; the message is one line for the user."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SloRecord(_Record):
    """A tier's upper limits in seconds; None leaves a latency free."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    deadline_s: float | None = None

    @classmethod
    def of(cls, slo: Slo) -> Self:
        return cls(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s, deadline_s=slo.deadline_s)

    def slo(self) -> Slo:
        return Slo(ttft_s=self.ttft_s, tpot_s=self.tpot_s, deadline_s=self.deadline_s)


class Commit(_Record):
    """The checkout that ran; `dirty` says that tracked files differed from the revision."""

    revision: str
    dirty: bool

    def __str__(self) -> str:
        return self.revision + ("+" if self.dirty else "")


class GpuRecord(_Record):
    """One kind of GPU of the machine, or of the emulated fleet; None where unknown."""

    name: str
    count: float
    memory_bytes: int | None = None
    driver: str | None = None


class HostFacts(_Record):
    """The machine, without its name."""

    cores: int
    ram_bytes: int


class Lateness(_Record):
    """How late the load generator handed requests over, in seconds."""

    p50: float
    p99: float
    max: float


class ClientRecord(_Record):
    """How the load generator fared in real time; the terms are workloads.self_watch.ClientHealth's.

    `bottleneck` says why its latencies are not to be trusted, "" when they are.
    """

    lag_s: Lateness
    cpu_share: float
    cpu_share_max: float
    bottleneck: str

    @classmethod
    def of(cls, health: ClientHealth) -> Self:
        lag = health.lag_s
        return cls(
            lag_s=Lateness(p50=lag.p50, p99=lag.p99, max=lag.max),
            cpu_share=health.cpu_share,
            cpu_share_max=health.cpu_share_max,
            bottleneck=health.bottleneck,
        )


class PolicyRecord(_Record):
    """One policy's part of a run. `end_s` is when its run ended, in seconds since its start.

    `client` is None in virtual time, where no client can be slow, and for a run that was killed.
    """

    status: Status = "waiting"
    end_s: float | None = None
    error: str = ""
    lateness_s: Lateness | None = None
    client: ClientRecord | None = None
    digests: dict[str, str] = {}


class ResumeRecord(_Record):
    """A run that had been cut off went on: with `policy`, at `from_s` of its run (0: from its start), `at` (UTC)."""

    policy: str
    from_s: float
    at: datetime


class RunManifest(_Record):
    """The whole of manifest.json. Wall-clock times are UTC and part of no digest.

    `offered_requests` is the number of requests of the workload, the same for every policy; `horizon_s` the time
    that its arrivals cover. `compiled`: the hot path ran as C extensions, which changes how fast a run is and nothing
    else. `bound` is what perfect foresight needs. `policies` keeps the order in which they run: the first is what
    others are compared to. `resumed`: each time that the run was cut off and went on.
    """

    schema_version: int = SCHEMA_VERSION
    scenario: str
    scenario_sha256: str
    mode: Literal["virtual", "emulated", "vllm"]
    seed: int
    status: Status = "running"
    error: str = ""
    started_at: datetime
    ended_at: datetime | None = None
    horizon_s: float = Field(gt=0, le=LONGEST_HORIZON_S)
    offered_requests: int = Field(ge=0)
    slos: dict[Tier, SloRecord]
    start_state: dict[str, int] = {}
    usd_per_gpu_h: dict[str, float] = {}
    bound: BoundRecord | None = None
    policies: dict[str, PolicyRecord]
    resumed: tuple[ResumeRecord, ...] = ()
    commit: Commit | None = None
    versions: dict[str, str] = {}
    compiled: bool = False
    gpus: tuple[GpuRecord, ...] = ()
    host: HostFacts | None = None

    def tier_slos(self) -> dict[Tier, Slo]:
        return {tier: record.slo() for tier, record in self.slos.items()}

    def with_policy(self, name: str, record: PolicyRecord) -> Self:
        """This manifest with `record` in the place of the policy's present one. Raises KeyError for a new name."""
        if name not in self.policies:
            raise KeyError(name)
        return self.model_copy(update={"policies": {**self.policies, name: record}})

    def ended(self, status: Status, error: str = "") -> Self:
        """This manifest at the end of the run, which is now."""
        return self.model_copy(update={"status": status, "error": error, "ended_at": datetime.now(UTC)})

    def going_on(self, policy: str, from_s: float) -> Self:
        """This manifest of a run that was cut off, as it goes on now."""
        record = ResumeRecord(policy=policy, from_s=from_s, at=datetime.now(UTC))
        changes = {"status": "running", "error": "", "ended_at": None, "resumed": (*self.resumed, record)}
        return self.model_copy(update=changes)

    def write(self, folder: Path) -> None:
        """Put it in the place of RUN/manifest.json, whole or not at all."""
        replace_text(folder / MANIFEST_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises ManifestError naming the file and its first fault."""
        path = folder / MANIFEST_FILE
        try:
            text = require_inside(folder, path).read_bytes()
            _require_known_version(path, text)
            require_each_key_once(text)
            return cls.model_validate_json(text)
        except FileNotFoundError:
            raise ManifestError(f"{folder} holds no {MANIFEST_FILE}; give the folder of a `testbed run`") from None
        except OSError as error:
            raise ManifestError(f"{path}: {error.strerror}; give the folder of a `testbed run`") from error
        except RepeatedKey as error:
            raise ManifestError(f"{path}: {error}; take one away") from error
        except ValidationError as error:
            raise ManifestError(f"{path}: {first_fault(error)}; it was written by another version?") from None


def _require_known_version(path: Path, text: bytes) -> None:
    """A folder of a later testbed is named as such, whatever else it holds."""
    try:
        version = json.loads(text)["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # no manifest, which is told when it is read as one
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ManifestError(
            f"{path}: schema version {version}, and this testbed reads versions up to {SCHEMA_VERSION}; "
            "read it with a later testbed"
        )

"""summary.json: what a run came to, policy by policy."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from results.accuracy import ForecastError
from results.atomic_file import replace_text
from results.bound import BoundRecord
from results.manifest import ClientRecord, Lateness, Status
from results.metrics import LATENCIES, QUANTILE_METHOD, Percentiles
from results.schema import SCHEMA_VERSION

SUMMARY_FILE = "summary.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestCounts(_Record):
    """total = completed + rejected + failed + not_recorded, and not_recorded is 0 in a run that came to its end."""

    total: int
    completed: int
    rejected: int
    failed: int
    not_recorded: int


class GpuHoursBy(_Record):
    """GPU-hours taken apart; each mapping sums to the policy's `gpu_hours`, `wasted_model` to `wasted_gpu_hours`."""

    state: dict[str, float]
    model: dict[str, float]
    region: dict[str, float]
    gpu_type: dict[str, float]
    wasted_model: dict[str, float]


class Spread(_Record):
    """Percentiles of one latency over completed requests, in seconds."""

    all: Percentiles
    by_tier: dict[str, Percentiles]
    by_model: dict[str, Percentiles]
    by_tier_and_model: dict[str, dict[str, Percentiles]]


class Attainment(_Record):
    """Fraction of the recorded requests that met every limit of their tier; None where there were none."""

    all: float | None
    by_tier: dict[str, float | None]
    by_model: dict[str, float | None]


class NiwDeadlines(_Record):
    """NIW requests recorded, those of them that completed by their own deadline, and their fraction (None of none)."""

    total: int
    before_deadline: int
    fraction: float | None


class Tokens(_Record):
    """Of all recorded requests; `output` are those received, `cached` prompt tokens found in a prefix cache."""

    prompt: int
    output: int
    cached: int


class Loss(_Record):
    """Requests that did not complete, by outcome, reason, tier and model."""

    outcome: str
    reason: str
    tier: str
    model: str
    requests: int


class Scaling(_Record):
    starts: int
    stops: int
    failures: int
    sleeps: int = 0
    wakes: int = 0


class Decisions(_Record):
    """Decisions taken; `solves` by termination; `torn` lines that a kill cut, `unread` records of no known shape."""

    total: int
    steps: int
    solves: dict[str, int]
    forecast_methods: dict[str, int]
    torn: int
    unread: int


class PolicySummary(_Record):
    """One policy.

    `gpu_hours`: server time in a state that holds GPUs x the server's GPUs, within the run; `wasted_gpu_hours`: the
    part of it STARTING (or waking), DRAINING or STOPPING. `sleeping_server_hours` cost no GPU-hours. `usd` is None when
    a GPU type has no price; `slo_attainment` and `goodput_requests_per_s` count requests that met every limit of their
    tier; goodput is per second of the time in which requests arrived. `niw_queue_s`: from the arrival of
    a NIW request that completed until a server got it, None where there was none. `lateness_s` is None for a run that
    was killed: only its end tells it; so is `client`, in virtual time too.
    """

    status: Status
    end_s: float
    requests: RequestCounts
    gpu_hours: float
    wasted_gpu_hours: float
    sleeping_server_hours: float = 0.0
    gpu_hours_by: GpuHoursBy
    usd: float | None
    slo_attainment: Attainment
    goodput_requests_per_s: float
    niw_before_deadline: NiwDeadlines
    niw_queue_s: Percentiles | None = None
    tokens: Tokens
    ttft_s: Spread
    tpot_s: Spread
    e2e_s: Spread
    lateness_s: Lateness | None
    client: ClientRecord | None = None
    losses: tuple[Loss, ...]
    scaling: Scaling
    decisions: Decisions
    forecast_error: ForecastError | None
    forecast_error_by_model: dict[str, ForecastError]

    @property
    def latencies(self) -> dict[str, Spread]:
        """By the names in results.metrics.LATENCIES."""
        return dict(zip(LATENCIES, (self.ttft_s, self.tpot_s, self.e2e_s), strict=True))


class RunSummary(_Record):
    """The whole of summary.json; the first policy is what the others are compared to."""

    schema_version: int = SCHEMA_VERSION
    scenario: str
    mode: str
    seed: int
    status: Status
    horizon_s: float
    quantile_method: str = QUANTILE_METHOD
    bound: BoundRecord | None = None
    policies: dict[str, PolicySummary]

    def write(self, folder: Path) -> None:
        """Put it in the place of RUN/summary.json. The same tables give the same bytes."""
        replace_text(folder / SUMMARY_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises FileNotFoundError before the first summary, pydantic.ValidationError for another version's."""
        return cls.model_validate_json((folder / SUMMARY_FILE).read_bytes())

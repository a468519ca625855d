"""What a study keeps of each of its runs, and the files that it ends with."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from results.atomic_file import replace_text
from results.frontier import Measures
from results.summary import PolicySummary
from workloads.request import Tier

RUN_FILE = "study_run.json"


class RunBound(BaseModel):
    """What perfect foresight needs on a run's workload when a share `missed` of the minutes may be outside the SLO."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    missed: float
    lower_gpu_hours: float
    plan_gpu_hours: float | None


class StudyRun(BaseModel):
    """One finished run in the numbers that policies are compared by.

    `missed`: share 0..1 of the interactive requests (of the minutes, in fluid) that were outside their SLO, or that did
    not complete. `slo_met` and `ttft_p95_s` are by tier. `value` is the knob's, None without one; `sha256` that of the
    scenario; `commit` that of the checkout that ran it, "" where there was none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workload: str
    policy: str
    knob: str
    value: float | None
    seed: int
    fidelity: str
    requests: int
    missed: float
    gpu_hours: float
    wasted_gpu_hours: float
    sleeping_server_hours: float
    usd: float | None
    starts: int
    stops: int
    slo_met: dict[str, float]
    ttft_p95_s: dict[str, float]
    bound: RunBound | None
    sha256: str
    commit: str

    def measures(self) -> Measures:
        """Everything that is a quantity, by name; those by tier as `slo_met IW-F`."""
        found = {
            "missed": self.missed,
            "gpu_hours": self.gpu_hours,
            "wasted_gpu_hours": self.wasted_gpu_hours,
            "sleeping_server_hours": self.sleeping_server_hours,
            "starts": float(self.starts),
            "stops": float(self.stops),
            "requests": float(self.requests),
        }
        if self.usd is not None:
            found["usd"] = self.usd
        for name, by_tier in (("slo_met", self.slo_met), ("ttft_p95_s", self.ttft_p95_s)):
            found.update({f"{name} {tier}": value for tier, value in by_tier.items()})
        return found

    def write(self, folder: Path) -> None:
        replace_text(folder / RUN_FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises FileNotFoundError where a run did not finish, pydantic.ValidationError for another version's."""
        return cls.model_validate_json((folder / RUN_FILE).read_bytes())


def missed_share(summary: PolicySummary, requests_by_tier: Mapping[str, int]) -> float:
    """The share of the interactive requests that were not within their SLO; 0 where there are none."""
    interactive = {tier.value for tier in Tier if tier.interactive}
    counted = {tier: n for tier, n in requests_by_tier.items() if tier in interactive and n}
    met = sum(n * (summary.slo_attainment.by_tier.get(tier) or 0.0) for tier, n in counted.items())
    total = sum(counted.values())
    return 1.0 - met / total if total else 0.0


def runs_csv(runs: Iterable[StudyRun]) -> str:
    """Every run as one row; quantities by tier are columns of their own."""
    rows = [
        {"workload": run.workload, "policy": run.policy, "knob": run.knob, "value": run.value, "seed": run.seed}
        | dict(run.measures())
        for run in runs
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(columns, [[row.get(name) for name in columns] for row in rows])


def csv_text(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name.replace(" ", "_") for name in columns])
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return text.getvalue()

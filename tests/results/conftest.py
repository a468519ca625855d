"""Small runs to record, read and report."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from results.manifest import PolicyRecord, RunManifest, SloRecord
from results.recorder import RunRecorder
from workloads.completion import Completion, Outcome
from workloads.request import Request, Tier
from workloads.slo import SAGESERVE_SLOS

CompletionMaker = Callable[..., Completion]
ManifestMaker = Callable[..., RunManifest]


@pytest.fixture
def completion() -> CompletionMaker:
    """Make a completion; what is not given is an IW-F request of model m in west that took 1 s."""

    def make(
        request_id: int = 0,
        *,
        model: str = "m",
        tier: Tier = Tier.IW_F,
        arrival_s: float = 0.0,
        first: float | None = 0.5,
        last: float = 1.0,
        prompt_tokens: int = 10,
        output_tokens: int = 5,
        deadline_s: float | None = None,
        outcome: Outcome = Outcome.COMPLETED,
        reason: str = "",
        late: float = 0.0,
        cached_tokens: int | None = None,
        region: str = "west",
    ) -> Completion:
        """`first`, `last` and `late` count from the arrival."""
        request = Request(
            request_id=request_id,
            arrival_s=arrival_s,
            model=model,
            region=region,
            tier=tier,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            deadline_s=deadline_s,
        )
        return Completion(
            request=request,
            server_id="s0",
            region="east",
            sent_s=arrival_s + late,
            first_token_s=None if first is None else arrival_s + first,
            last_token_s=arrival_s + last,
            output_tokens=0 if first is None else output_tokens,
            outcome=outcome,
            reason=reason,
            cached_tokens=cached_tokens,
        )

    return make


@pytest.fixture
def manifest() -> ManifestMaker:
    """Make the manifest of a run of an hour; `records` and other fields replace what a new manifest says."""

    def make(
        policies: tuple[str, ...] = ("reactive",), records: Mapping[str, PolicyRecord] | None = None, **fields: Any
    ) -> RunManifest:
        made = RunManifest(
            scenario="small",
            scenario_sha256="0" * 64,
            mode="virtual",
            seed=1,
            started_at=datetime(2020, 1, 2, 3, 4, tzinfo=UTC),
            horizon_s=3600.0,
            offered_requests=0,
            slos={tier: SloRecord.of(slo) for tier, slo in SAGESERVE_SLOS.items()},
            start_state={"m@west/h100": 1},
            usd_per_gpu_h={"h100": 10.0},
            policies=dict(records or {name: PolicyRecord() for name in policies}),
        )
        return made.model_copy(update=fields)

    return make


@pytest.fixture
def server_row() -> Callable[..., None]:
    """Record a change of state of server `server_id`; by default of model m in west on 1 h100."""

    def record(recorder: RunRecorder, at_s: float, server_id: str, state: str, **given: Any) -> None:
        fields: Mapping[str, Any] = {"model": "m", "region": "west", "gpu_type": "h100", "gpus": 1.0, **given}
        recorder.server_state(at_s=at_s, server_id=server_id, state=state, **fields)

    return record


@pytest.fixture
def policy_path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "reactive"

"""Measure a running server: iterations and a fit, loads, theta, power. The result is a profile with its raw samples."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from profiler.crowded_requests import CrowdedRequests
from profiler.gpu_meter import NvmlMeter
from profiler.iterations import Iterations
from profiler.journal import Journal
from profiler.load import REQUEST_UNITS, RequestRow
from profiler.loads import Loads
from profiler.plan import MeasurementPlan
from profiler.points import ServerLimits
from profiler.profile import ServerProfile
from profiler.profile_parts import (
    EngineArgs,
    KvCache,
    ProfiledGpu,
    ProfiledModel,
    Provenance,
    StepSample,
    schedules_asynchronously,
)
from profiler.progress import Tell, unheard
from profiler.raw_samples import write_rows, write_samples
from profiler.server_facts import ServerFacts
from profiler.session import Session
from profiler.target import MeasurementError
from workloads.api_key import server_key
from workloads.client import CompletionClient
from workloads.clock import RunClock
from workloads.shown_url import shown_url

REQUEST_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured, as far as the server does not tell it over HTTP."""

    name: str
    model: str
    gpu: ProfiledGpu
    engine: EngineArgs
    weights: Literal["real", "dummy"] | None = None
    config_sha256: str | None = None
    driver: str | None = None
    date: str | None = None
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A profile, and the rows that its raw files hold."""

    profile: ServerProfile
    samples: tuple[StepSample, ...]
    requests: tuple[RequestRow, ...]

    def save(self, path: Path) -> ServerProfile:
        """Write the profile to `path` and its raw samples beside it; the profile with their digests in it."""
        profile = self.profile.model_copy(
            update={
                "samples": write_samples(self.samples, path.with_name(f"{path.stem}.samples.parquet")),
                "requests": write_rows(
                    [asdict(row) for row in self.requests],
                    path.with_name(f"{path.stem}.requests.parquet"),
                    REQUEST_UNITS,
                ),
            }
        )
        profile.save(path)
        return profile


def server_limits(engine: EngineArgs, kv_cache: KvCache) -> ServerLimits:
    """What a server holds at once. Raises MeasurementError when its `max_model_len` is not known."""
    if engine.max_model_len is None:
        raise MeasurementError("the server does not tell its max_model_len; give it")
    return ServerLimits(
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_model_len=engine.max_model_len,
        kv_tokens=kv_cache.max_tokens,
    )


def as_served(subject: Subject, facts: ServerFacts) -> Subject:
    """The subject with what the server tells of itself."""
    engine = subject.engine.model_copy(update={"max_model_len": facts.max_model_len or subject.engine.max_model_len})
    return replace(subject, engine=engine)


def identity(subject: Subject, plan: MeasurementPlan) -> dict[str, Any]:
    """What must be the same for a measurement to be gone on with: GPU, driver, model, how it is served, the plan.

    The date may change, and the budget may grow.
    """
    same = {
        "model": subject.model,
        "model config": subject.config_sha256,
        "weights": subject.weights,
        "driver": subject.driver,
        **{f"gpu {name}": value for name, value in subject.gpu.model_dump().items()},
        **subject.engine.model_dump(),
    }
    of_plan = {name: getattr(plan, name) for name in plan.__slots__ if name not in ("budget_s", "mix", "slo")}
    return same | of_plan | {"lengths": asdict(plan.mix), "slo": plan.slo.model_dump()}


def engine_identity(facts: ServerFacts) -> dict[str, Any]:
    """The part of the identity that only the running server knows."""
    return {
        "engine version": facts.engine_version,
        "num_gpu_blocks": facts.kv_cache.num_gpu_blocks if facts.kv_cache else None,
    }


@asynccontextmanager
async def measuring_session(
    base_url: str,
    facts: ServerFacts,
    subject: Subject,
    plan: MeasurementPlan,
    journal: Journal,
    *,
    clock: RunClock,
    started_s: float,
    tell: Tell,
) -> AsyncIterator[Session]:
    """A session on the server at `base_url` (without /v1), connected for as long as the context lasts.

    Raises MeasurementError when the server does not tell what it holds.
    """
    if facts.kv_cache is None:
        raise MeasurementError(
            f"{shown_url(base_url)} does not tell its KV cache; start it without --disable-log-stats"
        )
    limits = server_limits(as_served(subject, facts).engine, facts.kv_cache)
    async with CompletionClient(
        base_url, facts.model, clock.now_s, REQUEST_TIMEOUT_S, token_times=True, api_key=server_key()
    ) as client:
        yield Session(client, limits, plan, journal, now_s=clock.now_s, started_s=started_s, tell=tell)


async def measure_server(
    base_url: str,
    facts: ServerFacts,
    subject: Subject,
    plan: MeasurementPlan,
    journal: Journal,
    *,
    clock: RunClock,
    started_s: float,
    meter: NvmlMeter | None = None,
    tell: Tell = unheard,
) -> Measured:
    """Measure the server at `base_url` (without /v1), which tells `facts` of itself, going on with `journal`.

    `started_s`: when the budget began, in `clock`. Nothing else may use the server meanwhile.
    Raises MeasurementError when too little could be measured, or the server does not tell what it holds.
    """
    subject = as_served(subject, facts)
    async with measuring_session(
        base_url, facts, subject, plan, journal, clock=clock, started_s=started_s, tell=tell
    ) as session:
        iterations, loads = Iterations(session), Loads(session, meter)
        fit = await iterations.measure()
        asynchronous = schedules_asynchronously(subject.engine.async_scheduling, subject.gpu.type)
        crowded = await CrowdedRequests(session, fit.step_time, async_scheduling=asynchronous).measure()
        closed = await loads.closed_loops(fit.step_time)
        theta = await loads.theta(closed)
        power = await loads.power(closed, fit.step_time)
    recorded = loads.recorded()
    assert facts.kv_cache is not None  # or there had been no session
    return Measured(
        profile=ServerProfile(
            name=subject.name,
            kind="measured",
            model=ProfiledModel(name=subject.model, config_sha256=subject.config_sha256),
            gpu=subject.gpu,
            engine=subject.engine,
            kv_cache=facts.kv_cache,
            step_time=fit.step_time,
            request_overhead_s=fit.request_overhead_s,
            crowded_requests=crowded,
            domain=fit.domain,
            fit=fit.quality,
            power=power,
            points=tuple(load.point for load in recorded),
            theta=(theta,) if theta else (),
            provenance=_provenance(facts, subject, plan, iterations.samples, session.notes),
        ),
        samples=tuple(iterations.samples),
        requests=tuple(row for load in recorded for row in load.rows),
    )


def _provenance(
    facts: ServerFacts, subject: Subject, plan: MeasurementPlan, samples: Sequence[StepSample], notes: tuple[str, ...]
) -> Provenance:
    caching = facts.cache_config.get("enable_prefix_caching")
    return Provenance(
        source=f"measured over HTTP in {plan.repeats} or more interleaved passes, after one to warm each shape up",
        date=subject.date,
        engine="vllm" if facts.cache_config else None,
        engine_version=facts.engine_version,
        driver=subject.driver,
        weights=subject.weights,
        n=len(samples),
        assumptions=subject.assumptions,
        notes=(*notes, *((f"enable_prefix_caching={caching}",) if caching else ())),
    )

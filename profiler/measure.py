"""Measure a running server: sweeps over prefill, decode and load, then a fit, then a profile."""

from typing import Literal

from profiler.fit import fit_step_time
from profiler.profile import (
    EngineArgs,
    KvCache,
    Lifecycle,
    ProfiledGpu,
    ProfiledModel,
    Provenance,
    ServerProfile,
)
from profiler.sampling import MeasurementError, Measurements, Progress, Target, TokenStream, measure
from profiler.server_facts import ServerFacts, ServerFactsError, read_server_facts
from profiler.sweep import ServerLimits, Sweep
from workloads.client import CompletionClient
from workloads.clock import RunClock

__all__ = ["MeasurementError", "Progress", "ServerFactsError", "Target", "TokenStream", "profile_server"]


async def profile_server(
    base_url: str,
    *,
    gpu: ProfiledGpu,
    engine: EngineArgs,
    weights: Literal["real", "dummy"] | None = None,
    model: str | None = None,
    name: str | None = None,
    config_sha256: str | None = None,
    kv_cache: KvCache | None = None,
    lifecycle: Lifecycle | None = None,
    driver: str | None = None,
    date: str | None = None,
    sweep: Sweep | None = None,
    timeout_s: float = 600.0,
    progress: Progress | None = None,
) -> ServerProfile:
    """Measure the vLLM server at `base_url` (without /v1) and fit its profile.

    `gpu`, `engine`, `weights`, `driver`, `date`: what HTTP does not tell. `kv_cache` is used when `/metrics` has none.
    Raises ServerFactsError for an address without a server, MeasurementError when too little could be measured.
    """
    sweep = sweep or Sweep()
    facts = await read_server_facts(base_url, model)
    cache = facts.kv_cache or kv_cache
    max_model_len = facts.max_model_len or engine.max_model_len
    if cache is None or max_model_len is None:
        raise MeasurementError(
            f"{base_url} tells neither its {'KV cache' if cache is None else 'max_model_len'}; start it without "
            "--disable-log-stats, or give the value"
        )
    engine = engine.model_copy(update={"max_model_len": max_model_len})
    limits = ServerLimits(
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_model_len=max_model_len,
        kv_tokens=cache.max_tokens,
    )
    async with CompletionClient(base_url, facts.model, RunClock().now_s, timeout_s) as client:
        measured = await measure(client, limits, sweep, progress or _unheard)
    fitted = fit_step_time(measured.samples)
    return ServerProfile(
        name=name or f"{facts.model}-{gpu.type}",
        kind="measured",
        model=ProfiledModel(name=facts.model, config_sha256=config_sha256),
        gpu=gpu,
        engine=engine,
        kv_cache=cache,
        step_time=fitted.step_time,
        request_overhead_s=fitted.request_overhead_s,
        domain=fitted.domain,
        fit=fitted.quality,
        lifecycle=lifecycle or Lifecycle(),
        points=measured.points,
        provenance=_provenance(facts, measured, sweep, weights, driver, date),
        samples=measured.samples,
    )


def _provenance(
    facts: ServerFacts,
    measured: Measurements,
    sweep: Sweep,
    weights: Literal["real", "dummy"] | None,
    driver: str | None,
    date: str | None,
) -> Provenance:
    caching = facts.cache_config.get("enable_prefix_caching")
    return Provenance(
        source=f"measured over HTTP in {sweep.repeats} interleaved passes, after one to warm up",
        date=date,
        engine="vllm" if facts.cache_config else None,
        engine_version=facts.engine_version,
        driver=driver,
        weights=weights,
        n=len(measured.samples),
        notes=(*measured.notes, *((f"enable_prefix_caching={caching}",) if caching else ())),
    )


def _unheard(_line: str) -> None:
    """Progress that nobody asked for."""

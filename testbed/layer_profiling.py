"""A profile of a model that may not fit: two copies of it are measured, cut to fewer layers, and extended."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from profiler.fit import StepTimeFit, fit_step_time
from profiler.iterations import Iterations
from profiler.layers import extend_samples, extended_kv_cache, extension_errors
from profiler.measure import as_served, measuring_session
from profiler.plan import MeasurementPlan
from profiler.points import StepPoint, step_point
from profiler.profile import ServerProfile
from profiler.profile_parts import KvCache, LayerExtrapolation, ProfiledModel, Provenance, StepSample
from profiler.progress import Progress, Tell
from profiler.raw_samples import SAMPLE_UNITS, write_rows, write_samples
from profiler.server_facts import ServerFacts, read_server_facts
from profiler.target import MeasurementError
from testbed.bad_input import BadInput
from testbed.profile_job import ProfileJob, work_folder
from testbed.profiled_server import ProfiledServer
from testbed.profiling import JOURNAL, open_journal, require_same_engine
from workloads.clock import RunClock

JobOf = Callable[[int | None], ProfileJob]
"""The job for a copy of so many layers; None: the whole model."""


async def profile_by_layers(
    job_of: JobOf, layers: tuple[int, int], out: Path, tell: Tell, *, measure_whole: bool = False
) -> ServerProfile:
    """Measure copies of two numbers of layers at the same points, extend to all layers, write the profile to `out`.

    `measure_whole` measures the whole model too, and the profile tells how far the extension is off. Loads, theta,
    power and the server's life are those of a model that was not served, so the profile has none of them.
    Raises as `profile_model`, and BadInput for numbers of layers that make no line.
    """
    few, many = sorted(layers)
    whole = job_of(None)
    all_layers = whole.model.whole_layers
    if all_layers is None:
        raise BadInput(f"--layers: the config of {whole.model.name} does not tell its layers; measure it whole")
    if not 0 < few < many <= all_layers:
        raise BadInput(
            f"--layers {few},{many}: {whole.model.name} has {all_layers}; give two numbers, both at most that"
        )
    share = 1 / (3 if measure_whole else 2)
    folder = work_folder(out)
    samples_many, facts = await _copy(job_of(many), folder / f"layers-{many}", share, tell, ())
    points = tuple(step_point(name) for name in dict.fromkeys(sample.point for sample in samples_many))
    samples_few, _ = await _copy(job_of(few), folder / f"layers-{few}", share, tell, points)
    try:
        extended = extend_samples(samples_few, samples_many, few, many, all_layers)
        fit = fit_step_time(extended)
    except ValueError as error:
        raise MeasurementError(str(error)) from error
    off = None
    measured = [(few, samples_few), (many, samples_many)]
    if measure_whole:
        samples_whole, _ = await _copy(whole, folder / "whole", share, tell, points)
        off = extension_errors(extended, samples_whole)
        measured.append((all_layers, samples_whole))
    rows = [sample.model_dump() | {"layers": count} for count, samples in measured for sample in samples]
    extrapolation = LayerExtrapolation(
        measured_layers=(few, many),
        layers=all_layers,
        error=off,
        raw=write_rows(rows, out.with_name(f"{out.stem}.layers.parquet"), {**SAMPLE_UNITS, "layers": "layers"}),
    )
    profile = _profile(whole, facts, fit, extrapolation, few, many)
    profile = profile.model_copy(
        update={"samples": write_samples(extended, out.with_name(f"{out.stem}.samples.parquet"))}
    )
    profile.save(out)
    shutil.rmtree(folder, ignore_errors=True)
    return profile


async def _copy(
    job: ProfileJob, folder: Path, share: float, tell: Tell, points: Sequence[StepPoint]
) -> tuple[tuple[StepSample, ...], ServerFacts]:
    """Samples of one copy: at `points`, or where its own measurement leads. Its facts."""
    plan: MeasurementPlan = replace(job.plan, budget_s=job.plan.budget_s * share)
    tell(Progress(phase="start", what=job.model.name, left_s=plan.budget_s))
    clock = RunClock()
    started_s = clock.now_s()
    async with ProfiledServer(
        job.spec(), work_folder=folder, gpu_indices=tuple(gpu.index for gpu in job.gpus), sleep_mode=False
    ) as server:
        with open_journal(folder / JOURNAL, job.subject(), plan, tell) as journal:
            await server.start(empty_cache=False)
            facts = await read_server_facts(server.base_url, job.model.name)
            require_same_engine(journal, facts)
            async with measuring_session(
                server.base_url, facts, job.subject(), plan, journal, clock=clock, started_s=started_s, tell=tell
            ) as session:
                iterations = Iterations(session)
                if points:
                    await iterations.measure_points([point for point in points if point.fits(session.limits)])
                else:
                    await iterations.measure()
        await server.stop()
    return tuple(iterations.samples), facts


def _profile(
    whole: ProfileJob, facts: ServerFacts, fit: StepTimeFit, layers: LayerExtrapolation, few: int, many: int
) -> ServerProfile:
    subject = as_served(whole.subject(), facts)
    assert facts.kv_cache is not None
    kv_cache, kv_note = _kv_cache(whole, facts.kv_cache, many, layers.layers)
    reach = (layers.layers - few) / (many - few)
    return ServerProfile(
        name=subject.name,
        kind="extrapolated from layers",
        model=ProfiledModel(name=subject.model, config_sha256=subject.config_sha256),
        gpu=subject.gpu,
        engine=subject.engine,
        kv_cache=kv_cache,
        step_time=fit.step_time,
        request_overhead_s=fit.request_overhead_s,
        domain=fit.domain,
        fit=fit.quality,
        layers=layers,
        provenance=Provenance(
            source=f"copies of {few} and {many} layers measured over HTTP, extended to {layers.layers} point by point",
            date=subject.date,
            engine="vllm" if facts.cache_config else None,
            engine_version=facts.engine_version,
            driver=subject.driver,
            weights="dummy",
            n=fit.quality.n_samples,
            assumptions=("all layers are alike", kv_note),
            notes=(f"scatter of the samples grows by up to {reach:.1f} in the extension", *whole.model.notes),
        ),
    )


def _kv_cache(whole: ProfileJob, kv_cache: KvCache, many: int, layers: int) -> tuple[KvCache, str]:
    shape, dtype = whole.model.built_in_shape, whole.spec().dtype or "bfloat16"
    if shape is None:
        return extended_kv_cache(kv_cache, many, layers, None, None)
    gpus = whole.serving.tensor_parallel_size
    kv_bytes = shape.kv_bytes_per_token(dtype) // shape.layers // gpus
    one_more = replace(shape, layers=shape.layers + 1)
    weight_bytes = (one_more.weight_bytes(dtype) - shape.weight_bytes(dtype)) // gpus
    return extended_kv_cache(kv_cache, many, layers, weight_bytes, kv_bytes)

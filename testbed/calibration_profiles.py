"""Profiles measured just before the real runs, on the same machine, each model served as the scenario serves it."""

from functools import partial
from pathlib import Path

from profiler.gpu_types import CPU
from profiler.plan import LengthMix, MeasurementPlan
from profiler.profile_parts import LatencySlo
from testbed.capacities import strictest_slo
from testbed.model_argument import resolve_model
from testbed.offered_load import OfferedLoad, offered_load
from testbed.profile_job import ProfileJob, Serving, chosen_gpus, work_folder
from testbed.profile_progress import measured_with_progress
from testbed.profiling import profile_model
from testbed.scenario import Scenario
from testbed.scenario_file import load_scenario
from testbed.vllm_command import async_scheduling_args


def measure_profiles(scenario_name: str, overrides: tuple[str, ...], minutes: float, out: Path) -> tuple[str, ...]:
    """Profile every model that has an initial server, on its GPU type; the overrides that put them in their place.

    Raises BadInput and CommandFailed as `testbed profile`.
    """
    scenario, path = load_scenario(scenario_name, overrides)
    load = offered_load(scenario, path)
    out.mkdir(parents=True, exist_ok=True)
    placed = []
    for name, gpu_type in dict.fromkeys((model, gpu_type) for model, _, gpu_type in scenario.initial_counts()):
        target = (out / f"{name.replace('/', '--')}-{gpu_type}.json").absolute()
        job = _job(scenario, name, gpu_type, load, minutes, target)
        measured_with_progress(partial(profile_model, job, target), work_folder(target))
        placed.append(f'models."{name}".profiles."{gpu_type}"={target}')
    return tuple(placed)


def _job(scenario: Scenario, name: str, gpu_type: str, load: OfferedLoad, minutes: float, target: Path) -> ProfileJob:
    model, mix = scenario.models[name], load.mix[name]
    slo = strictest_slo(scenario.slos(), mix.tiers)
    vllm = model.vllm
    found = resolve_model(vllm.model or name, work_folder(target))
    return ProfileJob(
        model=found,
        gpus=chosen_gpus(CPU if gpu_type == CPU else None, model.tensor_parallel_size),
        serving=Serving(
            tensor_parallel_size=model.tensor_parallel_size,
            dtype=vllm.dtype,
            max_model_len=model.max_model_len,
            max_num_seqs=model.max_num_seqs,
            max_num_batched_tokens=model.max_num_batched_tokens,
            gpu_memory_utilization=vllm.gpu_memory_utilization,
            kv_cache_memory_bytes=vllm.kv_cache_memory_bytes,
            extra_args=(*async_scheduling_args(vllm.async_scheduling), *vllm.extra_args),
            env=vllm.env,
        ),
        weights="dummy" if vllm.load_format == "dummy" else found.weights_possible[0],
        plan=MeasurementPlan(
            budget_s=60 * minutes,
            mix=LengthMix(
                prompt_tokens=mix.prompt_mean,
                output_tokens=mix.output_mean,
                prompt_cv=mix.prompt_cv,
                output_cv=mix.output_cv,
            ),
            slo=LatencySlo(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s),
        ),
    )

"""From profiles to what the controller plans with: theta, GPUs and start-up time per model and GPU type."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.types import Capacity, FleetLimits
from profiler.capacity import Theta
from profiler.mix_capacity import MixCapacity, mix_capacity
from profiler.model_shapes import MODEL_SHAPES
from profiler.profile import ServerProfile, load_profile
from profiler.profile_parts import KvCache
from testbed.offered_load import LengthMix
from testbed.scenario import Mode, Scenario, ScenarioError
from testbed.scenario_parts import ModelConfig
from testbed.sleep_times import sleep_times
from workloads.request import Tier
from workloads.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCapacity:
    """One model on one GPU type: its profile, what a server sustains (`sustained`), and what utilisation divides by.

    `slo_tokens`: prompt and output tokens in flight when a server runs at theta. `stay_s`: how long a request of mean
    lengths may stay with a server at theta within its SLO, `patience_s` how long it may queue there.
    """

    profile: ServerProfile
    sustained: MixCapacity
    slo_tokens: float
    stay_s: float
    patience_s: float

    @property
    def theta(self) -> Theta:
        return self.sustained.theta


def load_profiles(scenario: Scenario) -> dict[tuple[str, str], ServerProfile]:
    """Profiles by (model, gpu_type). Raises ScenarioError naming the key of a profile that is missing or unreadable."""
    profiles = {}
    for name, model in scenario.models.items():
        for gpu_type, profile in model.profiles.items():
            try:
                profiles[(name, gpu_type)] = load_profile(profile)
            except (ValueError, OSError) as error:
                raise ScenarioError(f"models.{name}.profiles.{gpu_type}: {error}") from error
    return profiles


def capacities(
    scenario: Scenario, profiles: Mapping[tuple[str, str], ServerProfile], mix: Mapping[str, LengthMix]
) -> dict[tuple[str, str], ModelCapacity]:
    """By (model, gpu_type), for the length mix given. Raises ScenarioError where a model cannot meet its SLO at all."""
    return {
        key: model_capacity(scenario, key, profile, mix[key[0]]) for key, profile in profiles.items() if key[0] in mix
    }


def model_capacity(
    scenario: Scenario, key: tuple[str, str], profile: ServerProfile, lengths: LengthMix
) -> ModelCapacity:
    """Of one (model, gpu_type) with the profile as it was loaded. Raises ScenarioError where it cannot meet its SLO."""
    name, gpu_type = key
    strictest = strictest_slo(scenario.slos(), lengths.tiers)
    profile = served_profile(profile, scenario.models[name])
    try:
        sustained = mix_capacity(
            profile,
            lengths.prompt_mean,
            lengths.output_mean,
            strictest.ttft_s,
            strictest.tpot_s,
            prompt_cv=lengths.prompt_cv,
            output_cv=lengths.output_cv,
            extrapolate=scenario.capacity.extrapolate,
        )
    except ValueError as error:
        raise ScenarioError(f"models.{name}.profiles.{gpu_type}: {error}") from error
    theta = sustained.theta
    per_request = lengths.prompt_mean + lengths.output_mean
    longer_s = max(0.0, (strictest.ttft_s or 0.0) - theta.ttft_mean_s)
    return ModelCapacity(
        profile=profile,
        sustained=sustained,
        slo_tokens=theta.concurrency * per_request,
        # At theta by Little's law, and as much longer as it may wait for its first token.
        stay_s=theta.concurrency / theta.requests_per_s + longer_s,
        # Where TPOT binds, more load is not only waited for: all who are served miss with it.
        patience_s=0.0 if theta.binds == "tpot" else longer_s,
    )


def served_profile(profile: ServerProfile, model: ModelConfig) -> ServerProfile:
    """The profile with the batch limits and the KV cache that the scenario starts its servers with."""
    engine = profile.engine.model_copy(
        update={
            "max_num_seqs": model.max_num_seqs,
            "max_num_batched_tokens": model.max_num_batched_tokens,
            "max_model_len": model.max_model_len or profile.engine.max_model_len,
        }
    )
    return profile.model_copy(update={"engine": engine, "kv_cache": _kv_cache(profile, model)})


def _kv_cache(profile: ServerProfile, model: ModelConfig) -> KvCache:
    """The profile's, unless the scenario gives its bytes and the model's shape tells how many tokens those hold."""
    given, shape = model.vllm.kv_cache_memory_bytes, MODEL_SHAPES.get(profile.model.name)
    if given is None or shape is None:
        return profile.kv_cache
    block_size = profile.kv_cache.block_size
    per_block = block_size * shape.kv_bytes_per_token(model.vllm.dtype or profile.engine.dtype)
    blocks = max(1, given * profile.gpu.count // per_block)
    return KvCache(num_gpu_blocks=blocks, block_size=block_size, max_tokens=blocks * block_size)


def strictest_slo(slos: Mapping[Tier, Slo], tiers: frozenset[Tier]) -> Slo:
    """The least of each limit over the tiers that occur; None where none of them has it."""
    present = [slos[tier] for tier in tiers]
    ttft_s = [slo.ttft_s for slo in present if slo.ttft_s is not None]
    tpot_s = [slo.tpot_s for slo in present if slo.tpot_s is not None]
    return Slo(ttft_s=min(ttft_s, default=None), tpot_s=min(tpot_s, default=None))


def fleet_limits(scenario: Scenario, found: Mapping[tuple[str, str], ModelCapacity]) -> FleetLimits:
    """What the controller plans with. In vllm mode too the start-up times are those of the profiles."""
    planned_for = scenario.capacity.utilisation
    return FleetLimits(
        models=tuple(scenario.models),
        regions=tuple(scenario.regions),
        capacity={
            (name, gpu_type): Capacity(
                theta_tokens_per_s=capacity.theta.theta_tokens_per_s * planned_for,
                prefill_tokens_per_s=capacity.sustained.prefill_tokens_per_s * planned_for,
                decode_tokens_per_s=capacity.sustained.decode_tokens_per_s * planned_for,
                stay_s=capacity.stay_s,
                saturated_tokens_per_s=capacity.theta.saturated_tokens_per_s * planned_for,
                patience_s=capacity.patience_s,
                gpus=scenario.models[name].gpus,
                start_s=start_s(scenario.models[name], capacity.profile, scenario.mode),
                usd_per_gpu_h=scenario.gpu_types[gpu_type].usd_per_gpu_h if gpu_type in scenario.gpu_types else 0.0,
                **sleep_times(f"models.{name}", scenario.models[name], capacity.profile, scenario.mode)._asdict(),
            )
            for (name, gpu_type), capacity in found.items()
        },
        quota_gpus={
            (region, gpu_type): gpus
            for region, config in scenario.regions.items()
            for gpu_type, gpus in config.gpus.items()
        },
        min_servers=scenario.min_servers,
        rtt_s=scenario.round_trips(),
    )


def start_s(model: ModelConfig, profile: ServerProfile, mode: Mode) -> float:
    """From the command to READY: the scenario's value for emulated servers, else the profile's, warm before cold."""
    if model.start_s is not None and mode is not Mode.VLLM:
        return model.start_s
    return profile.lifecycle.warm_start_s or profile.lifecycle.cold_start_s or 0.0


def stop_s(model: ModelConfig, profile: ServerProfile) -> float:
    """From SIGTERM to free GPUs, of an emulated server: the scenario's value, else the profile's."""
    return (profile.lifecycle.stop_s or 0.0) if model.stop_s is None else model.stop_s

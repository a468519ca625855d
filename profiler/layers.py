"""A model too big for the machine, from two copies of it that are cut to fewer layers.

All layers of a transformer are alike, so the time of an iteration is linear in their number; embedding, head and all
that happens once per iteration is the intercept. Each point is extended for itself, then the model of step times is
fitted to what came out.
"""

from collections.abc import Sequence

import numpy as np

from profiler.fit_quality import errors_of
from profiler.point_medians import point_medians
from profiler.profile_parts import Errors, KvCache, StepSample


def extend_samples(
    fewer: Sequence[StepSample], more: Sequence[StepSample], fewer_layers: int, more_layers: int, layers: int
) -> tuple[StepSample, ...]:
    """What a model of `layers` would show at the points that both measured, by the line through both medians.

    The i-th repeat of one is paired with the i-th of the other, so that their scatter is carried along: it grows by
    about (layers - fewer_layers) / (more_layers - fewer_layers). A line that falls is noise: it is drawn level.
    Raises ValueError unless fewer_layers < more_layers <= layers and there is a common point.
    """
    if not 0 < fewer_layers < more_layers <= layers:
        raise ValueError(
            f"layers {fewer_layers},{more_layers} of {layers}; give two different counts, both at most all"
        )
    reach = (layers - more_layers) / (more_layers - fewer_layers)
    by_point: dict[str, list[StepSample]] = {}
    for sample in fewer:
        by_point.setdefault(sample.point, []).append(sample)
    extended = []
    for sample in more:
        mates = by_point.get(sample.point)
        if not mates:
            continue
        mate = mates[min(sample.repeat, len(mates) - 1)]
        many_s, few_s = sample.observed_s / sample.steps, mate.observed_s / mate.steps
        step_s = many_s + max(0.0, many_s - few_s) * reach
        extended.append(sample.model_copy(update={"observed_s": step_s * sample.steps}))
    if not extended:
        raise ValueError("the two copies have no point in common; measure both in one go")
    return tuple(extended)


def extension_errors(extended: Sequence[StepSample], whole: Sequence[StepSample]) -> Errors:
    """Errors of extended samples against those of the whole model, over the medians of common points.

    Raises ValueError without a common point.
    """
    predicted, observed = point_medians(extended), point_medians(whole)
    seconds = dict(zip(observed.names.tolist(), (observed.observed_s / observed.steps).tolist(), strict=True))
    relative = [
        step_s / seconds[name] - 1
        for name, step_s in zip(
            predicted.names.tolist(), (predicted.observed_s / predicted.steps).tolist(), strict=True
        )
        if name in seconds
    ]
    if not relative:
        raise ValueError("no point was measured on the whole model too")
    return errors_of(np.array(relative))


def extended_kv_cache(
    kv_cache: KvCache,
    cut_layers: int,
    layers: int,
    weight_bytes_per_layer: int | None,
    kv_bytes_per_token_and_layer: int | None,
) -> tuple[KvCache, str]:
    """The KV cache that all layers leave room for on the same GPUs, and how it was reckoned.

    Memory stays the same: what more layers weigh is taken from the blocks, each of which holds more layers. Where the
    whole does not fit, or its bytes are not known, the cache keeps its bytes: as on GPUs with so much more memory.
    """
    blocks = kv_cache.num_gpu_blocks * cut_layers // layers
    note = (
        f"KV cache: as many bytes as the copy of {cut_layers} layers had; the weights of all {layers} do not fit beside"
    )
    if weight_bytes_per_layer is not None and kv_bytes_per_token_and_layer is not None:
        cache_bytes = kv_cache.max_tokens * kv_bytes_per_token_and_layer * cut_layers
        left_bytes = cache_bytes - weight_bytes_per_layer * (layers - cut_layers)
        fitting = left_bytes // (kv_bytes_per_token_and_layer * layers * kv_cache.block_size)
        if fitting > 0:
            blocks, note = fitting, f"KV cache: what the weights of all {layers} layers leave of the same memory"
    else:
        note = f"KV cache: as many bytes as the copy of {cut_layers} layers had; what layers weigh is not known"
    blocks = max(1, blocks)
    return KvCache(num_gpu_blocks=blocks, block_size=kv_cache.block_size, max_tokens=blocks * kv_cache.block_size), note

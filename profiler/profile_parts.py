"""What a server profile is made of. A value that nobody measured or computed is None (`null`), never 0."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from profiler.gpu_types import CPU
from workloads.file_part import FilePart

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[NotNegative, NotNegative]
_ASYNC_SCHEDULING = ("--async-scheduling", "--no-async-scheduling")


def as_file_name(name: str) -> str:
    """A name that may be a path, such as a Hugging Face id, as one that names no folder."""
    return name.strip("/").replace("/", "--")


# What files are called by: no folder, nothing that cannot be seen. Names in profiles of before may hold a folder.
FileName = Annotated[
    str,
    BeforeValidator(lambda given: as_file_name(given) if isinstance(given, str) else given),
    Field(pattern=r"^[^/\\\x00-\x1f]{1,200}$"),
]
# A Hugging Face id or a path.
ModelName = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,300}$")]


class ProfiledModel(FilePart):
    """`config_sha256` identifies the config of a model that this project wrote; None for one that it did not."""

    name: ModelName
    config_sha256: str | None = None


class ProfiledGpu(FilePart):
    """What the server took: `count` devices of `type` ("cpu" without a GPU), each of `memory_bytes`."""

    type: FileName
    count: Count
    memory_bytes: Count | None = None


class EngineArgs(FilePart):
    """How the server was started, in vLLM's argument names. None: left to vLLM's default. `env`: the variables that it
    was given beside the user's own."""

    tensor_parallel_size: Count = 1
    dtype: str = "bfloat16"
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    max_model_len: Count | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_cache_memory_bytes: Count | None = None
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)

    @property
    def async_scheduling(self) -> bool | None:
        """What `extra_args` say of it; None where they say nothing."""
        told = [argument for argument in self.extra_args if argument in _ASYNC_SCHEDULING]
        return told[-1] == _ASYNC_SCHEDULING[0] if told else None


def schedules_asynchronously(told: bool | None, gpu_type: str) -> bool:
    """Whether vLLM puts an iteration together while the one before it runs: unless it is told not to, and never on the
    CPU, whatever it is told (its CPU platform turns it off).
    """
    return told is not False and gpu_type != CPU


class KvCache(FilePart):
    """`max_tokens` is what the blocks hold together: num_gpu_blocks x block_size."""

    num_gpu_blocks: Count
    block_size: Count
    max_tokens: Count


class SleepLevel(FilePart):
    """Seconds to put a server to sleep and to wake it. Level 1 keeps its weights in host memory, level 2 drops them."""

    level: Literal[1, 2]
    sleep_s: NotNegative
    wake_s: NotNegative


class MemoryHeld(FilePart):
    """What a server holds in a state: memory of its GPUs together, and resident host memory of its processes."""

    state: Literal["ready", "sleeping level 1", "sleeping level 2", "stopped"]
    gpu_bytes: Annotated[int, Field(ge=0)] | None = None
    host_bytes: Annotated[int, Field(ge=0)] | None = None


class Lifecycle(FilePart):
    """Seconds. `cold_start_s`: to READY, nothing compiled or captured before. `warm_start_s`: with the compile cache of
    the start before. `drain_s`: from the order to stop until the requests under way have ended, at the highest load of
    the sweep. `stop_s`: from the signal, with nothing in flight, until processes and GPUs are free.
    """

    cold_start_s: Positive | None = None
    warm_start_s: Positive | None = None
    drain_s: NotNegative | None = None
    stop_s: NotNegative | None = None
    sleep: tuple[SleepLevel, ...] = ()
    memory: tuple[MemoryHeld, ...] = ()


class StepSample(FilePart):
    """One observation of iterations: `observed_s` seconds went by over `steps` iterations of one composition.

    The composition (tokens, pairs, sequences, KV tokens) is that of one iteration, averaged over `steps`. A `prefill`
    sample was timed at the client from sending to the first token, so the request's own overhead is still in it; a
    `decode` or `mixed` sample lies between tokens of sequences that were decoding, and holds none. In a `mixed` one
    each iteration had a chunk of a prompt too. Samples of one `point` are repeats of each other; those of a
    `held_out` point had no part in the fit.
    """

    kind: Literal["prefill", "decode", "mixed"]
    point: str
    repeat: Annotated[int, Field(ge=0)]
    prefill_tokens: NotNegative
    prefill_pairs: NotNegative
    decode_seqs: NotNegative
    kv_tokens: NotNegative
    steps: Count
    observed_s: Positive
    held_out: bool = False


class CrowdedRequest(FilePart):
    """What requests cost outside of iterations, sent while `decode_seqs` sequences decoded: the mean of the
    middle half of `n` of them.

    Below 0 where noise is larger than the cost.
    """

    decode_seqs: Count
    overhead_s: Annotated[float, Field(allow_inf_nan=False)]
    n: Count


class Domain(FilePart):
    """Smallest and largest value of each axis that the samples covered.

    Query-key pairs are those of a single iteration: of a prompt in several chunks, the last has the most.
    """

    prefill_tokens: Range
    prefill_pairs: Range
    decode_seqs: Range
    kv_tokens: Range


class Errors(FilePart):
    """Absolute relative errors of the step-time model over the medians of `n` points: mean, median, largest."""

    mape: NotNegative
    median_ape: NotNegative
    max_ape: NotNegative
    n: Count


class FitQuality(FilePart):
    """How well the step-time model predicts.

    `residuals`: the points it was fitted to. `leave_one_out`: each of them by a fit to the others. `held_out`: points
    that the profiler drew at random in the domain and kept from the fit. `regions`: residuals by part of the domain,
    the name says which. `noise`: mean relative standard error of the points' medians, what no model can undercut.
    """

    residuals: Errors
    leave_one_out: Errors | None = None
    held_out: Errors | None = None
    regions: dict[str, Errors] = Field(default_factory=dict)
    noise: NotNegative | None = None
    n_samples: Count


class Percentiles(FilePart):
    """Seconds, over `n` requests."""

    p50: NotNegative
    p90: NotNegative
    p95: NotNegative
    p99: NotNegative
    mean: NotNegative
    n: Count


class Energy(FilePart):
    """All GPUs of the server together over `window_s` seconds, from NVML: the energy counter, and what was sampled."""

    window_s: Positive
    energy_j: NotNegative
    mean_w: NotNegative
    max_w: NotNegative | None = None
    temperature_c: Range | None = None
    sm_clock_mhz: Range | None = None
    utilization: Annotated[float, Field(ge=0, le=1)] | None = None


class LatencySlo(FilePart):
    """What a request must meet to count as good; None: free."""

    ttft_s: Positive | None = None
    tpot_s: Positive | None = None


class LoadPoint(FilePart):
    """Requests under load: a closed loop of `concurrency`, or Poisson arrivals at `requests_per_s`; one of the two.

    Lengths are means. Rates are over the steady window: from the moment when all slots of a closed loop had a first
    token (of an open loop: from its first arrival) until the first of them ran dry (the last arrival).
    `goodput_per_s`: requests/s that meet `slo`.
    """

    concurrency: Count | None = None
    requests_per_s: Positive | None = None
    prompt_tokens: Positive
    output_tokens: Positive
    completed: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    ttft_s: Percentiles | None
    tpot_s: Percentiles | None
    e2e_s: Percentiles | None
    window_s: Positive
    completed_per_s: NotNegative
    prompt_tokens_per_s: NotNegative
    output_tokens_per_s: NotNegative
    slo: LatencySlo | None = None
    slo_attainment: Annotated[float, Field(ge=0, le=1)] | None = None
    goodput_per_s: NotNegative | None = None
    energy: Energy | None = None


class MeasuredTheta(FilePart):
    """The largest open-loop rate found at which p95 TTFT and TPOT were within `slo`, for one mix of lengths.

    `requests_per_s` kept the SLO and `missed_at_requests_per_s`, the next rate tried, did not (None: none missed it).
    """

    prompt_tokens_mean: Positive
    output_tokens_mean: Positive
    prompt_cv: NotNegative
    output_cv: NotNegative
    slo: LatencySlo
    requests_per_s: Positive
    tokens_per_s: Positive
    missed_at_requests_per_s: Positive | None
    n: Count


class Power(FilePart):
    """Watts of all GPUs of the server together, and joules per token; `limit_w` is the enforced or the vendor's limit.

    `prefill_w` while only prompts are computed, `decode_w` while only answers are; `peak_w` the most seen.
    """

    idle_w: NotNegative | None = None
    prefill_w: NotNegative | None = None
    decode_w: NotNegative | None = None
    peak_w: NotNegative | None = None
    limit_w: NotNegative | None = None
    prompt_token_j: NotNegative | None = None
    output_token_j: NotNegative | None = None


class RawSamples(FilePart):
    """A Parquet file beside the profile, with its digest; `file` has no folder."""

    file: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,190}\.parquet$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    rows: Annotated[int, Field(ge=0)]


class LayerExtrapolation(FilePart):
    """Measured on copies of the model cut to `measured_layers`, extended linearly to `layers`.

    `error`: of the extension at the same points of the whole model, where that was measured too. `raw`: the samples of
    the copies, with their number of layers; those of the profile are extended.
    """

    measured_layers: tuple[Count, Count]
    layers: Count
    error: Errors | None = None
    raw: RawSamples | None = None


class Provenance(FilePart):
    """Where the numbers come from. `n` counts measurements; 0 where nothing was measured."""

    source: str
    date: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    driver: str | None = None
    weights: Literal["real", "dummy"] | None = None
    n: Annotated[int, Field(ge=0)] = 0
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

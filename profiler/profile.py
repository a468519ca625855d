"""What one server of a model on a GPU type can do, in one file.

A value that nobody measured or computed is None (`null`), never 0.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiler.step_time import StepTimeModel

SCHEMA_VERSION: Literal[1] = 1
_BUNDLED = Path(str(files("profiler"))) / "profiles"

Kind = Literal["measured", "fitted from published figures", "analytical"]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Range = tuple[NotNegative, NotNegative]


class OutsideDomainError(ValueError):
    """A profile was asked about a batch that it has not seen."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProfiledModel(_Part):
    """`config_sha256` identifies the config of a model that this project wrote; None for one that it did not."""

    name: str
    config_sha256: str | None = None


class ProfiledGpu(_Part):
    """What the server took: `count` devices of `type` ("cpu" without a GPU), each of `memory_bytes`."""

    type: str
    count: Count
    memory_bytes: Count | None = None


class EngineArgs(_Part):
    """How the server was started, in vLLM's argument names. None: left to vLLM's default."""

    tensor_parallel_size: Count = 1
    dtype: str = "bfloat16"
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    max_model_len: Count | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    kv_cache_memory_bytes: Count | None = None


class KvCache(_Part):
    """`max_tokens` is what the blocks hold together: num_gpu_blocks x block_size."""

    num_gpu_blocks: Count
    block_size: Count
    max_tokens: Count


class Lifecycle(_Part):
    """Seconds. `cold_start_s`: to READY, nothing cached. `warm_start_s`: weights in the page cache, kernels compiled.

    `stop_s`: from the signal, with nothing in flight, until the GPU is free.
    """

    cold_start_s: Positive | None = None
    warm_start_s: Positive | None = None
    stop_s: NotNegative | None = None
    sleep_s: NotNegative | None = None
    wake_s: NotNegative | None = None


class StepSample(_Part):
    """One observation of iterations: `observed_s` seconds went by over `steps` iterations of one composition.

    The composition (tokens, pairs, sequences, KV tokens) is that of one iteration, averaged over `steps`. A `prefill`
    sample was timed at the client from sending to the first token, so the request's own overhead is still in it; a
    `decode` sample lies between tokens and holds none. Samples of one `point` are repeats of each other.
    """

    kind: Literal["prefill", "decode"]
    point: str
    repeat: Annotated[int, Field(ge=0)]
    prefill_tokens: NotNegative
    prefill_pairs: NotNegative
    decode_seqs: NotNegative
    kv_tokens: NotNegative
    steps: Count
    observed_s: Positive


class Domain(_Part):
    """Smallest and largest value of each axis that the samples covered."""

    prefill_tokens: Range
    prefill_pairs: Range
    decode_seqs: Range
    kv_tokens: Range


class FitQuality(_Part):
    """Residuals of the step-time fit: mean and largest absolute relative error over `n_points` medians."""

    mape: NotNegative
    mape_prefill: NotNegative | None
    mape_decode: NotNegative | None
    max_ape: NotNegative
    n_points: Count
    n_samples: Count


class LoadPoint(_Part):
    """Requests under load: a closed loop of `concurrency`, or an open one of `requests_per_s`. Medians and p95 in s."""

    concurrency: Count | None = None
    requests_per_s: Positive | None = None
    prompt_tokens: Count
    output_tokens: Count
    completed: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    ttft_p50_s: NotNegative | None
    ttft_p95_s: NotNegative | None
    tpot_p50_s: NotNegative | None
    tpot_p95_s: NotNegative | None
    e2e_p50_s: NotNegative | None
    e2e_p95_s: NotNegative | None
    total_tokens_per_s: NotNegative


class Power(_Part):
    """Watts of all GPUs of the server together; `limit_w` is the vendor's TDP."""

    idle_w: NotNegative | None = None
    busy_w: NotNegative | None = None
    limit_w: NotNegative | None = None


class Provenance(_Part):
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


class ServerProfile(_Part):
    """One server: its capacity, its speed, its life, and where each number comes from.

    `request_overhead_s` is what a request costs outside of iterations (HTTP, tokenisation, streaming). `domain` None
    means that the model of step times holds by construction (a roofline) and not by measurement.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    kind: Kind
    model: ProfiledModel
    gpu: ProfiledGpu
    engine: EngineArgs
    kv_cache: KvCache
    step_time: StepTimeModel
    request_overhead_s: NotNegative | None = None
    domain: Domain | None = None
    fit: FitQuality | None = None
    lifecycle: Lifecycle = Lifecycle()
    power: Power | None = None
    points: tuple[LoadPoint, ...] = ()
    provenance: Provenance
    samples: tuple[StepSample, ...] = ()

    def require_within_domain(self, *, prefill_tokens: float = 0, decode_seqs: float = 0, kv_tokens: float = 0) -> None:
        """Raise OutsideDomainError when a batch exceeds what was measured. Below the smallest sample is within."""
        if self.domain is None:
            return
        for axis, value in (("prefill_tokens", prefill_tokens), ("decode_seqs", decode_seqs), ("kv_tokens", kv_tokens)):
            largest = getattr(self.domain, axis)[1]
            if value > largest:
                raise OutsideDomainError(
                    f"profile {self.name} was asked about {axis}={value:g} and was measured up to {largest:g}; "
                    "measure further, or ask for extrapolation by name"
                )

    def save(self, path: Path) -> None:
        """Write the profile as JSON, a line per sample so that two files can be compared by eye."""
        content = self.model_dump(mode="json")
        rows = {name: content.pop(name) for name in ("points", "samples")}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_as_json(content, rows), encoding="utf-8")


def _as_json(content: Mapping[str, Any], rows: Mapping[str, list[Any]]) -> str:
    head = json.dumps(content, indent=2).removesuffix("\n}")
    tails = [
        f'  "{name}": [' + ",".join("\n    " + json.dumps(row) for row in lines) + ("\n  ]" if lines else "]")
        for name, lines in rows.items()
    ]
    return ",\n".join([head, *tails]) + "\n}\n"


def bundled_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with this package, sorted."""
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.json")))


def load_profile(name_or_path: str | Path) -> ServerProfile:
    """A bundled profile by name, or one from a file.

    Raises ValueError for an unknown name (naming the nearest bundled ones) and for a file that is not a profile.
    """
    path = Path(name_or_path)
    if path.suffix != ".json" or not path.exists():
        bundled = _BUNDLED / f"{name_or_path}.json"
        if not bundled.exists():
            names = bundled_profiles()
            near = get_close_matches(str(name_or_path), names, n=3, cutoff=0.3) or names
            raise ValueError(
                f"profile {str(name_or_path)!r} is neither a file nor bundled; nearest bundled: {', '.join(near)}"
            )
        path = bundled
    try:
        return ServerProfile.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ValueError(
            f"{path} is no server profile: {where}: {first['msg']}"
            + (f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else "")
            + "; write profiles with `testbed profile`"
        ) from error

"""From samples made of another simulator's rows to a profile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from profiler.fit import StepTimeFit, fit_step_time
from profiler.profile import ServerProfile
from profiler.profile_parts import EngineArgs, KvCache, ProfiledGpu, ProfiledModel, Provenance, StepSample
from workloads.first_fault import first_fault

BLOCK_SIZE = 16  # vLLM's default


class ImportedFileError(ValueError):
    """A file cannot be imported; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What the rows of one server say. `notes`: what was detected, assumed, or is lacking."""

    model: str
    gpu: str
    tensor_parallel_size: int
    samples: tuple[StepSample, ...]
    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    notes: tuple[str, ...]


def profile_of(imported: Imported, source: Sequence[Path]) -> ServerProfile:
    """Fit the step-time model to the samples. Raises ImportedFileError when they are too few."""
    try:
        fit = fit_step_time(imported.samples)
    except ValueError as error:
        raise _unusable(source, str(error)) from error
    blocks = max(1, imported.kv_tokens // BLOCK_SIZE)
    try:
        return _profile(imported, source, fit, blocks)
    except ValidationError as error:
        raise _unusable(source, first_fault(error)) from error


def _unusable(source: Sequence[Path], why: str) -> ImportedFileError:
    return ImportedFileError(f"{', '.join(map(str, source))}: {why}")


def _profile(imported: Imported, source: Sequence[Path], fit: StepTimeFit, blocks: int) -> ServerProfile:
    gpus = imported.tensor_parallel_size
    short = imported.model.rsplit("/", 1)[-1].lower()
    return ServerProfile(
        name=f"{short}-{imported.gpu}" + (f"-tp{gpus}" if gpus > 1 else ""),
        kind="imported",
        model=ProfiledModel(name=imported.model),
        gpu=ProfiledGpu(type=imported.gpu, count=gpus),
        engine=EngineArgs(
            tensor_parallel_size=gpus,
            max_num_seqs=imported.max_num_seqs,
            max_num_batched_tokens=imported.max_num_batched_tokens,
            max_model_len=imported.max_model_len,
        ),
        kv_cache=KvCache(num_gpu_blocks=blocks, block_size=BLOCK_SIZE, max_tokens=blocks * BLOCK_SIZE),
        step_time=fit.step_time,
        request_overhead_s=fit.request_overhead_s,
        domain=fit.domain,
        fit=fit.quality,
        provenance=Provenance(
            source=f"imported from {', '.join(path.name for path in source)}",
            n=len(imported.samples),
            notes=(
                *imported.notes,
                "the format has no lifecycle times, energy, engine version or requests under load: not known",
            ),
        ),
    )

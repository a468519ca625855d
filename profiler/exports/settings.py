"""What an export may be told, beside the profiles."""

from dataclasses import dataclass
from pathlib import Path

from profiler.exports.dimensions import Dimensions, dimensions_of
from profiler.gpu_types import GPU_TYPES
from profiler.profile import ServerProfile


class ExportError(ValueError):
    """A profile cannot be written in a format; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """`extrapolate`: use a measured profile beyond its domain. `prompt_tokens`, `output_tokens`: the request for which
    a format that knows only one is written; None chooses one that the profile covers. `max_context_tokens` cuts every
    grid. `canonical`: the true axes of a SplitwiseSim table. `model_name`: what the consumer calls the model.
    `model_config`: a Hugging Face config.json, for a model whose shape is not known here. The two peaks (dense bf16
    FLOP/s and memory bytes/s, of one GPU) are wanted for a GPU type without vendor figures here.
    """

    extrapolate: bool = False
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    max_context_tokens: int | None = None
    canonical: bool = False
    model_name: str | None = None
    model_config: Path | None = None
    peak_flops_per_s: float | None = None
    peak_memory_bytes_per_s: float | None = None

    def consumer_model(self, profile: ServerProfile, known: dict[str, str]) -> str:
        """What the consumer calls the model of `profile`: as told, as `known`, or by its own name."""
        return self.model_name or known.get(profile.model.name, profile.model.name)

    def model_file(self, profile: ServerProfile, known: dict[str, str]) -> str:
        """As `consumer_model`, for a consumer that makes the name of a file or folder of it.

        Raises ExportError for one that would lie outside the export.
        """
        name = self.consumer_model(profile, known)
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ExportError(f"profile {profile.name}: model {name!r} names no file of an export; give --model-name")
        return name

    def dimensions(self, profile: ServerProfile) -> Dimensions:
        """The sizes of the profile's model. Raises ExportError when nothing tells them."""
        try:
            return dimensions_of(profile.model.name, self.model_config)
        except ValueError as error:
            raise ExportError(f"profile {profile.name}: {error}") from error

    def peaks(self, profile: ServerProfile) -> tuple[float, float]:
        """Dense bf16 FLOP/s and memory bytes/s of one GPU. Raises ExportError when nothing tells them."""
        known = GPU_TYPES.get(profile.gpu.type.lower())
        flops_per_s = self.peak_flops_per_s or (known and known.flops_per_s)
        bytes_per_s = self.peak_memory_bytes_per_s or (known and known.memory_bytes_per_s)
        if not flops_per_s or not bytes_per_s:
            raise ExportError(
                f"profile {profile.name}: no vendor figures of GPU type {profile.gpu.type!r} are known; give"
                " --peak-flops-per-s and --peak-memory-bytes-per-s"
            )
        return flops_per_s, bytes_per_s

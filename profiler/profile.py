"""What one server of a model on a GPU type can do, in one file.

A value that nobody measured or computed is None (`null`), never 0.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import ValidationError, model_validator

from profiler.profile_parts import (
    CrowdedRequest,
    Domain,
    EngineArgs,
    FileName,
    FitQuality,
    KvCache,
    LayerExtrapolation,
    Lifecycle,
    LoadPoint,
    MeasuredTheta,
    NotNegative,
    Power,
    ProfiledGpu,
    ProfiledModel,
    Provenance,
    RawSamples,
)
from profiler.step_time import StepTimeModel
from workloads.file_part import FilePart
from workloads.first_fault import first_fault
from workloads.strict_json import RepeatedKey, require_each_key_once

SCHEMA_VERSION: Literal[2] = 2
# A file rounds: what was itself measured is within.
_ROUNDING = 1e-9
_BUNDLED = Path(str(files("profiler"))) / "profiles"

Kind = Literal["measured", "extrapolated from layers", "imported", "fitted from published figures", "analytical"]


class OutsideDomainError(ValueError):
    """A profile was asked about a batch that it has not seen."""


class ServerProfile(FilePart):
    """One server: its capacity, its speed, its life, and where each number comes from.

    `request_overhead_s` is what a request to an idle server costs outside of iterations (HTTP, tokenisation,
    streaming), `crowded_requests` what it costs among others. `domain` None means that the model of step times holds by
    construction (a roofline) and not by measurement. `samples` (rows of StepSample) and `requests` (one row per request
    under load) lie beside the file: see `profiler.raw_samples`.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    name: FileName
    kind: Kind
    model: ProfiledModel
    gpu: ProfiledGpu
    engine: EngineArgs
    kv_cache: KvCache
    step_time: StepTimeModel
    request_overhead_s: NotNegative | None = None
    crowded_requests: tuple[CrowdedRequest, ...] = ()
    domain: Domain | None = None
    fit: FitQuality | None = None
    lifecycle: Lifecycle = Lifecycle()
    power: Power | None = None
    points: tuple[LoadPoint, ...] = ()
    theta: tuple[MeasuredTheta, ...] = ()
    layers: LayerExtrapolation | None = None
    provenance: Provenance
    samples: RawSamples | None = None
    requests: RawSamples | None = None

    @model_validator(mode="after")
    def _crowds_grow(self) -> Self:
        widths = [crowd.decode_seqs for crowd in self.crowded_requests]
        if any(later <= earlier for earlier, later in pairwise(widths)):
            raise ValueError(f"crowded_requests are of {widths} sequences; give each number once, in rising order")
        return self

    def require_within_domain(
        self,
        *,
        prefill_tokens: float = 0,
        prefill_pairs: float = 0,
        decode_seqs: float = 0,
        kv_tokens: float = 0,
    ) -> None:
        """Raise OutsideDomainError when a batch exceeds what was measured. Below the smallest sample is within."""
        if self.domain is None:
            return
        for axis, value in (
            ("prefill_tokens", prefill_tokens),
            ("prefill_pairs", prefill_pairs),
            ("decode_seqs", decode_seqs),
            ("kv_tokens", kv_tokens),
        ):
            largest = getattr(self.domain, axis)[1]
            if value > largest * (1 + _ROUNDING):
                raise OutsideDomainError(
                    f"profile {self.name} was asked about {axis}={value:g} and was measured up to {largest:g}; "
                    "measure further, or ask for extrapolation by name"
                )

    def request_overhead_among_s(self, running: float) -> float:
        """What a request costs outside of iterations, `running` sequences being there; 0 where nothing was measured.

        Between the crowds that were measured it grows evenly; beyond the largest it is that one's. Among more it is
        never less than among fewer.
        """
        idle_s = self.request_overhead_s or 0.0
        if not self.crowded_requests:
            return idle_s
        costs_s = np.maximum.accumulate([idle_s, *(crowd.overhead_s for crowd in self.crowded_requests)])
        return float(np.interp(running, [0, *(crowd.decode_seqs for crowd in self.crowded_requests)], costs_s))

    def save(self, path: Path) -> None:
        """Write the profile as JSON, a line per load point so that two files can be compared by eye."""
        content = self.model_dump(mode="json")
        points = content.pop("points")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_as_json(content, points), encoding="utf-8")


def _as_json(content: Mapping[str, Any], points: list[Any]) -> str:
    head = json.dumps(content, indent=2).removesuffix("\n}")
    lines = ",".join("\n    " + json.dumps(point) for point in points)
    return head + ',\n  "points": [' + lines + ("\n  ]" if points else "]") + "\n}\n"


def bundled_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with this package, sorted."""
    return tuple(sorted(path.stem for path in _BUNDLED.glob("*.json")))


def profile_path(name_or_path: str | Path) -> Path:
    """Where the profile is: a file that exists, or a bundled name.

    Raises ValueError for an unknown name, naming the nearest bundled ones.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" and path.exists():
        return path
    names = bundled_profiles()
    if str(name_or_path) not in names:
        near = get_close_matches(str(name_or_path), names, n=3, cutoff=0.3) or names
        raise ValueError(
            f"profile {str(name_or_path)!r} is neither a file nor bundled; nearest bundled: {', '.join(near)}"
        )
    return _BUNDLED / f"{name_or_path}.json"


def load_profile(name_or_path: str | Path) -> ServerProfile:
    """A bundled profile by name, or one from a file.

    Raises ValueError for an unknown name (naming the nearest bundled ones) and for a file that is not a profile.
    """
    path = profile_path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
        require_each_key_once(text)
        return ServerProfile.model_validate_json(text)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; give the file of a profile") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no server profile: it is not UTF-8 text") from error
    except RepeatedKey as error:
        raise ValueError(f"{path} is no server profile: {error}") from error
    except ValidationError as error:
        raise ValueError(
            f"{path} is no server profile: {first_fault(error)}"
            + (f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else "")
            + "; write profiles with `testbed profile`"
        ) from error

"""The load at which profiles are asked for theta, and what they answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from profiler.capacity import Theta, theta_tokens_per_s
from profiler.profile import ServerProfile
from profiler.profile_parts import LatencySlo, MeasuredTheta
from results.load_points import slo_text

_SAME_LENGTH = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceLoad:
    """Mean lengths in tokens, their coefficients of variation, and limits on the p95."""

    prompt_tokens: float = 1024.0
    output_tokens: float = 220.0
    prompt_cv: float = 1.0
    output_cv: float = 1.0
    slo: LatencySlo = field(default_factory=lambda: LatencySlo(ttft_s=1.0))

    def __str__(self) -> str:
        lengths = f"{self.prompt_tokens:.4g} + {self.output_tokens:.4g} tokens"
        spread = f"(CV {self.prompt_cv:.2g}, {self.output_cv:.2g})"
        return f"{lengths} {spread}, p95: {slo_text(self.slo)}"


def load_of(measured: MeasuredTheta) -> ReferenceLoad:
    """The load of a measured theta."""
    return ReferenceLoad(
        prompt_tokens=measured.prompt_tokens_mean,
        output_tokens=measured.output_tokens_mean,
        prompt_cv=measured.prompt_cv,
        output_cv=measured.output_cv,
        slo=measured.slo,
    )


def common_load(profiles: Sequence[ServerProfile]) -> ReferenceLoad:
    """The load of the first theta that any of `profiles` measured; without one, that of `ReferenceLoad()`."""
    measured = [theta for profile in profiles for theta in profile.theta]
    return load_of(measured[0]) if measured else ReferenceLoad()


def measured_at(profile: ServerProfile, load: ReferenceLoad) -> MeasuredTheta | None:
    """The theta that was measured for this load; mean lengths that were drawn may be a little off."""
    return next((theta for theta in profile.theta if _alike(load_of(theta), load)), None)


def _alike(one: ReferenceLoad, other: ReferenceLoad) -> bool:
    lengths = ((one.prompt_tokens, other.prompt_tokens), (one.output_tokens, other.output_tokens))
    close = all(math.isclose(a, b, rel_tol=_SAME_LENGTH) for a, b in lengths)
    return close and (one.prompt_cv, one.output_cv, one.slo) == (other.prompt_cv, other.output_cv, other.slo)


def predicted_theta(profile: ServerProfile, load: ReferenceLoad) -> Theta | str:
    """theta within the profile's domain, or why there is none."""
    try:
        return theta_tokens_per_s(
            profile,
            load.prompt_tokens,
            load.output_tokens,
            load.slo.ttft_s,
            load.slo.tpot_s,
            prompt_cv=load.prompt_cv,
            output_cv=load.output_cv,
        )
    except ValueError as error:
        return str(error)

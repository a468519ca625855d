"""How a server is to be measured: how long, how finely, under which load."""

from dataclasses import dataclass, field

from profiler.grid import LONGEST_PROMPT
from profiler.profile_parts import LatencySlo


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthMix:
    """Mean lengths of requests in tokens and their coefficients of variation (0: all alike, 1: exponential)."""

    prompt_tokens: float = 512.0
    output_tokens: float = 128.0
    prompt_cv: float = 0.0
    output_cv: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """`budget_s` bounds the whole, server starts included; the first grid and its `repeats` are measured whatever.

    `most_points` counts points of iterations, the `held_out` ones included. Refinement ends before the budget does
    when the largest leave-one-out error is at `error_target`. `theta_tries` bounds the search for the largest rate.
    Raises ValueError for fewer than 3 repeats.
    """

    budget_s: float = 600.0
    most_points: int = 40
    held_out: int = 8
    repeats: int = 3
    error_target: float = 0.02
    longest_prompt: int = LONGEST_PROMPT
    mix: LengthMix = field(default_factory=LengthMix)
    slo: LatencySlo = field(default_factory=lambda: LatencySlo(ttft_s=1.0))
    theta_tries: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 3:
            raise ValueError(f"repeats={self.repeats}; a median wants at least 3")


# Parts of the time that is left for measuring when the server is READY, by when each phase must have ended.
UNTIL_WARM = 0.1
UNTIL_GRID = 0.45
UNTIL_REFINED = 0.58
UNTIL_HELD_OUT = 0.65
UNTIL_CROWDED = 0.72
UNTIL_LOADS = 0.82
UNTIL_THETA = 0.94

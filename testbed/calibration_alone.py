"""The servers of a case alone, as they are emulated and with one thing changed at a time: what an error comes from."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd

from profiler.profile import ServerProfile
from profiler.step_time import StepTimeModel
from results.calibration import Variant
from results.calibration_measures import HEADLINES, common_requests, request_measures
from results.quantities import signed_percent
from testbed.calibration_cases import Case
from testbed.server_replay import RecordedServer, recorded_servers, replay_alone

# Of the search for the factor of step times: its largest value, and its steps.
_LARGEST_SCALE = 2.0
_BISECTIONS = 8
# What may be left of the error of the median TPOT at the factor that is named.
_REACHED = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Completions of real runs and of what was emulated of them, one frame per run, row by row the same requests."""

    real: tuple[pd.DataFrame, ...]
    emulated: tuple[pd.DataFrame, ...]


class ServersAlone:
    """Replays the servers of the runs of `case`, each with what it was sent."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._completions = [folder.completions() for folder in case.folders()]
        self._recorded: list[list[RecordedServer]] = [
            recorded_servers(case.scenario, case.trace, completions, folder.servers())
            for completions, folder in zip(self._completions, case.folders(), strict=True)
        ]

    def replay(self, change: Callable[[ServerProfile], ServerProfile] = lambda profile: profile) -> Pairs:
        """With every profile as `change` makes it."""
        case = self._case
        profiles = {key: change(profile) for key, profile in case.profiles.items()}
        emulated = [replay_alone(case.scenario, profiles, recorded) for recorded in self._recorded]
        pairs = [common_requests(*both) for both in zip(self._completions, emulated, strict=True)]
        return Pairs(real=tuple(real for real, _ in pairs), emulated=tuple(other for _, other in pairs))

    def variants(self, unchanged: Pairs) -> tuple[Variant, ...]:
        """What becomes of the errors without the request's own overhead, and with step times as slow as they were.

        `unchanged`: what `replay()` gave.
        """
        scale, scaled = self._as_slow_as_it_was(unchanged)
        return (
            self._variant("as it is", "every profile as it was measured", unchanged),
            self._variant(
                "no request overhead",
                "without what the profile measured for HTTP, tokenisation and streaming",
                self.replay(_without_request_overhead),
            ),
            self._variant(
                f"step times x {scale:.3f}",
                self._why_scaled(scaled),
                scaled,
            ),
        )

    def _why_scaled(self, scaled: Pairs) -> str:
        error = self._errors(scaled)["TPOT p50"]
        if error is None:
            return "as they are: no TPOT was measured to scale them by"
        if abs(error) > _REACHED:
            tried = f"the nearest factor tried (1/{_LARGEST_SCALE:g} to {_LARGEST_SCALE:g})"
            return f"every iteration longer by {tried}; TPOT p50 is still off by {signed_percent(error)}"
        return "every iteration longer by the factor at which the median TPOT is the real one"

    def _as_slow_as_it_was(self, unchanged: Pairs) -> tuple[float, Pairs]:
        """The factor of step times at which the median TPOT is the real one, by bisection: it grows with them.

        At most _LARGEST_SCALE or its inverse, however far off TPOT still is.
        """
        low, high = math.log(1 / _LARGEST_SCALE), math.log(_LARGEST_SCALE)
        scale, pairs = 1.0, unchanged
        for _ in range(_BISECTIONS):
            error = self._errors(pairs)["TPOT p50"]
            if error is None:
                break
            low, high = (low, math.log(scale)) if error > 0 else (math.log(scale), high)
            scale = math.exp((low + high) / 2)
            pairs = self.replay(partial(with_step_times, scale=scale))
        return scale, pairs

    def _variant(self, name: str, why: str, pairs: Pairs) -> Variant:
        errors = self._errors(pairs)
        return Variant(name=name, why=why, errors={headline: errors[headline] for headline in HEADLINES})

    def _errors(self, pairs: Pairs) -> dict[str, float | None]:
        return {one.name: one.error for one in request_measures(pairs.real, pairs.emulated)}


def _without_request_overhead(profile: ServerProfile) -> ServerProfile:
    return profile.model_copy(update={"request_overhead_s": None, "crowded_requests": ()})


def with_step_times(profile: ServerProfile, scale: float) -> ServerProfile:
    """The profile with every iteration `scale` times as long."""
    times = profile.step_time
    scaled = StepTimeModel(
        overhead_s=times.overhead_s * scale,
        slopes=tuple((from_tokens, per_token_s * scale) for from_tokens, per_token_s in times.slopes),
        per_sequence_s=times.per_sequence_s * scale,
        per_kv_token_s=times.per_kv_token_s * scale,
        per_prefill_pair_s=times.per_prefill_pair_s * scale,
        prefill_overhead_s=times.prefill_overhead_s * scale,
    )
    return profile.model_copy(update={"step_time": scaled})

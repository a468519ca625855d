"""What servers sustain at the lengths that are asked for now: theta and its two parts follow the mix."""

from collections.abc import Mapping

from controller.types import FleetLimits
from profiler.profile import ServerProfile
from testbed.capacities import ModelCapacity, fleet_limits, model_capacity
from testbed.offered_load import LengthMix
from testbed.scenario import Scenario, ScenarioError

MOVED = 0.10
"""A mean length that has moved by more than this share makes a model's capacity be computed anew."""
SPREAD_MOVED = 0.25
"""The same for a coefficient of variation, in absolute terms; it weighs less."""


class CapacityTable:
    """Fleet limits for the mix seen so far. The same mixes in the same order give the same limits.

    Between movements the very same object comes back. `kept_because`: by (model, gpu_type) why the capacity is still
    that of an earlier mix (the new one misses the SLO even on an idle server, or does not fit the context); it is
    tried again when the mix moves again.
    """

    def __init__(
        self,
        scenario: Scenario,
        profiles: Mapping[tuple[str, str], ServerProfile],
        found: Mapping[tuple[str, str], ModelCapacity],
        mix: Mapping[str, LengthMix],
    ) -> None:
        """`profiles` and `found` as `load_profiles` and `capacities` give them, `found` being that of `mix`."""
        self._scenario = scenario
        self._profiles = profiles
        self._found = dict(found)
        self._mix = dict(mix)
        self._limits = fleet_limits(scenario, self._found)
        self.kept_because: dict[tuple[str, str], str] = {}

    def limits(self, mix: Mapping[str, LengthMix]) -> FleetLimits:
        """For the mix seen so far; models that it leaves out keep what they had."""
        moved = {model: seen for model, seen in mix.items() if model in self._mix and _moved(self._mix[model], seen)}
        for model, seen in moved.items():
            # A tier that was known once is not forgotten: it comes back unannounced.
            lengths = LengthMix(
                prompt_mean=seen.prompt_mean,
                prompt_cv=seen.prompt_cv,
                output_mean=seen.output_mean,
                output_cv=seen.output_cv,
                tiers=self._mix[model].tiers | seen.tiers,
            )
            self._mix[model] = lengths
            for key in [key for key in self._found if key[0] == model]:
                self._recompute(key, lengths)
        if moved:
            self._limits = fleet_limits(self._scenario, self._found)
        return self._limits

    def _recompute(self, key: tuple[str, str], lengths: LengthMix) -> None:
        try:
            self._found[key] = model_capacity(self._scenario, key, self._profiles[key], lengths)
        except ScenarioError as error:
            self.kept_because[key] = str(error)
        else:
            self.kept_because.pop(key, None)


def _moved(before: LengthMix, now: LengthMix) -> bool:
    means = ((before.prompt_mean, now.prompt_mean), (before.output_mean, now.output_mean))
    spreads = ((before.prompt_cv, now.prompt_cv), (before.output_cv, now.output_cv))
    return (
        any(abs(new - old) > MOVED * old for old, new in means)
        or any(abs(new - old) > SPREAD_MOVED for old, new in spreads)
        or not now.tiers <= before.tiers
    )

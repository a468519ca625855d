"""How long a model's servers take to fall asleep and to wake up: from the scenario, or measured in the profile."""

from typing import NamedTuple

from profiler.profile import ServerProfile
from testbed.scenario import Mode, ScenarioError
from testbed.scenario_parts import ModelConfig


class SleepTimes(NamedTuple):
    """Seconds from drained to sleeping, and from the order to wake to READY; None where servers cannot sleep."""

    sleep_s: float | None = None
    wake_s: float | None = None


def sleep_times(key: str, model: ModelConfig, profile: ServerProfile, mode: Mode) -> SleepTimes:
    """Of servers of `model`, which is `key` in the scenario. Of emulated servers the scenario's times come first, of
    real ones those that were measured.

    Raises ScenarioError when the model is to sleep and neither has a time.
    """
    if model.sleep_level is None:
        return SleepTimes()
    given = SleepTimes(model.sleep_s, model.wake_s)
    measured = next(
        (SleepTimes(each.sleep_s, each.wake_s) for each in profile.lifecycle.sleep if each.level == model.sleep_level),
        SleepTimes(),
    )
    first, second = (measured, given) if mode is Mode.VLLM else (given, measured)
    times = [b if a is None else a for a, b in zip(first, second, strict=True)]
    for name, seconds in zip(SleepTimes._fields, times, strict=True):
        if seconds is None:
            raise ScenarioError(
                f"{key}.sleep_level {model.sleep_level}: profile {profile.name} has no {name} of that level; "
                f"give {key}.{name}"
            )
    return SleepTimes(*times)

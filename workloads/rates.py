"""The rate of every stream in every minute: what is planned times what chance adds."""

from collections.abc import Iterator
from math import ceil

import numpy as np

from workloads.request import Tier
from workloads.shapes import MINUTES_PER_DAY, Curve, LoadShape, bursts, random_level, regime_level, weekly_curve
from workloads.synthetic_workload import SyntheticWorkload

Stream = tuple[str, str, Tier]


class StreamRates:
    """Requests per second of each (model, region of origin, tier) of a workload, day by day."""

    def __init__(self, workload: SyntheticWorkload, seed: int) -> None:
        self._workload = workload
        self._seed = seed
        self._run_means: dict[tuple[LoadShape, str, float], float] = {}
        self.shares = workload.request_shares()

    def of_day(self, day: int) -> Iterator[tuple[Stream, Curve]]:
        """Every stream with its rate in each minute of `day` (counted from time 0), shape (1440,), per second."""
        minute_h = 24.0 * day + (np.arange(MINUTES_PER_DAY, dtype=np.float64) + 0.5) / 60.0
        chances: dict[tuple[str, bool], Curve] = {}
        weeks: dict[tuple[LoadShape, float], Curve] = {}
        for stream, share in self.shares.items():
            model, region, tier = stream
            # One level and the same bursts for all regions and both interactive tiers: what moves is a model's use.
            kind = (model, tier.interactive)
            if kind not in chances:
                chances[kind] = self._chance(model, tier, day)
            shape, offset_h = self._workload.shape(tier), self._workload.regions[region].phase_offset_h
            if (shape, offset_h) not in weeks:
                weeks[shape, offset_h] = self._week(shape, offset_h, minute_h)
            scale_per_s = self._workload.mean_requests_per_s * share / self._run_mean(stream)
            planned = weeks[shape, offset_h] * self._steps(model, tier, minute_h)
            yield stream, scale_per_s * planned * chances[kind]

    def _chance(self, model: str, tier: Tier, day: int) -> Curve:
        shape = self._workload.shape(tier)
        name = f"{model}/{'interactive' if tier.interactive else 'niw'}"
        curve = random_level(shape, self._seed, name, day) * bursts(shape, self._seed, name, day)
        regime = self._workload.models[model].regime
        if regime is None or not tier.interactive:
            return curve
        return curve * regime_level(regime, self._seed, name, day)

    def _week(self, shape: LoadShape, offset_h: float, hours: Curve) -> Curve:
        """The weekly curve at `hours` since time 0, in the local time of a region that is `offset_h` ahead."""
        return weekly_curve(shape, self._workload.calendar.start_hour_of_week + hours + offset_h)

    def _steps(self, model: str, tier: Tier, hours: Curve) -> Curve:
        level = np.ones(len(hours))
        for step in self._workload.level_steps:
            if step.touches(model, tier):
                level[hours >= step.at_h] *= step.factor
        return level

    def _run_mean(self, stream: Stream) -> float:
        """Mean planned rate over the run, from time 0 to its horizon, by the midpoint rule in steps of a minute."""
        model, region, tier = stream
        shape, offset_h = self._workload.shape(tier), self._workload.regions[region].phase_offset_h
        stepped = any(step.touches(model, tier) for step in self._workload.level_steps)
        key = (shape, model if stepped else "", offset_h)
        if key not in self._run_means:
            horizon_h = self._workload.horizon_h
            steps = max(MINUTES_PER_DAY, ceil(horizon_h * 60))
            hours = (np.arange(steps) + 0.5) * horizon_h / steps
            mean = (self._week(shape, offset_h, hours) * self._steps(model, tier, hours)).mean()
            self._run_means[key] = float(mean)
        return self._run_means[key]

"""Iterations that take longer or shorter than their profile says, as a machine's do."""

from workloads.seeds import generator


class StepNoise:
    """Factors on iteration times: independent of each other, gamma-distributed with mean 1 and coefficient of variation
    `cv` (above 0). Each server of a seed has its own, the same every time."""

    def __init__(self, cv: float, seed: int, server_id: str) -> None:
        self._shape = 1.0 / cv**2
        self._random = generator(seed, "step noise", server_id)

    def factor(self) -> float:
        """Of the next iteration."""
        return float(self._random.gamma(self._shape, 1.0 / self._shape))

"""The lengths of requests seen lately: their means and spreads by model, in constant memory."""

from collections import deque
from collections.abc import Iterable, Mapping
from math import ceil, sqrt

from testbed.offered_load import LengthMix
from workloads.completion import Completion
from workloads.request import Request, Tier


class _Sums:
    """How many, their tokens, and the squares of these: whole numbers, so that what was added can be taken away."""

    __slots__ = ("output_squares", "output_tokens", "outputs", "prompt_squares", "prompt_tokens", "prompts")

    def __init__(self) -> None:
        self.prompts = 0
        self.prompt_tokens = 0
        self.prompt_squares = 0
        self.outputs = 0
        self.output_tokens = 0
        self.output_squares = 0

    def add(self, other: "_Sums", sign: int = 1) -> None:
        self.prompts += sign * other.prompts
        self.prompt_tokens += sign * other.prompt_tokens
        self.prompt_squares += sign * other.prompt_squares
        self.outputs += sign * other.outputs
        self.output_tokens += sign * other.output_tokens
        self.output_squares += sign * other.output_squares


class LengthMeter:
    """Prompt and output lengths by model over the whole bins of `bin_s` within the last `window_s`.

    Prompts count when the request arrives, outputs when the answer has ended; answers that did not complete do
    not. A tier is part of the mix from the bin after its first request on: one that has fallen silent comes back
    unannounced.
    """

    def __init__(self, models: Iterable[str], *, bin_s: float, window_s: float) -> None:
        self._bins = max(1, ceil(window_s / bin_s - 1e-9))
        self._bin = 0
        self._under_way = {model: _Sums() for model in models}
        self._window = {model: _Sums() for model in self._under_way}
        self._passed: deque[tuple[int, str, _Sums]] = deque()
        self._tiers: dict[str, set[Tier]] = {model: set() for model in self._under_way}
        self._new_tiers: dict[str, set[Tier]] = {model: set() for model in self._under_way}

    def arrived(self, request: Request) -> None:
        tokens = request.prompt_tokens
        sums = self._under_way[request.model]
        sums.prompts += 1
        sums.prompt_tokens += tokens
        sums.prompt_squares += tokens * tokens
        self._new_tiers[request.model].add(request.tier)

    def ended(self, completion: Completion) -> None:
        tokens = completion.output_tokens
        sums = self._under_way[completion.request.model]
        sums.outputs += 1
        sums.output_tokens += tokens
        sums.output_squares += tokens * tokens

    def go_to(self, bin_now: int) -> None:
        """The bin under way has passed; what comes is counted in `bin_now`, a later one."""
        for model, sums in self._under_way.items():
            self._window[model].add(sums)
            self._passed.append((self._bin, model, sums))
            self._under_way[model] = _Sums()
            self._tiers[model] |= self._new_tiers[model]
        while self._passed and self._passed[0][0] < bin_now - self._bins:
            _, model, sums = self._passed.popleft()
            self._window[model].add(sums, -1)
        self._bin = bin_now

    def mix(self, *, least_requests: int) -> Mapping[str, LengthMix]:
        """By model, of the bins that have passed; models with fewer prompts or answers than that are left out."""
        mixes = {}
        for model, seen in self._window.items():
            if min(seen.prompts, seen.outputs) < max(1, least_requests):
                continue
            prompt_mean = seen.prompt_tokens / seen.prompts
            output_mean = seen.output_tokens / seen.outputs
            mixes[model] = LengthMix(
                prompt_mean=prompt_mean,
                prompt_cv=_cv(prompt_mean, seen.prompt_squares / seen.prompts),
                output_mean=output_mean,
                output_cv=_cv(output_mean, seen.output_squares / seen.outputs),
                tiers=frozenset(self._tiers[model]),
            )
        return mixes


def _cv(mean: float, mean_square: float) -> float:
    """Coefficient of variation; rounding may leave a variance a hair below 0."""
    return sqrt(max(0.0, mean_square - mean**2)) / mean if mean > 0 else 0.0

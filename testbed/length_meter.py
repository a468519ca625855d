"""The lengths of requests seen lately: their means and spreads by model, in constant memory."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, sqrt

from testbed.offered_load import LengthMix
from workloads.completion import Completion
from workloads.request import Request, Tier


@dataclass(slots=True, kw_only=True)
class _Sums:
    """Of one model in one bin: how many, their tokens, and the squares of these."""

    bin: int
    prompts: int = 0
    prompt_tokens: float = 0.0
    prompt_squares: float = 0.0
    outputs: int = 0
    output_tokens: float = 0.0
    output_squares: float = 0.0


class LengthMeter:
    """Prompt and output lengths by model over the whole bins of `bin_s` within the last `window_s`.

    Prompts count when the request arrives, outputs when the answer has ended; answers without a token do not count.
    A tier is part of the mix from its first request on: one that has fallen silent comes back unannounced.
    """

    def __init__(self, models: Iterable[str], *, bin_s: float, window_s: float) -> None:
        self._bin_s = bin_s
        self._bins = max(1, ceil(window_s / bin_s - 1e-9))
        self._sums: dict[str, deque[_Sums]] = {model: deque() for model in models}
        self._tiers: dict[str, dict[Tier, int]] = {model: {} for model in self._sums}

    def arrived(self, request: Request, at_bin: int) -> None:
        sums = self._at(request.model, at_bin)
        sums.prompts += 1
        sums.prompt_tokens += request.prompt_tokens
        sums.prompt_squares += request.prompt_tokens**2
        self._tiers[request.model].setdefault(request.tier, at_bin)

    def ended(self, completion: Completion, at_bin: int) -> None:
        sums = self._at(completion.request.model, at_bin)
        sums.outputs += 1
        sums.output_tokens += completion.output_tokens
        sums.output_squares += completion.output_tokens**2

    def mix(self, before_bin: int, *, least_requests: int) -> Mapping[str, LengthMix]:
        """By model, of the bins before `before_bin`; models with fewer prompts or answers than that are left out."""
        mixes = {}
        for model, kept in self._sums.items():
            seen = [sums for sums in kept if before_bin - self._bins <= sums.bin < before_bin]
            prompts, outputs = sum(s.prompts for s in seen), sum(s.outputs for s in seen)
            if min(prompts, outputs) < max(1, least_requests):
                continue
            prompt_mean = sum(s.prompt_tokens for s in seen) / prompts
            output_mean = sum(s.output_tokens for s in seen) / outputs
            mixes[model] = LengthMix(
                prompt_mean=prompt_mean,
                prompt_cv=_cv(prompt_mean, sum(s.prompt_squares for s in seen) / prompts),
                output_mean=output_mean,
                output_cv=_cv(output_mean, sum(s.output_squares for s in seen) / outputs),
                tiers=frozenset(tier for tier, since in self._tiers[model].items() if since < before_bin),
            )
        return mixes

    def _at(self, model: str, at_bin: int) -> _Sums:
        """The sums of a bin; bins come in order, and those that no window can reach any more go."""
        kept = self._sums[model]
        if not kept or kept[-1].bin < at_bin:
            kept.append(_Sums(bin=at_bin))
            while kept[0].bin < at_bin - self._bins:
                kept.popleft()
        return kept[-1]


def _cv(mean: float, mean_square: float) -> float:
    """Coefficient of variation; rounding may leave a variance a hair below 0."""
    return sqrt(max(0.0, mean_square - mean**2)) / mean if mean > 0 else 0.0

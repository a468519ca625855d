"""The capacity of a server taken apart: what a prompt token costs of it and what an output token costs.

At mean lengths p and o a server sustains R(p, o) requests/s within its SLO (`profiler.capacity`), so a request takes
S(p, o) = 1 / R(p, o) server-seconds. Along S's slopes at the mix, a per prompt token and b per output token,

    servers = (prompt tokens/s) / prefill + (output tokens/s) / decode,   1 / prefill = c a,   1 / decode = c b

with c such that the sum is exact at the mix, c (a p + b o) = S(p, o). (S is not linear: a request has costs of its own,
and waiting grows faster than load. Its tangent alone would miss them.) Near the mix it is right to first order in the
share of prompts; a change of all lengths by a common factor is off by as much as S is from growing in proportion.
"""

from collections.abc import Callable
from dataclasses import dataclass

from profiler.capacity import Theta, theta_tokens_per_s
from profiler.profile import ServerProfile

_STEP = 0.05
"""Relative change of a mean length that slopes are taken over."""
_LEAST_SHARE = 0.01
"""A token costs at least this share of the average token: no kind of token is free, whatever binds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixCapacity:
    """One server at one length mix, where it sustains `theta`. `prefill_tokens_per_s`: prompt tokens/s that would fill
    it with nothing to decode; `decode_tokens_per_s`: output tokens/s with no prompts; both linear from the mix.
    """

    theta: Theta
    prefill_tokens_per_s: float
    decode_tokens_per_s: float

    def servers(self, prompt_tokens_per_s: float, output_tokens_per_s: float) -> float:
        """How many servers such a load takes; a fraction."""
        return prompt_tokens_per_s / self.prefill_tokens_per_s + output_tokens_per_s / self.decode_tokens_per_s


def mix_capacity(
    profile: ServerProfile,
    prompt_tokens_mean: float,
    output_tokens_mean: float,
    ttft_s: float | None,
    tpot_s: float | None = None,
    *,
    prompt_cv: float = 1.0,
    output_cv: float = 1.0,
    extrapolate: bool = False,
) -> MixCapacity:
    """The capacity at this mix, arguments as those of `theta_tokens_per_s`, and split into its two parts.

    Raises ValueError where `theta_tokens_per_s` does at the mix itself. Where it does beside the mix (longer prompts
    would miss the SLO), the slope is taken on the side where it does not.
    """

    def theta_at(prompt: float, output: float) -> Theta:
        return theta_tokens_per_s(
            profile,
            prompt,
            output,
            ttft_s,
            tpot_s,
            prompt_cv=prompt_cv,
            output_cv=output_cv,
            extrapolate=extrapolate,
        )

    p, o = prompt_tokens_mean, output_tokens_mean
    theta = theta_at(p, o)
    per_request_s = 1.0 / theta.requests_per_s
    average_s = per_request_s / (p + o)
    per_prompt_s = _slope(lambda length: 1.0 / theta_at(length, o).requests_per_s, p, per_request_s)
    per_output_s = _slope(lambda length: 1.0 / theta_at(p, length).requests_per_s, o, per_request_s)
    per_prompt_s = max(per_prompt_s, _LEAST_SHARE * average_s)
    per_output_s = max(per_output_s, _LEAST_SHARE * average_s)
    to_be_exact = per_request_s / (per_prompt_s * p + per_output_s * o)
    return MixCapacity(
        theta=theta,
        prefill_tokens_per_s=1.0 / (to_be_exact * per_prompt_s),
        decode_tokens_per_s=1.0 / (to_be_exact * per_output_s),
    )


def _slope(seconds: Callable[[float], float], length: float, at_length: float) -> float:
    """d seconds / d length at a length where it is known: central, else one-sided; 0 where neither side is feasible."""
    seen = [(length, at_length)]
    for beside in (max(1.0, length * (1 - _STEP)), length * (1 + _STEP)):
        try:
            seen.append((beside, seconds(beside)))
        except ValueError:  # the SLO or the context does not allow this length
            continue
    (short, at_short), (long, at_long) = min(seen), max(seen)
    return (at_long - at_short) / (long - short) if long > short else 0.0

"""theta: the tokens/s that one server sustains within its SLO.

theta is prompt + output tokens times the largest rate at which the server settles (see `steady_state`) and every limit
holds. The tail of TTFT is exponential, as Kingman's heavy-traffic limit has it (Proc. Camb. Phil. Soc. 57, 1961): its
p95 is ln 20 times the mean. Only the request's own prefill may spread less than that, as much as prompts do.
"""

import math
from dataclasses import dataclass
from typing import Literal

from profiler.profile import ServerProfile
from profiler.steady_state import HALVINGS, Lengths, SteadyState, largest_rate, steady_state

Binding = Literal["compute", "max_num_batched_tokens", "kv_cache", "max_num_seqs", "tpot", "ttft", "domain"]

P95_OF_EXPONENTIAL = math.log(20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Theta:
    """What one server sustains, and what stops it from more.

    `theta_tokens_per_s` counts prompt and output tokens. `saturated_tokens_per_s`: what it serves while requests queue,
    filled and with TPOT within its limit, however long first tokens take. `concurrency`: requests in flight, waiting
    ones included. `kv_cache_usage`: fraction 0..1 of the KV cache in use on average.
    `tpot_s` is the length of an iteration at mean load; on simulated servers sequences gather where iterations are
    long, and see 15 to 60 % more.
    """

    theta_tokens_per_s: float
    saturated_tokens_per_s: float
    requests_per_s: float
    concurrency: float
    binds: Binding
    tpot_s: float
    ttft_mean_s: float
    ttft_p95_s: float
    kv_cache_usage: float


def theta_tokens_per_s(
    profile: ServerProfile,
    prompt_tokens_mean: float,
    output_tokens_mean: float,
    ttft_s: float | None,
    tpot_s: float | None = None,
    *,
    prompt_cv: float = 1.0,
    output_cv: float = 1.0,
    fill_max: float = 0.9,
    extrapolate: bool = False,
) -> Theta:
    """The largest load that one server of `profile` takes with p95 TTFT within `ttft_s` and TPOT within `tpot_s`.

    Lengths are means, `*_cv` their coefficients of variation (1: exponential; real traces lie near it). The largest
    rate that settles, the KV cache and max_num_seqs are used up to the fraction `fill_max`: load fluctuates around its
    mean, and at 1 the queue has no end. A measured profile is not used beyond its domain unless `extrapolate`; where
    that is the limit, `binds` says "domain". A limit of None leaves that latency free.

    Raises ValueError when lengths are below 1 or above the model's context, for a `fill_max` that is not within 0..1,
    and when requests on an idle server already miss the SLO (a p95 prompt its TTFT).
    """
    longest = profile.engine.max_model_len or math.inf
    if not (prompt_tokens_mean >= 1 and output_tokens_mean >= 1 and prompt_tokens_mean + output_tokens_mean <= longest):
        raise ValueError(
            f"profile {profile.name}: {prompt_tokens_mean:g} prompt and {output_tokens_mean:g} output tokens; both must"
            f" be at least 1 and together at most max_model_len={longest:g}"
        )
    if not 0 < fill_max < 1:
        raise ValueError(f"fill_max={fill_max}; must lie between 0 and 1")
    lengths = Lengths(
        prompt_tokens=prompt_tokens_mean, output_tokens=output_tokens_mean, prompt_cv=prompt_cv, output_cv=output_cv
    )
    most, most_by = largest_rate(profile, lengths)
    domain = None if extrapolate else profile.domain

    def exceeded(state: SteadyState, fill: float, ttft_limit_s: float) -> Binding | None:
        checks: list[tuple[Binding, float, float]] = [
            ("max_num_seqs", state.running_seqs, fill * profile.engine.max_num_seqs),
            ("kv_cache", state.kv_tokens, fill * profile.kv_cache.max_tokens),
            ("tpot", state.tau_s, tpot_s or math.inf),
            ("ttft", ttft_p95_s(state, lengths), ttft_limit_s),
            (most_by, state.busy, fill),
        ]
        if domain is not None:
            checks.append(("domain", state.decode_seqs, domain.decode_seqs[1]))
            checks.append(("domain", state.decode_kv_tokens, domain.kv_tokens[1]))
        return next((name for name, value, limit in checks if value > limit), None)

    def largest(fits: float, fill: float, ttft_limit_s: float) -> tuple[float, Binding]:
        """The largest rate from `fits`, which is within the limits, and what stops more."""
        exceeds = most
        binds: Binding = most_by
        for _ in range(HALVINGS):
            middle = 0.5 * (fits + exceeds)
            stopped_by = exceeded(steady_state(profile, lengths, middle, most), fill, ttft_limit_s)
            if stopped_by is None:
                fits = middle
            else:
                exceeds, binds = middle, stopped_by
        return fits, binds

    # Even a rate of next to nothing must be within the limits: what it then misses, it misses on an idle server.
    nothing, strictest_s = 1e-6 * most, ttft_s or math.inf
    missed = exceeded(steady_state(profile, lengths, nothing, most), fill_max, strictest_s)
    if missed is not None:
        raise ValueError(
            f"profile {profile.name}: requests of {prompt_tokens_mean:g} + {output_tokens_mean:g} tokens (prompt_cv="
            f"{prompt_cv:g}) exceed {missed} even on an idle server (p95: ttft_s={ttft_s}, tpot_s={tpot_s});"
            " loosen the SLO, or take shorter prompts or a faster server"
        )
    fits, binds = largest(nothing, fill_max, strictest_s)
    saturated, _ = largest(fits, 1.0, math.inf)
    state = steady_state(profile, lengths, fits, most)
    tokens = prompt_tokens_mean + output_tokens_mean
    return Theta(
        theta_tokens_per_s=fits * tokens,
        saturated_tokens_per_s=saturated * tokens,
        requests_per_s=fits,
        concurrency=fits * (state.ttft_mean_s + lengths.decode_steps * state.tau_s),
        binds=binds,
        tpot_s=state.tau_s,
        ttft_mean_s=state.ttft_mean_s,
        ttft_p95_s=ttft_p95_s(state, lengths),
        kv_cache_usage=state.kv_tokens / profile.kv_cache.max_tokens,
    )


def ttft_p95_s(state: SteadyState, lengths: Lengths) -> float:
    """p95 of the time to the first token: exact for exponential prompts in M/M/1, and for constant ones alone."""
    own_spread = 1 + (P95_OF_EXPONENTIAL - 1) * lengths.prompt_cv
    return P95_OF_EXPONENTIAL * state.wait_mean_s + own_spread * state.own_prefill_s + state.crowd_overhead_s

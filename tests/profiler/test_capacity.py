from collections import deque

import numpy as np
import pytest

from profiler.analytical import analytical_profile
from profiler.capacity import Theta, theta_tokens_per_s
from profiler.gpu_types import A100_80GB, H100
from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, LLAMA_3_1_8B
from profiler.profile import ServerProfile
from profiler.profile_parts import CrowdedRequest, Domain
from profiler.steady_state import Lengths, largest_rate, steady_state

SMALL = analytical_profile(LLAMA_3_1_8B, H100, 1)
LARGE = analytical_profile(LLAMA_2_70B, H100, 4)


def p95_ttft_s(profile: ServerProfile, requests_per_s: float, prompt: int, output: int, requests: int) -> float:
    """Continuous batching of vLLM, one iteration at a time: Poisson arrivals, exponential prompts."""
    rng = np.random.default_rng(7)
    arrivals = deque(np.cumsum(rng.exponential(1 / requests_per_s, requests)).tolist())
    waiting: deque[list[float]] = deque()  # arrival, prompt tokens, tokens done
    running: list[list[float]] = []  # steps left, context
    now, ttfts = 0.0, []
    while arrivals or waiting or running:
        if not waiting and not running:
            now = max(now, arrivals[0])
        while arrivals and arrivals[0] <= now:
            waiting.append([arrivals.popleft(), max(1, round(rng.exponential(prompt))), 0])
        budget = profile.engine.max_num_batched_tokens - len(running)
        tokens = pairs = 0.0
        started = []
        while waiting and budget > 0 and len(running) + len(started) < profile.engine.max_num_seqs:
            arrival, length, done = waiting[0]
            chunk = min(budget, length - done)
            pairs += chunk * (done + chunk / 2)
            tokens, budget = tokens + chunk, budget - chunk
            waiting[0][2] += chunk
            if waiting[0][2] < length:
                break
            waiting.popleft()
            started.append((arrival, length))
        now += profile.step_time.step_s(tokens, pairs, len(running), sum(context for _, context in running))
        running = [[left - 1, context + 1] for left, context in running if left > 1]
        ttfts += [now - arrival for arrival, _ in started]
        running += [[output - 1, length] for _, length in started if output > 1]
    return float(np.quantile(ttfts[requests // 10 :], 0.95))


@pytest.mark.parametrize(("profile", "prompt"), [(SMALL, 4000), (LARGE, 1500)], ids=["8b", "70b"])
def test_a_simulated_server_meets_its_slo_at_theta_and_misses_it_well_beyond(
    profile: ServerProfile, prompt: int
) -> None:
    theta = theta_tokens_per_s(profile, prompt, 40, 1.0, prompt_cv=1.0, output_cv=0.0)
    assert theta.binds == "ttft"
    assert 0.6 < p95_ttft_s(profile, 0.9 * theta.requests_per_s, prompt, 40, 8000) < 1.0
    assert p95_ttft_s(profile, 1.2 * theta.requests_per_s, prompt, 40, 8000) > 1.0


def test_overhead_that_grows_with_the_sequences_takes_its_time_of_the_slo() -> None:
    most = CrowdedRequest(decode_seqs=256, overhead_s=256 * 2e-3, n=30)
    crowded = SMALL.model_copy(update={"crowded_requests": (most,)})
    free, bound = (theta_tokens_per_s(profile, 1000, 200, 0.5) for profile in (SMALL, crowded))
    assert (bound.binds, bound.requests_per_s < free.requests_per_s) == ("ttft", True)
    same_rate = steady_state(
        SMALL,
        lengths := Lengths(prompt_tokens=1000, output_tokens=200, prompt_cv=1.0, output_cv=1.0),
        bound.requests_per_s,
        largest_rate(SMALL, lengths)[0],
    )
    assert bound.ttft_mean_s == pytest.approx(same_rate.ttft_mean_s + 2e-3 * same_rate.decode_seqs)


@pytest.mark.parametrize(("slo", "tightest"), [((0.3, None), "ttft"), ((5.0, None), "max_num_seqs")])
def test_while_requests_queue_a_server_is_filled_and_no_first_token_is_waited_for(slo, tightest) -> None:
    few = SMALL.model_copy(update={"engine": SMALL.engine.model_copy(update={"max_num_seqs": 16})})
    theta, patient = theta_tokens_per_s(few, 1000, 200, *slo), theta_tokens_per_s(few, 1000, 200, None, fill_max=0.9999)
    assert theta.binds == tightest
    assert theta.theta_tokens_per_s < 0.95 * theta.saturated_tokens_per_s
    assert theta.saturated_tokens_per_s == pytest.approx(patient.theta_tokens_per_s, rel=1e-3)


def test_however_long_requests_queue_a_server_serves_no_more_than_its_tpot_allows() -> None:
    theta = theta_tokens_per_s(SMALL, 1000, 200, 5.0, 0.02)
    assert theta.binds == "tpot"
    assert theta.saturated_tokens_per_s == pytest.approx(theta.theta_tokens_per_s)
    hurried = theta_tokens_per_s(SMALL, 1000, 200, 0.3, 0.02)
    assert hurried.binds == "ttft"
    assert hurried.theta_tokens_per_s < hurried.saturated_tokens_per_s == pytest.approx(theta.theta_tokens_per_s)


def test_theta_counts_prompt_and_output_tokens() -> None:
    theta = theta_tokens_per_s(SMALL, 1000, 200, 1.0)
    assert theta.theta_tokens_per_s == pytest.approx(1200 * theta.requests_per_s)


def test_a_looser_slo_never_lowers_theta_and_a_faster_gpu_raises_it() -> None:
    thetas = [theta_tokens_per_s(LARGE, 2000, 200, slo).theta_tokens_per_s for slo in (0.5, 1.0, 5.0, 60.0)]
    assert thetas == sorted(thetas)
    a100 = analytical_profile(LLAMA_2_70B, A100_80GB, 4)
    assert theta_tokens_per_s(a100, 2000, 200, 60.0).theta_tokens_per_s < thetas[-1]


def test_bloom_without_grouped_queries_is_bound_by_its_kv_cache() -> None:
    theta = theta_tokens_per_s(analytical_profile(BLOOM_176B, H100, 8), 1500, 300, 60.0)
    assert theta.binds == "kv_cache"
    assert 0.75 < theta.kv_cache_usage <= 0.9


def test_few_sequences_bind_before_anything_else() -> None:
    profile = analytical_profile(LLAMA_3_1_8B, H100, 1, max_num_seqs=4)
    theta = theta_tokens_per_s(profile, 200, 400, 60.0)
    assert theta.binds == "max_num_seqs"
    assert theta.concurrency == pytest.approx(0.9 * 4, rel=0.2)


def test_a_tight_tpot_binds_and_is_met() -> None:
    theta = theta_tokens_per_s(SMALL, 1000, 400, 60.0, 0.015)
    assert theta.binds == "tpot"
    assert theta.tpot_s == pytest.approx(0.015, rel=1e-6)


def test_prompts_alone_without_a_slo_are_bound_by_computing() -> None:
    theta = theta_tokens_per_s(LARGE, 2000, 1, None)
    assert theta.binds in {"compute", "max_num_batched_tokens"}
    nine_tenths_of_a_full_batch = 0.9 * 8192 / LARGE.step_time.step_s(8192, 8192 * 2000, 0, 0)
    assert theta.theta_tokens_per_s == pytest.approx(nine_tenths_of_a_full_batch, rel=0.1)


def test_requests_in_flight_follow_littles_law() -> None:
    theta: Theta = theta_tokens_per_s(SMALL, 1000, 200, 1.0)
    in_server_s = theta.ttft_mean_s + 199 * theta.tpot_s
    assert theta.concurrency == pytest.approx(theta.requests_per_s * in_server_s)


def test_more_variable_prompts_lower_theta() -> None:
    even, spread = (theta_tokens_per_s(LARGE, 2000, 100, 1.0, prompt_cv=cv).theta_tokens_per_s for cv in (0.0, 1.5))
    assert spread < even


def test_a_measured_profile_stays_in_its_domain_unless_asked_by_name() -> None:
    domain = Domain(prefill_tokens=(0, 8192), prefill_pairs=(0, 4e7), decode_seqs=(0, 8), kv_tokens=(0, 400_000))
    measured = SMALL.model_copy(update={"domain": domain})
    inside = theta_tokens_per_s(measured, 500, 300, 60.0)
    assert inside.binds == "domain"
    assert theta_tokens_per_s(measured, 500, 300, 60.0, extrapolate=True) == theta_tokens_per_s(SMALL, 500, 300, 60.0)
    assert inside.theta_tokens_per_s < theta_tokens_per_s(SMALL, 500, 300, 60.0).theta_tokens_per_s


def test_a_slo_that_an_idle_server_misses_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match="exceed ttft even on an idle server"):
        theta_tokens_per_s(LARGE, 3500, 200, 0.1)
    with pytest.raises(ValueError, match="exceed tpot"):
        theta_tokens_per_s(LARGE, 1000, 200, 1.0, 0.005)


def test_requests_longer_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="max_model_len=4096"):
        theta_tokens_per_s(LARGE, 4000, 200, 1.0)

"""The batch at which a server settles under a constant rate of requests, and how long a first token takes there.

At r requests/s an iteration of tau seconds prefills the r tau prompts that arrived meanwhile and decodes the
B = r (o - 1) tau sequences that Little's law leaves in flight, so tau solves tau = step_s(r p tau, ..., B, KV).
Prompts come whole: below one prompt per iteration, some iterations carry a prompt and the others none, and tau is
their mean. (Prefill spread evenly would hide behind reading the weights, and tau come out two times too short.)

Queueing for the first token is M/G/1 on the prefill work, by Pollaczek and Khinchine (Kleinrock, Queueing Systems I,
5.6), where the server's utilisation is the rate over the largest one that settles at all.
"""

from dataclasses import dataclass
from typing import Literal

from profiler.iteration_times import IterationTimes, prefill_pairs
from profiler.profile import ServerProfile

HALVINGS = 60

Unsettled = Literal["compute", "max_num_batched_tokens", "max_num_seqs", "kv_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Mean tokens of requests and their coefficients of variation; prompts and outputs independent of each other."""

    prompt_tokens: float
    output_tokens: float
    prompt_cv: float
    output_cv: float

    @property
    def decode_steps(self) -> float:
        """Iterations after the prefill, which gives the first token itself."""
        return self.output_tokens - 1

    @property
    def context_tokens(self) -> float:
        """KV tokens of a sequence seen at a moment; long answers are seen more: E[o^2] / (2 E[o]) beside the prompt."""
        return self.prompt_tokens + 0.5 * self.output_tokens * (1 + self.output_cv**2)

    @property
    def pairs_per_request(self) -> float:
        return prefill_pairs(self.prompt_tokens) * (1 + self.prompt_cv**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """`busy` is the utilisation of the server, 0..1; `decode_*` the decoding sequences alone; others add prefill.

    `own_prefill_s` holds the request's overhead on an idle server, `crowd_overhead_s` what the others add to that.
    """

    tau_s: float
    busy: float
    decode_seqs: float
    decode_kv_tokens: float
    running_seqs: float
    kv_tokens: float
    wait_mean_s: float
    own_prefill_s: float
    crowd_overhead_s: float

    @property
    def ttft_mean_s(self) -> float:
        return self.wait_mean_s + self.own_prefill_s + self.crowd_overhead_s


def longest_iteration_s(profile: ServerProfile, lengths: Lengths, requests_per_s: float) -> tuple[float, Unsettled]:
    """How long an iteration may last before more work arrives in it than one can take, and which limit says so."""
    r, steps = requests_per_s, lengths.decode_steps
    limits: list[tuple[float, Unsettled]] = [
        (profile.engine.max_num_batched_tokens / (r * (lengths.prompt_tokens + steps)), "max_num_batched_tokens")
    ]
    if steps > 0:
        limits.append((profile.engine.max_num_seqs / (r * steps), "max_num_seqs"))
        limits.append((profile.kv_cache.max_tokens / (r * steps * lengths.context_tokens), "kv_cache"))
    return min(limits)


def iteration_s(
    times: IterationTimes, max_num_batched_tokens: int, lengths: Lengths, requests_per_s: float, tau_s: float
) -> float:
    """Mean length of an iteration whose batch is what arrives in `tau_s`; convex in `tau_s`."""
    decode_seqs = requests_per_s * lengths.decode_steps * tau_s
    kv_tokens = decode_seqs * lengths.context_tokens
    due_tokens = requests_per_s * lengths.prompt_tokens * tau_s
    chunk_tokens = max(due_tokens, min(lengths.prompt_tokens, max_num_batched_tokens))
    chunk_pairs = chunk_tokens * lengths.pairs_per_request / lengths.prompt_tokens
    with_prompt_s = times.step_s(chunk_tokens, chunk_pairs, decode_seqs, kv_tokens)
    without_s = times.step_s(0.0, 0.0, decode_seqs, kv_tokens)
    return without_s + (with_prompt_s - without_s) * due_tokens / chunk_tokens


def unsettled_by(profile: ServerProfile, lengths: Lengths, requests_per_s: float) -> Unsettled | None:
    """What keeps a rate from settling, None when nothing does."""
    longest_s, limit = longest_iteration_s(profile, lengths, requests_per_s)
    times, batched_tokens = profile.step_time.iterations(), profile.engine.max_num_batched_tokens
    at_limit_s = iteration_s(times, batched_tokens, lengths, requests_per_s, longest_s)
    if at_limit_s <= longest_s:
        return None
    # Convex: where it grows at a slope of 1 or more it never comes back, and no looser limit would help.
    slope = iteration_s(times, batched_tokens, lengths, requests_per_s, 2 * longest_s) - at_limit_s
    return "compute" if slope >= longest_s else limit


def largest_rate(profile: ServerProfile, lengths: Lengths) -> tuple[float, Unsettled]:
    """The rate in requests/s beyond which the server no longer settles, and what stops it there."""
    high = 1.0
    while unsettled_by(profile, lengths, high) is None:
        high *= 2.0
    low, limit = 0.0, unsettled_by(profile, lengths, high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        stopped_by = unsettled_by(profile, lengths, middle)
        if stopped_by is None:
            low = middle
        else:
            high, limit = middle, stopped_by
    return low, limit or "compute"


def steady_state(
    profile: ServerProfile, lengths: Lengths, requests_per_s: float, largest_requests_per_s: float
) -> SteadyState:
    """Where the server settles at a rate below `largest_requests_per_s`, which `largest_rate` tells."""
    r = requests_per_s
    times, batched_tokens = profile.step_time.iterations(), profile.engine.max_num_batched_tokens
    low_s, tau_s = 0.0, longest_iteration_s(profile, lengths, r)[0]
    # Convex and positive at 0, it meets the diagonal once below the limit: where a server that starts empty settles.
    for _ in range(HALVINGS):
        middle_s = 0.5 * (low_s + tau_s)
        if iteration_s(times, batched_tokens, lengths, r, middle_s) > middle_s:
            low_s = middle_s
        else:
            tau_s = middle_s
    decode_seqs = r * lengths.decode_steps * tau_s
    decode_kv_tokens = decode_seqs * lengths.context_tokens
    budget_tokens = batched_tokens - decode_seqs

    # With prompts waiting, iterations are full; a prompt's service is its share of them, and its own pairs.
    full_s = times.step_s(budget_tokens, 0.0, decode_seqs, decode_kv_tokens)
    linear_s = full_s / budget_tokens * lengths.prompt_tokens
    quadratic_s = times.per_prefill_pair_s * prefill_pairs(lengths.prompt_tokens)
    # Moments of gamma-distributed lengths: E[p^k] = p^k (1 + c^2)(1 + 2 c^2)...(1 + (k-1) c^2).
    scv = lengths.prompt_cv**2
    second, third = 1 + scv, (1 + scv) * (1 + 2 * scv)
    service_squared = linear_s**2 * second + 2 * linear_s * quadratic_s * third + quadratic_s**2 * third * (1 + 3 * scv)
    busy = max(r / largest_requests_per_s, r * (linear_s + quadratic_s * second))
    idle = max(1 - busy, 1e-9)  # at the largest rate itself the queue has no end
    queue_s = r * service_squared / (2 * idle)
    # A first token comes when its iteration ends, half of one after its own prompt is through. Prompts that came during
    # one iteration share the next: as in a busy period, 1 / (1 - busy) of them.
    shared_tokens = min(budget_tokens, lengths.prompt_tokens / idle)
    shared_s = times.step_s(
        shared_tokens,
        shared_tokens * lengths.pairs_per_request / lengths.prompt_tokens,
        decode_seqs,
        decode_kv_tokens,
    )
    chunks = max(1.0, lengths.prompt_tokens / budget_tokens)
    own_s = (profile.request_overhead_s or 0.0) + chunks * times.step_s(
        lengths.prompt_tokens / chunks, lengths.pairs_per_request / chunks, decode_seqs, decode_kv_tokens
    )
    prefilling = r * own_s
    return SteadyState(
        tau_s=tau_s,
        busy=busy,
        decode_seqs=decode_seqs,
        decode_kv_tokens=decode_kv_tokens,
        running_seqs=decode_seqs + prefilling,
        kv_tokens=decode_kv_tokens + prefilling * lengths.prompt_tokens,
        wait_mean_s=queue_s + 0.5 * idle * tau_s + 0.5 * busy * shared_s,
        own_prefill_s=own_s,
        crowd_overhead_s=profile.request_overhead_among_s(decode_seqs) - profile.request_overhead_among_s(0),
    )

"""What a profile says of a single request and of a steady batch: the first token, the gap between tokens.

Each may lie beyond what was measured, or beyond what the server holds: ask first.
"""

from typing import Literal

from profiler.profile import OutsideDomainError, ServerProfile
from profiler.step_time import prefill_pairs

Beyond = Literal["domain", "server"]


def first_token_s(profile: ServerProfile, prompt_tokens: float) -> float:
    """Seconds from sending a prompt to an idle server until its first token, the request's own overhead included.

    A prompt longer than max_num_batched_tokens takes several iterations, all but the last of them full.
    """
    chunks = _chunks(profile, prompt_tokens)
    return (profile.request_overhead_s or 0.0) + sum(
        profile.step_time.step_s(new, pairs, 0, 0) for new, pairs in chunks
    )


def inter_token_s(profile: ServerProfile, decode_seqs: float, context_tokens: float) -> float:
    """Seconds of an iteration that decodes `decode_seqs` sequences, each reading `context_tokens` of KV cache."""
    return profile.step_time.step_s(0, 0, decode_seqs, decode_seqs * context_tokens)


def prompt_is_beyond(profile: ServerProfile, prompt_tokens: float) -> Beyond | None:
    """ "server": the prompt and one token of an answer do not fit. "domain": its iterations were never measured."""
    room = min(profile.engine.max_model_len or profile.kv_cache.max_tokens, profile.kv_cache.max_tokens)
    if prompt_tokens + 1 > room:
        return "server"
    chunks = _chunks(profile, prompt_tokens)
    return None if all(_within(profile, prefill_tokens=new, prefill_pairs=pairs) for new, pairs in chunks) else "domain"


def batch_is_beyond(profile: ServerProfile, decode_seqs: float, context_tokens: float) -> Beyond | None:
    """ "server": such a batch does not fit. "domain": none like it was measured."""
    widest = min(profile.engine.max_num_seqs, profile.engine.max_num_batched_tokens)
    longest = profile.engine.max_model_len or profile.kv_cache.max_tokens
    kv_tokens = decode_seqs * context_tokens
    if decode_seqs > widest or context_tokens > longest or kv_tokens > profile.kv_cache.max_tokens:
        return "server"
    return None if _within(profile, decode_seqs=decode_seqs, kv_tokens=kv_tokens) else "domain"


def _chunks(profile: ServerProfile, prompt_tokens: float) -> list[tuple[float, float]]:
    """New tokens and query-key pairs of each iteration of a prompt."""
    found, done = [], 0.0
    while done < prompt_tokens:
        new = min(profile.engine.max_num_batched_tokens, prompt_tokens - done)
        found.append((new, prefill_pairs(new, done)))
        done += new
    return found


def _within(profile: ServerProfile, **batch: float) -> bool:
    try:
        profile.require_within_domain(**batch)
    except OutsideDomainError:
        return False
    return True

"""NIW in the valleys: capacity for it only once its deadlines cannot be met with what interactive demand leaves."""

from controller.types import Observation


def batch_tokens_per_s(
    seen: Observation, model: str, *, spare_tokens_per_s: float, margin_s: float, undated_s: float
) -> float:
    """Capacity to add for the NIW backlog of `model`, tokens/s: 0 while spare capacity will do it in time.

    The rate that meets every deadline is the largest of (tokens due by d) / (time to d), `margin_s` kept; what
    exceeds `spare_tokens_per_s`, the capacity that interactive demand leaves on average, must be bought. Tokens without
    a known deadline count as due `undated_s` from now.
    """
    due = seen.niw_due.get(model, ())
    dated = sum(tokens for _, tokens in due)
    undated = max(0.0, seen.niw_queued_tokens.get(model, 0) - dated)
    waiting = sorted([*due, (seen.at_s + undated_s, undated)])
    rate = total = 0.0
    for due_s, tokens in waiting:
        total += tokens
        rate = max(rate, total / max(due_s - seen.at_s - margin_s, margin_s))
    return max(0.0, rate - max(0.0, spare_tokens_per_s))

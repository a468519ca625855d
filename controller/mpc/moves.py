"""From the counts that stand to those that are wanted: what is new first, and nothing goes before it is replaced."""

from collections.abc import Mapping

from controller.draft import PlanDraft
from controller.types import Placement

_NOISE = 1e-6


def move(
    draft: PlanDraft,
    counts: Mapping[Placement, int],
    thetas: Mapping[Placement, float],
    wanted_tokens_per_s: Mapping[str, float],
    words: Mapping[str, str],
) -> None:
    """Bring `draft` to `counts` as far as free GPUs, minimums and service allow; `words`: the reason, by model.

    An exchange of GPU types or regions keeps the old server until the new one is READY: READY servers go only while
    those that stay take what is wanted (or all that `counts` can take, where that is less), and while their silo
    keeps its minimum of READY ones. STARTING servers go first and are missed by nobody.
    """
    order = [p for silo in draft.silos.values() for p in silo if p in counts]
    for p in order:
        if draft.counts[p] < counts[p]:
            draft.add(p, counts[p] - draft.counts[p], f"{counts[p]} wanted: {words[p.model]}")
    ready = {p: draft.state(p).ready for p in order}
    for model in draft.limits.models:
        own = [p for p in order if p.model == model]
        reach = sum(counts[p] * thetas[p] for p in own)
        must_tokens_per_s = min(wanted_tokens_per_s.get(model, 0.0), reach) * (1 - _NOISE)
        for p in reversed(own):
            leave = _leaving(draft, p, counts[p], own, ready, thetas, must_tokens_per_s)
            removed = draft.remove(p, leave, f"{counts[p]} wanted: {words[model]}")
            ready[p] = min(ready[p], draft.counts[p]) if removed else ready[p]


def _leaving(
    draft: PlanDraft,
    p: Placement,
    wanted: int,
    own: list[Placement],
    ready: Mapping[Placement, int],
    thetas: Mapping[Placement, float],
    must_tokens_per_s: float,
) -> int:
    """How many servers of `p` above `wanted` may go so that enough stays that is READY."""
    surplus = max(0, draft.counts[p] - wanted)
    starting = draft.counts[p] - ready[p]
    others = sum(ready[q] for q in own if q.silo == p.silo and q != p)
    elsewhere_tokens_per_s = sum(ready[q] * thetas[q] for q in own if q != p)
    leave = min(surplus, starting)
    while leave < surplus:
        stays = draft.counts[p] - leave - 1
        if stays + others < draft.limits.min_servers:
            break
        if elsewhere_tokens_per_s + stays * thetas[p] < must_tokens_per_s:
            break
        leave += 1
    return leave

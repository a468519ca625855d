"""What live service says: the share of requests that missed, and how many tokens/s a server really sustains."""

from dataclasses import dataclass

from controller.mpc.leads import stay_s
from controller.mpc.outlook import ModelPast
from controller.types import Observation

LEAST_RATIO, MOST_RATIO = 0.7, 1.3
HIGH_LOAD = 0.7
"""Misses at a load below this share of capacity have other causes than too few servers."""
_WEIGHT = 0.1
_UNAVOIDABLE_WEIGHT = 0.02
_SMALL_MISS = 0.5
"""Times the budget: a step with a smaller share of misses met its SLO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How one model fared since the last decision.

    `steps`: how many steps of the policy's grid that was; `missed_share` (0..1) of the interactive requests that ended,
    None where none did. `load`: the highest in service over the capacity of the READY servers, by profile. `ready`:
    there are such servers. `after_queue`: some of those who ended may have waited in a queue of before.
    """

    steps: float
    missed_share: float | None
    load: float
    ready: bool = True
    after_queue: bool = False


def service_of(
    seen: Observation, model: str, past: ModelPast, *, since_s: float, queued_at_s: float | None = None
) -> Service:
    """Bins that ended after `since_s`, at most the history's; requests count where they came from. `queued_at_s`: when
    requests were last seen to wait beyond their SLO; they have ended once they may have stayed with a server.
    """
    demand = seen.demand
    bins = max(0, round((demand.until_s - since_s) / demand.bin_s))
    ready = sum(
        state.ready * seen.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s
        for p, state in seen.placements.items()
        if p.model == model
    )
    if bins == 0:
        return Service(steps=0.0, missed_share=None, load=0.0)
    keys = [key for key in demand.interactive if key[0] == model]
    ended = sum(float(demand.ended[key][-bins:].sum()) for key in keys if key in demand.ended)
    missed = sum(float(demand.missed[key][-bins:].sum()) for key in keys if key in demand.missed)
    steps = bins * demand.bin_s / past.step_s
    peak = past.highest(max(1, round(steps)))
    return Service(
        steps=steps,
        missed_share=missed / ended if ended > 0 else None,
        # Without a READY server whoever ended was turned away: more servers would have helped.
        load=peak / ready if ready > 0 else float(peak > 0 or missed > 0) * MOST_RATIO,
        ready=ready > 0,
        after_queue=queued_at_s is not None and since_s - queued_at_s <= stay_s(seen.limits, model),
    )


def unavoidable_share(share: float, service: Service) -> float:
    """The share (0..1) of requests that misses without any want of servers: an average over steps at a low load."""
    if service.missed_share is None or service.load >= HIGH_LOAD:
        return share
    return share + _UNAVOIDABLE_WEIGHT * min(1.0, service.steps) * (service.missed_share - share)


def charged_share(service: Service, unavoidable: float, budget: float) -> float | None:
    """The share missed that more servers might have served; None without evidence, 0 at a low load.

    What misses anyway (prompts too long for their SLO, say) counts as spent budget up to half of it. Beyond that it is
    nothing that servers could mend, and is left out.
    """
    if service.missed_share is None:
        return None
    if service.load < HIGH_LOAD:
        return 0.0
    return max(0.0, service.missed_share - max(0.0, unavoidable - budget / 2))


def corrected_ratio(ratio: float, service: Service, charged: float, budget: float, saturation: float) -> float:
    """theta in fact over theta by profile, moved towards what a step at high load showed, within 0.7 to 1.3.

    A step that met its SLO (`charged` at most half the budget) shows that servers sustain its load at least, but for
    what a queue took of it while they served `saturation` times theta; one that missed it, that they do not sustain
    more. In between nothing is shown, nor by steps at less than 0.7 of capacity, nor against servers by misses of those
    who had waited in a queue: a load of before put them there. Without a READY server there is nothing to learn of. An
    average with weight 0.1 for the newest.
    """
    if service.missed_share is None or service.load < HIGH_LOAD or not service.ready:
        return ratio
    if charged <= _SMALL_MISS * budget:
        shown = max(ratio, service.load / saturation)
    elif service.after_queue:
        return ratio
    else:
        shown = min(ratio, service.load)
    return min(MOST_RATIO, max(LEAST_RATIO, ratio + _WEIGHT * min(1.0, service.steps) * (shown - ratio)))

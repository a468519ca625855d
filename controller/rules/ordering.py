"""Order of the requests that wait in a server, as vLLM's per-request priority: lower is sooner, ties by arrival.

vLLM keeps the priority a request was sent with, so each order is evaluated once, at the moment of sending.
"""

from dataclasses import dataclass
from enum import StrEnum

from workloads.request import Request, Tier


class Order(StrEnum):
    """fcfs: first come, first served. edf: earliest TTFT deadline first. pf: IW-F, then IW-N, then NIW.
    dpa: deadline and priority aware, by class (see `dpa_class`) and the earliest deadline within a class.
    """

    FCFS = "fcfs"
    EDF = "edf"
    PF = "pf"
    DPA = "dpa"


_TIER_RANK = {Tier.IW_F: 0, Tier.IW_N: 1, Tier.NIW: 2}
_CLASS_SPAN = 1 << 40
"""Milliseconds in one DPA class: 34 years, so that no deadline reaches into the next class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderingRules:
    """What the orders need to know: TTFT limits by tier, seconds, and DPA's class borders.

    DPA is named but not defined to the number in SageServe. Here: a request is expired when its first token was due
    before now, severely so when that was more than `severe_s` ago, and urgent when it is due within `urgent_s`.
    NIW is due when its own deadline is, or `niw_due_s` after its arrival.
    """

    iw_f_ttft_s: float = 1.0
    iw_n_ttft_s: float = 60.0
    niw_due_s: float = 24 * 3600.0
    severe_s: float = 10.0
    urgent_s: float = 1.0

    def due_s(self, request: Request) -> float:
        """When the first token (NIW: the last) is due: seconds of the run."""
        if request.tier is Tier.IW_F:
            return request.arrival_s + self.iw_f_ttft_s
        if request.tier is Tier.IW_N:
            return request.arrival_s + self.iw_n_ttft_s
        return request.deadline_s if request.deadline_s is not None else request.arrival_s + self.niw_due_s

    def dpa_class(self, request: Request, at_s: float) -> int:
        """0 severely expired, 1 recently expired, 2 urgent, 3 not urgent, in SageServe's order.

        The severely expired go first because they would otherwise starve behind a steady stream of urgent ones.
        """
        late_s = at_s - self.due_s(request)
        if late_s > self.severe_s:
            return 0
        if late_s > 0:
            return 1
        return 2 if late_s >= -self.urgent_s else 3


DEFAULT_RULES = OrderingRules()


def priority(
    request: Request,
    order: Order,
    *,
    at_s: float,
    promoted: bool = False,
    rules: OrderingRules = DEFAULT_RULES,
) -> int:
    """vLLM's priority of a request sent at `at_s`; `promoted` NIW requests rank as IW-N."""
    if order is Order.FCFS:
        return 0
    if order is Order.PF:
        return 1 if promoted else _TIER_RANK[request.tier]
    due_ms = round(1000 * rules.due_s(request))
    if order is Order.EDF:
        return due_ms
    return rules.dpa_class(request, at_s) * _CLASS_SPAN + due_ms

"""Order of the requests that wait in a server, as vLLM's per-request priority: lower is sooner, ties by arrival.

vLLM keeps the priority a request was sent with, so each order is evaluated once, at the moment of sending.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from workloads.request import Request, Tier
from workloads.slo import Slo


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

    def due_s(self, request: Request, promoted_s: float | None = None) -> float:
        """When the first token (NIW: the last) is due: seconds of the run. A NIW request that was promoted at
        `promoted_s` is due as an IW-N one that arrives then."""
        if promoted_s is not None:
            return promoted_s + self.iw_n_ttft_s
        if request.tier is Tier.IW_F:
            return request.arrival_s + self.iw_f_ttft_s
        if request.tier is Tier.IW_N:
            return request.arrival_s + self.iw_n_ttft_s
        return request.deadline_s if request.deadline_s is not None else request.arrival_s + self.niw_due_s

    def dpa_class(self, request: Request, at_s: float, promoted_s: float | None = None) -> int:
        """0 severely expired, 1 recently expired, 2 urgent, 3 not urgent, in SageServe's order.

        The severely expired go first because they would otherwise starve behind a steady stream of urgent ones.
        """
        late_s = at_s - self.due_s(request, promoted_s)
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
    """vLLM's priority of a request sent at `at_s`; a NIW request that is `promoted` ranks as an IW-N one of `at_s`."""
    if order is Order.FCFS:
        return 0
    if order is Order.PF:
        return 1 if promoted else _TIER_RANK[request.tier]
    promoted_s = at_s if promoted else None
    due_ms = round(1000 * rules.due_s(request, promoted_s))
    if order is Order.EDF:
        return due_ms
    return rules.dpa_class(request, at_s, promoted_s) * _CLASS_SPAN + due_ms


def request_ranking(order: Order, slos: Mapping[Tier, Slo]) -> Callable[[Request, float, bool], int] | None:
    """`priority` by these SLOs, as a function of request, `at_s` and `promoted`; None for FCFS, which needs none.

    Where a tier has no limit its default of `OrderingRules` holds.
    """
    if order is Order.FCFS:
        return None
    fast, normal, niw = slos[Tier.IW_F].ttft_s, slos[Tier.IW_N].ttft_s, slos[Tier.NIW].deadline_s
    rules = OrderingRules(
        iw_f_ttft_s=DEFAULT_RULES.iw_f_ttft_s if fast is None else fast,
        iw_n_ttft_s=DEFAULT_RULES.iw_n_ttft_s if normal is None else normal,
        niw_due_s=DEFAULT_RULES.niw_due_s if niw is None else niw,
    )
    return lambda request, at_s, promoted: priority(request, order, at_s=at_s, promoted=promoted, rules=rules)

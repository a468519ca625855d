"""When non-interactive requests leave their queue: by age, as SageServe does, or by deadline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from workloads.request import Request


class NiwRule(Protocol):
    """Requests wait in the order of `promotion_s`; the one that is promoted first is the head of its queue."""

    @property
    def full_from(self) -> float:
        """The effective utilisation from which a pool takes nothing, however much the head of the queue presses."""
        ...

    def promotion_s(self, request: Request) -> float:
        """When a request that still waits goes on with interactive priority: seconds of the run, infinite for never."""
        ...

    def pressure(self, head: Request, at_s: float) -> float:
        """How much the head of a queue presses at `at_s`: 0 (it has time) to 1 (it is promoted now)."""
        ...

    def takes(self, utilisation: float, pressure: float) -> int:
        """How many NIW requests a pool takes now, at its effective utilisation: 0, 1 or 2."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NiwRules:
    """SageServe (arXiv 2502.14617): a pool below 0.60 utilisation takes 1 request, below 0.50 it takes 2; after 10 h in
    the queue a request is promoted to interactive priority. First come, first served.

    Raises ValueError when the thresholds are not 0 <= take_two_below <= take_one_below, or an age is not above 0.
    """

    take_one_below: float = 0.60
    take_two_below: float = 0.50
    promote_after_s: float = 10 * 3600.0

    def __post_init__(self) -> None:
        _check_thresholds(self.take_one_below, self.take_two_below)
        if not self.promote_after_s > 0:
            raise ValueError(f"promote_after_s={self.promote_after_s}; must be above 0")

    @property
    def full_from(self) -> float:
        return self.take_one_below

    def promotion_s(self, request: Request) -> float:
        return request.arrival_s + self.promote_after_s

    def pressure(self, head: Request, at_s: float) -> float:  # noqa: ARG002 - age alone does not press
        return 0.0

    def takes(self, utilisation: float, pressure: float = 0.0) -> int:  # noqa: ARG002
        return _taken(utilisation, self.take_one_below, self.take_two_below)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineRules:
    """NIW by deadline: at first a pool takes requests only in its valleys, later wherever a region has room.

    The slack of a request is the time until it must start: its deadline, less its expected service time of
    `s_per_token[model]` for each of its prompt and output tokens. The thresholds rise in proportion to the part of
    the slack at arrival that has gone, from SageServe's up to `region_threshold`, the one of the routing rule; when
    `promote_slack` of it is left the request is promoted. So a queue goes from the valleys to the routing rule
    without a jump, on a day of any length. Requests leave in the order in which their slack runs out.

    A request without a deadline of its own has until `deadline_after_s` after its arrival (infinite: it never presses).
    Raises ValueError for thresholds out of order, or `promote_slack` outside of 0 to 1.
    """

    take_one_below: float = 0.60
    take_two_below: float = 0.50
    region_threshold: float = 0.70
    promote_slack: float = 0.1
    deadline_after_s: float = math.inf
    s_per_token: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        _check_thresholds(self.take_one_below, self.take_two_below)
        if not 0 <= self.promote_slack <= 1:
            raise ValueError(f"promote_slack={self.promote_slack}; give a fraction from 0 to 1")

    @property
    def full_from(self) -> float:
        return max(self.take_one_below, self.region_threshold)

    def promotion_s(self, request: Request) -> float:
        service_s = request.total_tokens * self.s_per_token.get(request.model, 0.0)
        allowed_s = deadline_s(request, self.deadline_after_s) - service_s - request.arrival_s
        return request.arrival_s + max(0.0, (1 - self.promote_slack) * allowed_s)

    def pressure(self, head: Request, at_s: float) -> float:
        wait_s = self.promotion_s(head) - head.arrival_s
        return min(1.0, max(0.0, (at_s - head.arrival_s) / wait_s)) if wait_s > 0 else 1.0

    def takes(self, utilisation: float, pressure: float) -> int:
        lift = pressure * max(0.0, self.region_threshold - self.take_one_below)
        return _taken(utilisation, self.take_one_below + lift, self.take_two_below + lift)


def deadline_s(request: Request, after_s: float) -> float:
    """When the last token of a request is due: its own deadline, else `after_s` after its arrival."""
    return request.arrival_s + after_s if request.deadline_s is None else request.deadline_s


def _taken(utilisation: float, one_below: float, two_below: float) -> int:
    if utilisation < two_below:
        return 2
    return 1 if utilisation < one_below else 0


def _check_thresholds(take_one_below: float, take_two_below: float) -> None:
    if not 0 <= take_two_below <= take_one_below:
        raise ValueError(
            f"take_two_below={take_two_below}, take_one_below={take_one_below}; "
            "give 0 <= take_two_below <= take_one_below"
        )

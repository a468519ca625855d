"""When non-interactive requests leave their queue."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NiwRules:
    """SageServe (arXiv 2502.14617): a pool below 0.60 utilisation takes 1 request, below 0.50 it takes 2; after 10 h in
    the queue a request is promoted to interactive priority.

    Raises ValueError when the thresholds are not 0 <= take_two_below <= take_one_below, or an age is not above 0.
    """

    take_one_below: float = 0.60
    take_two_below: float = 0.50
    promote_after_s: float = 10 * 3600.0

    def __post_init__(self) -> None:
        if not 0 <= self.take_two_below <= self.take_one_below:
            raise ValueError(
                f"take_two_below={self.take_two_below}, take_one_below={self.take_one_below}; "
                "give 0 <= take_two_below <= take_one_below"
            )
        if not self.promote_after_s > 0:
            raise ValueError(f"promote_after_s={self.promote_after_s}; must be above 0")

    def takes(self, utilisation: float) -> int:
        """How many NIW requests a pool takes now, at its effective utilisation: 0, 1 or 2."""
        if utilisation < self.take_two_below:
            return 2
        return 1 if utilisation < self.take_one_below else 0

    def promoted(self, arrival_s: float, at_s: float) -> bool:
        """Whether a request that arrived at `arrival_s` and still waits at `at_s` has interactive priority by now."""
        return at_s - arrival_s > self.promote_after_s

    def promotion_s(self, arrival_s: float) -> float:
        """When a request will be promoted, if it still waits then: seconds of the run."""
        return arrival_s + self.promote_after_s

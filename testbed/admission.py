"""When a request is rejected at once rather than left to wait."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Bounds of what waits; None of what is not bounded.

    An interactive request is rejected where the pool chosen for it is at a utilisation above `reject_above`; any that
    is to be served now where `max_waiting` requests of its model wait for a server already.
    """

    reject_above: float | None = None
    max_waiting: int | None = None


EVERYTHING = Admission()

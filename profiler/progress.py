"""What a measurement tells while it goes on."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`phase` in a word or two, `what` is measured now, and how many seconds of the budget are left."""

    phase: str
    what: str
    left_s: float


Tell = Callable[[Progress], None]


def unheard(_: Progress) -> None:
    """For a measurement that nobody watches."""

"""What a page shows of figures: charts with their legends, in groups that open and close."""

from collections.abc import Sequence
from dataclasses import dataclass

from results.drawing import Mark
from results.figures import PALETTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A title over one or more plots (inline SVG) that share their time axis."""

    title: str
    plots: tuple[str, ...]
    legend: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartGroup:
    """Charts that answer one question. `legend` is common to all; `note` says how to read them.

    `shown`: open when the page opens. `small`: many alike, side by side.
    """

    title: str
    charts: tuple[Chart, ...]
    legend: tuple[Mark, ...] = ()
    note: str = ""
    shown: bool = False
    small: bool = False


def colour(index: int) -> str:
    """The colour of the index-th name of a legend."""
    return PALETTE[index % len(PALETTE)]


def marks(names: Sequence[str], kind: str = "line") -> tuple[Mark, ...]:
    """A legend of names in the colours of the palette; `kind` is "line" or "square"."""
    return tuple(
        Mark(label=name, colour=colour(index), kind="square" if kind == "square" else "line")
        for index, name in enumerate(names)
    )

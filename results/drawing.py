"""A figure before it is drawn: into a page, whose legend is HTML, or into a file, which brings its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from results.atomic_file import replace_file
from results.figures import INK, STYLE, inline_svg

MarkKind = Literal["line", "dashed", "dotted", "dot", "ring", "square", "band"]

_LINE_STYLES: dict[str, Any] = {"line": "-", "dashed": "--", "dotted": ":"}
_LEGEND_COLUMNS = 3
_MARKERS: dict[str, dict[str, Any]] = {
    "dot": {"marker": "o"},
    "ring": {"marker": "o", "markerfacecolor": "none"},
    "square": {"marker": "s"},
}
_DATELESS: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One entry of a legend. `colour` "ink": that of the text."""

    label: str
    colour: str
    kind: MarkKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """`name` is a file's stem, `draw` fills an empty figure of `height_in` inches; it may be called more than once."""

    name: str
    title: str
    caption: str
    draw: Callable[[Figure], None]
    legend: tuple[Mark, ...] = ()
    height_in: float = 3.0
    width_in: float = 5.2

    def svg(self) -> str:
        """For a page, in its ink."""
        with mpl.rc_context(STYLE):
            figure = self._drawn(above_in=0.1, below_in=0.0)
            return inline_svg(figure, self.title)

    def save(self, folder: Path, file_format: str) -> Path:
        """Write NAME.FORMAT on white, with title and legend; the same content gives the same bytes."""
        path = folder / f"{self.name}.{file_format}"
        opaque = {**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}
        with mpl.rc_context(opaque):
            below_in = 0.1 + 0.2 * ceil(len(self.legend) / _LEGEND_COLUMNS)
            figure = self._drawn(above_in=0.35, below_in=below_in)
            figure.suptitle(self.title, fontsize=10)
            if self.legend:
                handles = [_handle(mark) for mark in self.legend]
                figure.legend(handles=handles, loc="lower center", ncols=_LEGEND_COLUMNS, frameon=False, fontsize=8)
            replace_file(
                path,
                lambda temporary: figure.savefig(
                    temporary, format=file_format, dpi=200, metadata=_DATELESS[file_format]
                ),
            )
        return path

    def _drawn(self, *, above_in: float, below_in: float) -> Figure:
        """With room for what stands above and below the axes; a layout that measures its texts takes twice as long."""
        height_in = self.height_in + above_in + below_in
        figure = Figure(figsize=(self.width_in, height_in))
        figure.subplots_adjust(
            left=0.86 / self.width_in,
            right=1 - 0.12 / self.width_in,
            top=1 - above_in / height_in,
            bottom=(0.45 + below_in) / height_in,
            hspace=0.1,
        )
        self.draw(figure)
        return figure


def save_drawings(drawings: Sequence[Drawing], folder: Path, file_format: str) -> tuple[Path, ...]:
    """One file per drawing; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(drawing.save(folder, file_format) for drawing in drawings)


def _handle(mark: Mark) -> Line2D | Patch:
    colour = INK if mark.colour == "ink" else mark.colour
    if mark.kind == "band":
        return Patch(facecolor=colour, alpha=0.2, label=mark.label)
    if mark.kind in _LINE_STYLES:
        return Line2D([], [], color=colour, linestyle=_LINE_STYLES[mark.kind], label=mark.label)
    return Line2D([], [], color=colour, linestyle="none", markersize=5, label=mark.label, **_MARKERS[mark.kind])

"""One pair of axes as inline SVG, in the page's own ink and text.

A report has a hundred of them: written so, one takes a millisecond and a few kB. Figures that also become files are
Drawings (results/drawing.py).
"""

from collections.abc import Sequence
from html import escape
from typing import Literal

import numpy as np

from results.arrays import Floats, Mask
from results.scales import Scale

Style = Literal["line", "dashed", "dotted"]

WIDE_PX = 380
NARROW_PX = 290
_LEFT, _RIGHT, _TOP = 46, 18, 8
_DASHES: dict[Style, str] = {"line": "", "dashed": ' stroke-dasharray="5 3"', "dotted": ' stroke-dasharray="1.5 2.5"'}


class Plot:
    """`label` tells what is seen to those who cannot see it; `height` is that of the axes, in px of the viewBox.

    Whatever is added is drawn over what is there. Series over time are steps: one value for each bin between edges.
    """

    def __init__(self, label: str, x: Scale, y: Scale, *, width: int = WIDE_PX, height: int = 110) -> None:
        self._label = label
        self._x, self._y = x, y
        self._width, self._height = width, height
        self._left = max(_LEFT, 14 + 6 * max((len(text) for _, text in y.ticks), default=0))
        self._drawn: list[str] = []

    def line(self, xs: Floats, ys: Floats, colour: str, style: Style = "line", width: float = 1.4) -> None:
        """Through the points; NaN leaves a gap."""
        across, up = self._across(xs), self._up(ys)
        path, pen = [], "M"
        for a, u in zip(across.tolist(), up.tolist(), strict=True):
            if u != u:
                pen = "M"
                continue
            path.append(f"{pen}{a:.1f} {u:.1f}")
            pen = "L"
        self._stroke("".join(path), colour, style, width)

    def steps(self, edges: Floats, values: Floats, colour: str, style: Style = "line", width: float = 1.4) -> None:
        """A level for each bin; NaN leaves a gap."""
        self._stroke(self._stair(edges, values), colour, style, width)

    def area(self, edges: Floats, low: Floats, high: Floats, colour: str, opacity: float) -> None:
        """Between two levels for each bin; a bin in which either is NaN is left out."""
        there = ~(np.isnan(low) | np.isnan(high))
        for first, last in _runs(there):
            upper = self._stair(edges[first : last + 1], high[first:last])
            lower = self._stair(edges[first : last + 1][::-1], low[first:last][::-1])
            self._drawn.append(
                f'<path d="{upper}{lower.replace("M", "L", 1)}Z" fill="{colour}" opacity="{opacity:g}"/>'
            )

    def stack(self, edges: Floats, series: Sequence[Floats], colours: Sequence[str]) -> None:
        """Series upon each other."""
        below = np.zeros(len(edges) - 1)
        for values, colour in zip(series, colours, strict=True):
            above = below + values
            if values.any():
                self.area(edges, below, above, colour, 0.8)
            below = above

    def level(self, y: float) -> None:
        """A dotted line across, such as an SLO."""
        up = self._up(np.array([y]))[0]
        self._stroke(f"M{self._left} {up:.1f}H{self._width - _RIGHT}", "currentColor", "dotted", 1.2)

    def rule(self, x: float) -> None:
        """A dotted line from bottom to top."""
        across = self._across(np.array([x]))[0]
        self._stroke(f"M{across:.1f} {_TOP}V{_TOP + self._height}", "currentColor", "dotted", 1.2)

    def block(self, x0: float, x1: float, y0: float, y1: float, colour: str) -> None:
        """A filled rectangle."""
        left, right = self._across(np.array([x0, x1])).tolist()
        bottom, top = self._up(np.array([y0, y1])).tolist()
        if right > left:
            self._drawn.append(
                f'<path d="M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z" fill="{colour}"/>'
            )

    def mark(
        self, x: float, y: float, colour: str, shape: Literal["up", "down", "dot"], size: float, told: str
    ) -> None:
        """A mark that tells what it is when pointed at."""
        a, u = float(self._across(np.array([x]))[0]), float(self._up(np.array([y]))[0])
        if shape == "dot":
            body = f'<circle cx="{a:.1f}" cy="{u:.1f}" r="{size:.1f}"'
        else:
            tip = -size if shape == "up" else size
            body = f'<path d="M{a - size:.1f} {u - tip / 2:.1f}h{2 * size:.1f}l{-size:.1f} {1.5 * tip:.1f}z"'
        self._drawn.append(
            f'{body} fill="{colour}"><title>{escape(told)}</title>{"</circle>" if shape == "dot" else "</path>"}'
        )

    def svg(self) -> str:
        """The whole; the same content gives the same bytes."""
        bottom = _TOP + self._height
        below = 30 if self._x.title else 18
        right = self._width - _RIGHT
        axes = []
        for place, (_, text) in zip(self._up(_values(self._y)).tolist(), self._y.ticks, strict=True):
            axes.append(f'<path class="grid" d="M{self._left} {place:.1f}H{right}"/>')
            axes.append(_text(self._left - 4, place + 3, text, "end"))
        for place, (_, text) in zip(self._across(_values(self._x)).tolist(), self._x.ticks, strict=True):
            axes.append(f'<path class="grid" d="M{place:.1f} {_TOP}V{bottom + 3}"/>')
            axes.append(_text(place, bottom + 13, text, "middle"))
        if self._x.title:
            axes.append(_text((self._left + right) / 2, bottom + 26, self._x.title, "middle"))
        box = f'viewBox="0 0 {self._width} {bottom + below}"'
        label = f'aria-label="{escape(self._label)}"'
        return f'<svg class="plot" role="img" {label} {box}>{"".join(axes)}{"".join(self._drawn)}</svg>'

    def _across(self, xs: Floats) -> Floats:
        return self._left + self._x.place(xs) * (self._width - _RIGHT - self._left)

    def _up(self, ys: Floats) -> Floats:
        return _TOP + (1 - self._y.place(ys)) * self._height

    def _stair(self, edges: Floats, values: Floats) -> str:
        across, up = self._across(edges).tolist(), self._up(values).tolist()
        path, level = [], ""
        for index, u in enumerate(up):
            if u != u:
                level = ""
                continue
            now = f"{u:.1f}"
            if not level:
                path.append(f"M{across[index]:.1f} {now}")
            elif now != level:
                path.append(f"H{across[index]:.1f}V{now}")
            level = now
            if index + 1 == len(up) or up[index + 1] != up[index + 1]:
                path.append(f"H{across[index + 1]:.1f}")
        return "".join(path)

    def _stroke(self, path: str, colour: str, style: Style, width: float) -> None:
        if path:
            dash = _DASHES[style]
            self._drawn.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>')


def _text(x: float, y: float, text: str, anchor: Literal["middle", "end"]) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def shortened(name: str, most: int = 14) -> str:
    """A name that must fit beside an axis."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _values(scale: Scale) -> Floats:
    return np.array([value for value, _ in scale.ticks])


def _runs(there: Mask) -> list[tuple[int, int]]:
    """Stretches [first, last) of True."""
    turns = np.flatnonzero(np.diff(np.concatenate(([False], there, [False])).astype(np.int8)))
    return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))

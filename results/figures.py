"""How matplotlib's figures look on a page: inline SVG that takes its ink from it, so that one suits light and dark.

Legends and titles are the page's (HTML keeps them readable on a narrow screen); colours are shared by all pages.
"""

import io
import re
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Middle tones: readable on white and on near-black alike.
PALETTE = ("#3b82f6", "#e8833a", "#2ea36b", "#9b6ef3", "#e05252", "#1fa5a5", "#b8860b", "#d1579f", "#8a919e")
STATE_COLOURS = {
    "READY": "#2ea36b",
    "STARTING": "#d9a21b",
    "SLEEPING": "#6d8fc7",
    "DRAINING": "#e8833a",
    "STOPPING": "#e05252",
}

# The tail is what an SLO is about: it gets a third of the points.
CDF_SHARES = np.concatenate((np.linspace(0, 0.95, 96), np.linspace(0.951, 1, 50)))

# Drawn in this colour, written as currentColor.
INK = "#0a0b0c"
_PATH = re.compile(r' d="[^"]*"')
_FINER = re.compile(r"(\.\d)\d+")
_OWN_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sageserve-testbed",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a model's name is no formula
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.5,
}


def inline_svg(figure: Figure, label: str) -> str:
    text = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue().replace(INK, "currentColor")
    svg = svg[svg.index("<svg") :]
    # A tenth of a point is finer than any screen: half the bytes of a path.
    svg = _PATH.sub(lambda path: _FINER.sub(r"\1", path[0]).replace(" \n", ""), svg)
    svg = _OWN_STYLE.sub("", svg)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)

"""The plane of sequences and context: how long an iteration takes there, and what of it was measured."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import LogLocator

from profiler.idle_latency import batch_is_beyond, inter_token_s
from profiler.point_medians import PointMedians
from profiler.profile import ServerProfile
from results.arrays import Mask
from results.drawing import Drawing, Mark
from results.figures import INK, PALETTE
from results.latency_axes import scatter, short_duration, token_axis

_GRID = 80
_FILL = PALETTE[0]


def gap_map_drawing(profile: ServerProfile, fitted: PointMedians, held_out: PointMedians) -> Drawing:
    """Lines of equal time between tokens over sequences and context, both logarithmic."""
    longest = profile.engine.max_model_len or profile.kv_cache.max_tokens
    seqs = np.geomspace(1, max(2, profile.engine.max_num_seqs), _GRID)
    contexts = np.geomspace(min(16, longest), longest, _GRID)
    seconds = np.array([[inter_token_s(profile, n, context) for n in seqs] for context in contexts])
    beyond = np.array([[batch_is_beyond(profile, n, context) or "" for n in seqs] for context in contexts])
    held = np.where(_well_outside(beyond == "server"), np.nan, seconds)
    inside = np.where(beyond == "", 1.0, 0.0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.contourf(seqs, contexts, inside, levels=[0.5, 1.5], colors=[_FILL], alpha=0.16)
        levels = LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)).tick_values(np.nanmin(held), np.nanmax(held))
        levels = levels[(levels > np.nanmin(held)) & (levels < np.nanmax(held))]
        if len(levels):
            lines = axes.contour(seqs, contexts, held, levels=levels, colors=[INK], linewidths=0.8)
            lines.set_clip_path(_held_by(profile, longest), transform=axes.transData)
            axes.clabel(lines, fmt=short_duration, fontsize=8)
        for points, filled in ((fitted, True), (held_out, False)):
            decode = points.take(points.kinds == "decode")
            scatter(axes, decode.decode_seqs, decode.kv_tokens / decode.decode_seqs, PALETTE[1], filled=filled)
        # Points on the edge of what the server holds are shown whole.
        axes.set_xlim(0.85, seqs[-1] * 1.18)
        axes.set_ylim(contexts[0] * 0.75, contexts[-1] * 1.35)
        token_axis(axes.xaxis, "sequences that decode")
        token_axis(axes.yaxis, "tokens of context each")

    return Drawing(
        name="between-tokens-map",
        title="Time between tokens over sequences and context",
        caption="Lines of equal time; blank where the server cannot hold such a batch.",
        legend=(
            Mark(label="within the domain" if profile.domain else "what the server holds", colour=_FILL, kind="band"),
            *((Mark(label="measured", colour=PALETTE[1], kind="dot"),) if len(fitted) else ()),
            *((Mark(label="measured, held out of the fit", colour=PALETTE[1], kind="ring"),) if len(held_out) else ()),
        ),
        draw=draw,
    )


def _well_outside(beyond: Mask) -> Mask:
    """Cells all of whose neighbours are beyond what the server holds: lines reach up to the edge, and are cut there."""
    padded = np.pad(beyond, 1, mode="edge")
    rows, columns = beyond.shape
    shifted = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    surrounded: Mask = np.logical_and.reduce(shifted)
    return surrounded


def _held_by(profile: ServerProfile, longest: float) -> Path:
    """The outline of what the server holds at once: sequences, context, and their product."""
    seqs = np.geomspace(1, profile.engine.max_num_seqs, 200)
    contexts = np.minimum(longest, profile.kv_cache.max_tokens / seqs)
    return Path([(1.0, 1.0), *zip(seqs, contexts, strict=True), (float(seqs[-1]), 1.0), (1.0, 1.0)])

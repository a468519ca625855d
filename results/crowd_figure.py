"""What a request costs outside of iterations, over the sequences that it is sent among."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from profiler.profile import ServerProfile
from results.drawing import Drawing, Mark
from results.figures import PALETTE
from results.latency_axes import short_duration


def crowd_drawing(profile: ServerProfile) -> Drawing:
    """The crowds that were measured, one at least, and what is used of them from the idle server's on."""
    points = profile.crowded_requests
    seqs = [0, *(point.decode_seqs for point in points)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(seqs, [profile.request_overhead_among_s(each) for each in seqs], color=PALETTE[0], linewidth=1.4)
        axes.plot(
            [point.decode_seqs for point in points],
            [point.overhead_s for point in points],
            linestyle="none",
            marker="o",
            markersize=4,
            color=PALETTE[0],
        )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=min(0.0, *(point.overhead_s for point in points)))
        axes.set_xlabel("sequences that decode")
        axes.set_ylabel("beside iterations")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_duration(value)))

    return Drawing(
        name="requests-among-others",
        title="A request among others",
        caption="What the first token waits for beside iterations; means of the middle half of"
        f" {min(point.n for point in points)} or more requests.",
        legend=(
            Mark(label="used", colour=PALETTE[0], kind="line"),
            Mark(label="measured", colour=PALETTE[0], kind="dot"),
        ),
        draw=draw,
    )

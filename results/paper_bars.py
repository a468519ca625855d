"""Hours by policy as bars: of instances by model, wasted while scaling, and shared against apart."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from results.drawing import Drawing
from results.paper_runs import PaperFigure, PaperRun, colours_of, marks_of, mean_over_seeds, policies_of
from results.quantities import signed_percent
from results.standing import HOLDING, gpu_hours, server_intervals

# SageServe's rule for one pool of all tiers, and the same rule for pools apart.
SHARED, APART = "reactive", "siloed"

# Hours by group (a bar) and by part (a piece of it, or one of several bars).
Hours = Mapping[str, Mapping[str, float]]


def instance_hours(case: str, runs: Sequence[PaperRun]) -> PaperFigure:
    """Server-hours by policy and model: the paper's instance-hours."""
    by_run = {(run.policy, run.seed): _server_hours(run) for run in runs}
    models = sorted({model for hours in by_run.values() for model in hours})
    return _by_model(
        f"instance-hours-{case}",
        f"Instance-hours by policy and model, {case}",
        "Time of servers in STARTING, READY, DRAINING or STOPPING; mean over seeds.",
        "instance-hours",
        {
            policy: {model: mean_over_seeds(runs, policy, partial(_of_model, by_run, model)) or 0.0 for model in models}
            for policy in policies_of(runs)
        },
    )


def wasted_hours(case: str, runs: Sequence[PaperRun]) -> PaperFigure:
    """GPU-hours spent starting, draining and stopping, by policy and model."""
    models = sorted({model for run in runs for model in run.summary.gpu_hours_by.wasted_model})
    return _by_model(
        f"waste-{case}",
        f"GPU-hours wasted while scaling, {case}",
        "GPU time of servers in STARTING, DRAINING or STOPPING; mean over seeds.",
        "GPU-hours",
        {
            policy: {model: mean_over_seeds(runs, policy, partial(_wasted, model)) or 0.0 for model in models}
            for policy in policies_of(runs)
        },
    )


def unified_or_siloed(cases: Mapping[str, Sequence[PaperRun]]) -> PaperFigure | None:
    """GPU-hours of servers shared by all tiers and apart by tier, both scaled reactively.

    Of the cases that ran both and were served by the servers apart; None where there are none.
    """
    hours: dict[str, dict[str, float]] = {}
    for case, runs in cases.items():
        pair = {policy: mean_over_seeds(runs, policy, _gpu_hours) for policy in (APART, SHARED)}
        found = {policy: value for policy, value in pair.items() if value is not None}
        if len(found) == 2 and found[APART]:
            hours[case] = found
    if not hours:
        return None
    colours = colours_of((APART, SHARED))
    return PaperFigure(
        drawing=Drawing(
            name="unified-or-siloed",
            title="Servers apart by tier (siloed) and shared (reactive)",
            caption="GPU-hours, both scaled by the same rule; mean over seeds.",
            draw=partial(_side_by_side, hours, colours),
            legend=marks_of(colours, "square"),
            height_in=0.6 + 0.55 * len(hours),
        ),
        columns=("case", "siloed_gpu_hours", "unified_gpu_hours", "saved"),
        rows=tuple((case, of[APART], of[SHARED], 1 - of[SHARED] / of[APART]) for case, of in hours.items()),
    )


def _server_hours(run: PaperRun) -> dict[str, float]:
    servers = run.folder.policy(run.catalogue_name).servers()
    intervals = server_intervals(servers, run.summary.end_s)
    holding = intervals[intervals["state"].isin(HOLDING)].assign(gpus=1.0)
    sums = gpu_hours(holding).groupby(holding["model"].astype(str)).sum()
    return {str(model): float(hours) for model, hours in sums.items()}


def _of_model(by_run: Mapping[tuple[str, int], Mapping[str, float]], model: str, run: PaperRun) -> float:
    return by_run[run.policy, run.seed].get(model, 0.0)


def _wasted(model: str, run: PaperRun) -> float:
    return run.summary.gpu_hours_by.wasted_model.get(model, 0.0)


def _gpu_hours(run: PaperRun) -> float:
    return run.summary.gpu_hours


def _by_model(name: str, title: str, caption: str, unit: str, hours: Hours) -> PaperFigure:
    models = list(dict.fromkeys(model for parts in hours.values() for model in parts))
    colours = colours_of(models)
    return PaperFigure(
        drawing=Drawing(
            name=name,
            title=title,
            caption=caption,
            draw=partial(_stacked, hours, colours, unit),
            legend=marks_of(colours, "square"),
            height_in=0.6 + 0.32 * len(hours),
        ),
        columns=("policy", "model", unit.lower().replace("-", "_")),
        rows=tuple((policy, model, value) for policy, parts in hours.items() for model, value in parts.items()),
    )


def _stacked(hours: Hours, colours: Mapping[str, str], unit: str, figure: Figure) -> None:
    axes = figure.subplots()
    at = np.arange(len(hours))
    left = np.zeros(len(hours))
    for model, colour in colours.items():
        values = np.array([parts[model] for parts in hours.values()])
        axes.barh(at, values, left=left, height=0.62, color=colour)
        left += values
    for place, total in enumerate(left):
        axes.annotate(f" {total:,.1f}", (total, place), va="center", fontsize=8)
    axes.set_xlim(0, 1.14 * max(left.max(), 1e-9))
    _name_rows(axes, list(hours), unit)


def _side_by_side(hours: Hours, colours: Mapping[str, str], figure: Figure) -> None:
    axes = figure.subplots()
    for place, pair in enumerate(hours.values()):
        for offset, (policy, colour) in zip((-0.2, 0.2), colours.items(), strict=True):
            axes.barh(place + offset, pair[policy], height=0.36, color=colour)
        axes.annotate(
            f" {signed_percent(pair[SHARED] / pair[APART] - 1)}", (pair[SHARED], place + 0.2), va="center", fontsize=8
        )
    _name_rows(axes, list(hours), "GPU-hours")


def _name_rows(axes: Axes, names: Sequence[str], unit: str) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(unit)

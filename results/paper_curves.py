"""Curves by policy: latency tails, the share of NIW, bursts, utilisation over time."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from results.arrays import Floats
from results.drawing import Drawing
from results.metrics import METRIC_COLUMNS, latencies, slo_met
from results.paper_runs import PaperFigure, PaperRun, colours_of, marks_of, mean_over_seeds, policies_of
from results.quantities import seconds
from results.server_charts import mean_utilisation
from workloads.request import Tier

SHARES = ("p50", "p75", "p90", "p95", "p99")
INTERACTIVE = tuple(tier.value for tier in Tier if tier.interactive)
BINS = 96
MINUTES = 60
Point = tuple[float, float]


def latency_tails(case: str, latency: str, runs: Sequence[PaperRun]) -> PaperFigure:
    """Percentiles of TTFT or E2E of each interactive tier, a line per policy."""
    policies = policies_of(runs)
    tails: dict[tuple[str, str], list[float | None]] = {
        (policy, tier): [mean_over_seeds(runs, policy, partial(_tail, latency, tier, share)) for share in SHARES]
        for policy in policies
        for tier in INTERACTIVE
    }
    colours = colours_of(policies)
    return PaperFigure(
        drawing=Drawing(
            name=f"{latency.lower()}-{case}",
            title=f"{latency} by policy, {case}",
            caption="Percentiles over completed requests from arrival on; mean over seeds.",
            draw=partial(_draw_tails, tails, colours),
            legend=marks_of(colours),
        ),
        columns=("policy", "tier", *(f"{share}_s" for share in SHARES)),
        rows=tuple((policy, tier, *values) for (policy, tier), values in tails.items()),
    )


def niw_shares(cases: Mapping[str, Sequence[PaperRun]]) -> PaperFigure | None:
    """GPU-hours against the share of NIW requests, over cases that differ in nothing else; None of fewer than two."""
    families: dict[str, list[PaperRun]] = {}
    for run in (run for runs in cases.values() for run in runs):
        families.setdefault(run.apart_from_niw, []).append(run)
    family = max(families.values(), key=lambda runs: len({run.case for run in runs}), default=[])
    names = dict.fromkeys(run.case for run in family)
    if len(names) < 2:
        return None
    rows: list[tuple[str, str, float, float]] = []
    for case in names:
        of_case = [run for run in family if run.case == case]
        for policy in policies_of(of_case):
            share = mean_over_seeds(of_case, policy, lambda run: run.niw_share)
            hours = mean_over_seeds(of_case, policy, lambda run: run.summary.gpu_hours)
            if share is not None and hours is not None:
                rows.append((case, policy, share, hours))
    lines = {
        policy: sorted((100 * share, hours) for _, of, share, hours in rows if of == policy)
        for policy in policies_of(family)
    }
    return PaperFigure(
        drawing=_lines("niw-share", "GPU-hours by the share of NIW requests", lines, "% of requests NIW", "GPU-hours"),
        columns=("case", "policy", "niw_share", "gpu_hours"),
        rows=tuple(rows),
    )


def burst_misses(case: str, runs: Sequence[PaperRun]) -> PaperFigure:
    """The share of interactive requests outside their SLO, by the minute of the hour in which they arrived."""
    rows: list[tuple[str, int, int, float]] = []
    for policy in policies_of(runs):
        asked, missed = np.zeros(MINUTES), np.zeros(MINUTES)
        for run in (run for run in runs if run.policy == policy):
            of_run = _by_minute(run)
            asked, missed = asked + of_run[0], missed + of_run[1]
        rows.extend(
            (policy, minute, int(asked[minute]), float(missed[minute] / asked[minute]))
            for minute in range(MINUTES)
            if asked[minute]
        )
    lines = {
        policy: [(minute + 0.5, 100 * share) for of, minute, _, share in rows if of == policy]
        for policy in policies_of(runs)
    }
    return PaperFigure(
        drawing=_lines(
            f"burst-misses-{case}",
            f"Interactive requests outside their SLO after a burst, {case}",
            lines,
            "minute of the hour in which they arrived",
            "% outside their SLO",
        ),
        columns=("policy", "minute_of_hour", "interactive_requests", "missed"),
        rows=tuple(rows),
    )


def utilisation_over_time(case: str, runs: Sequence[PaperRun]) -> PaperFigure:
    """Utilisation of READY servers, the mean over pools weighted by their READY servers; of the first seed."""
    first = [run for run in runs if run.seed == runs[0].seed]
    rows = [(run.policy, at_h, value) for run in first for at_h, value in _utilisation(run)]
    lines = {policy: [(at_h, value) for of, at_h, value in rows if of == policy] for policy in policies_of(first)}
    return PaperFigure(
        drawing=_lines(
            f"utilisation-{case}",
            f"Utilisation of READY servers, {case}",
            lines,
            "hours since the start, of the workload's day",
            "utilisation",
        ),
        columns=("policy", "hour", "utilisation"),
        rows=tuple(rows),
    )


def _tail(latency: str, tier: str, share: str, run: PaperRun) -> float | None:
    found = run.summary.latencies[latency].by_tier.get(tier)
    value: float | None = None if found is None else getattr(found, share)
    return value


def _by_minute(run: PaperRun) -> tuple[Floats, Floats]:
    """Interactive requests, and those outside their SLO, by minute of the hour of arrival; shape (60,) each."""
    completions = run.folder.policy(run.catalogue_name).completions(METRIC_COLUMNS)
    met = slo_met(completions, latencies(completions), run.folder.manifest.tier_slos())
    chosen = completions["tier"].isin(INTERACTIVE).to_numpy()
    hours = completions["arrival_s"].to_numpy(np.float64)[chosen] / run.hour_s + run.start_hour
    minute: npt.NDArray[np.int64] = (hours % 1 * MINUTES).astype(np.int64)
    missed = np.bincount(minute, weights=~met[chosen], minlength=MINUTES)
    return np.bincount(minute, minlength=MINUTES).astype(np.float64), missed.astype(np.float64)


def _utilisation(run: PaperRun) -> list[Point]:
    """(hour of the workload's day, mean utilisation) in equal bins of the time in which requests arrive."""
    pools = run.folder.policy(run.catalogue_name).pools()
    horizon_s = run.folder.manifest.horizon_s
    edges_s = np.linspace(0.0, horizon_s, BINS + 1)
    means = mean_utilisation(pools[pools["at_s"] < horizon_s], edges_s)
    known = ~np.isnan(means)
    hours = (edges_s[:-1] + edges_s[1:])[known] / 2 / run.hour_s
    return list(zip(hours.tolist(), means[known].tolist(), strict=True))


def _lines(name: str, title: str, lines: Mapping[str, Sequence[Point]], xlabel: str, ylabel: str) -> Drawing:
    colours = colours_of(tuple(lines))
    return Drawing(
        name=name,
        title=title,
        caption=f"{ylabel} by {xlabel}.",
        draw=partial(_draw_lines, lines, colours, xlabel, ylabel),
        legend=marks_of(colours),
    )


def _draw_lines(
    lines: Mapping[str, Sequence[Point]], colours: Mapping[str, str], xlabel: str, ylabel: str, figure: Figure
) -> None:
    axes = figure.subplots()
    for policy, points in lines.items():
        marker = "o" if len(points) < 10 else ""
        axes.plot(
            [x for x, _ in points], [y for _, y in points], color=colours[policy], linewidth=1.3, marker=marker, ms=4
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def _draw_tails(
    tails: Mapping[tuple[str, str], Sequence[float | None]], colours: Mapping[str, str], figure: Figure
) -> None:
    all_axes = figure.subplots(1, len(INTERACTIVE), sharey=True, gridspec_kw={"wspace": 0.08})
    for tier, axes in zip(INTERACTIVE, np.atleast_1d(all_axes), strict=True):
        _draw_tier(axes, {policy: tails[policy, tier] for policy in colours}, colours)
        axes.set_xlabel(tier)


def _draw_tier(axes: Axes, tails: Mapping[str, Sequence[float | None]], colours: Mapping[str, str]) -> None:
    for policy, values in tails.items():
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        axes.plot(
            [place for place, _ in known],
            [value for _, value in known],
            color=colours[policy],
            linewidth=1.3,
            marker="o",
            ms=4,
        )
    axes.set_xticks(range(len(SHARES)), SHARES)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())

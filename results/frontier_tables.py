"""The comparison of a study as tables of text, for the terminal and for the page alike."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from results.frontier import EQUAL, Matched, Saving, Standing
from results.quantities import hours, percent, seconds, signed_percent, usd
from results.study_comparison import WorkloadComparison
from results.text_table import TextTable
from workloads.request import Tier

NONE = "–"
WORDS = {"gpu_hours": "GPU-hours", "wasted_gpu_hours": "GPU-hours wasted while scaling"}

Show = Callable[[float], str]


def matched_table(comparison: WorkloadComparison, *, brief: bool = False) -> TextTable:
    """Every policy at the attainment of the comparison: what it costs, what it wastes, how it serves each tier.

    `brief` leaves out what a narrow terminal has no room for.
    """
    at = comparison.matched()
    columns = _matched_columns(comparison, tuple(at.values()))
    kept = [column for column in columns if column.essential or not brief]
    return TextTable(
        title=f"{comparison.workload}: at {percent(1 - comparison.missed)} of {comparison.subject} within their SLO",
        columns=("policy", *(column.title for column in kept)),
        rows=tuple(
            (policy + _mark(matched), *(column.cell(policy, matched) for column in kept))
            for policy, matched in at.items()
        ),
        lead=comparison.description,
        notes=(*_mark_notes(at.values()), *_bound_notes(comparison)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    title: str
    cell: Callable[[str, Matched], str]
    essential: bool = True


def _matched_columns(comparison: WorkloadComparison, at: Sequence[Matched]) -> list[_Column]:
    tiers = [tier.value for tier in Tier if any(f"slo_met {tier.value}" in matched.measures for matched in at)]
    interactive = [tier for tier in tiers if tier != Tier.NIW.value]
    columns = [
        _quantity("GPU-hours", "gpu_hours", hours),
        _Column(title=f"vs {comparison.claim.against}", cell=lambda policy, m: _change(policy, m, comparison)),
        _Column(title="> bound", cell=lambda _, m: _above(m.measures["gpu_hours"], comparison)),
        _quantity("wasted", "wasted_gpu_hours", hours),
        _quantity("missed", "missed", percent),
        *(_quantity(f"SLO {tier}", f"slo_met {tier}", percent, essential=False) for tier in tiers),
        *(_quantity(f"p95 TTFT {tier}", f"ttft_p95_s {tier}", seconds, essential=False) for tier in interactive),
        _quantity("USD", "usd", usd, essential=False),
        _quantity("starts", "starts", lambda value: f"{value:,.0f}"),
        _quantity("stops", "stops", lambda value: f"{value:,.0f}", essential=False),
        _Column(title="knob", cell=lambda _, m: _values(m)),
    ]
    if any(matched.measures.get("sleeping_server_hours") for matched in at):
        columns.insert(4, _quantity("asleep, server-h", "sleeping_server_hours", hours, essential=False))
    return columns


def _quantity(title: str, name: str, show: Show, *, essential: bool = True) -> _Column:
    def cell(_: str, matched: Matched) -> str:
        return show(matched.measures[name]) if name in matched.measures else NONE

    return _Column(title=title, cell=cell, essential=essential)


def standing_table(comparison: WorkloadComparison) -> TextTable:
    """The claim's policy against the frontier of each other one, at equal attainment."""
    ours = comparison.claim.policy
    rows = tuple(
        (
            each.other,
            _excess(each, at_target=True),
            _excess(each, at_target=False),
            percent(each.worst.missed),
            "on or under" if each.on_or_under else "above",
        )
        for each in comparison.standings
    )
    target = percent(1 - comparison.missed)
    return TextTable(
        title=f"{comparison.workload}: {ours} against the frontier of every other policy",
        columns=("policy", f"GPU-hours of {ours} at {target}", "at its worst setting", "which misses", ours),
        rows=rows,
        notes=(
            "GPU-hours over those of the other policy's frontier where as many requests miss; on: within "
            f"{percent(EQUAL)}; not reached: the other policy misses more at every setting tried.",
        )
        if rows
        else (),
    )


def settings_table(comparison: WorkloadComparison) -> TextTable:
    """Every setting tried, the mean over its seeds; those on a frontier are marked."""
    rows = [
        (
            each.policy,
            NONE if setting.value is None else f"{setting.value:g}",
            percent(setting.missed),
            hours(setting.gpu_hours),
            hours(setting.measures["wasted_gpu_hours"]),
            f"{setting.measures['starts']:,.0f}",
            str(setting.seeds),
            "on the frontier" if setting in each.hull else "",
        )
        for each in comparison.frontiers
        for setting in each.settings
    ]
    return TextTable(
        title=f"{comparison.workload}: every setting",
        columns=("policy", "knob", "missed", "GPU-hours", "wasted", "starts", "seeds", ""),
        rows=tuple(rows),
    )


def headline_lines(comparison: WorkloadComparison) -> tuple[tuple[bool | None, str], ...]:
    """The claims on this workload, each with whether it holds (None: it cannot be told) and a sentence that says so."""
    claim = comparison.claim
    lines: list[tuple[bool | None, str]] = [(each.holds, _claim(each, comparison)) for each in comparison.savings]
    if not comparison.savings and claim.policy != claim.against and comparison.of(claim.policy) is not None:
        absent = [name for name in (claim.policy, claim.against) if comparison.of(name) is None]
        lines.append((None, f"{', '.join(absent) or claim.against} gave nothing to compare {claim.policy} with"))
    under = comparison.on_or_under_all
    if under is not None and comparison.rivals:
        above = [each for each in comparison.rivals if not each.on_or_under]
        words = ", ".join(f"{each.other} by {_percent_of(each.worst.excess)}" for each in above)
        sentence = f"{claim.policy} lies above the frontier of {words} at its worst setting" if above else ""
        lines.append((not above, sentence or f"{claim.policy} is on or under the frontier of every other policy"))
    return tuple(lines)


def _claim(each: Saving, comparison: WorkloadComparison) -> str:
    versus = f"{each.against}" if each.against_attained else f"{each.against}, which misses more at every setting,"
    more = "fewer" if each.saved >= 0 else "more"
    text = f"{WORDS[each.what]}: {each.policy} needs {percent(abs(round(each.saved, 3)))} {more} than {versus}"
    text += f" at {percent(1 - each.missed)} within SLO"
    if each.holds:
        return f"{text} (claimed: {percent(each.claimed)})"
    text += f", {(each.claimed - each.saved) * 100:.1f} points short of the {percent(each.claimed)} claimed"
    reference, bound = comparison.of(each.against), comparison.bound
    if each.what != "gpu_hours" or bound is None or reference is None:
        return text
    possible = 1 - bound.lower_gpu_hours / reference.at(each.missed).measures["gpu_hours"]
    limit = "so nobody could" if possible < each.claimed else "so the bound does not forbid it"
    return f"{text}; the bound lies {percent(max(0.0, round(possible, 4)))} below {each.against}, {limit}"


def _mark(matched: Matched) -> str:
    return {"interpolated": "", "cheapest": " †", "nearest": " *"}[matched.how]


def _mark_notes(all_: Iterable[Matched]) -> tuple[str, ...]:
    hows = {matched.how for matched in all_}
    notes = []
    if "nearest" in hows:
        notes.append("* attains it at no setting tried: shown is the one that misses least.")
    if "cheapest" in hows:
        notes.append("† no setting that misses more costs less: shown is the cheapest that attains it.")
    return tuple(notes)


def _bound_notes(comparison: WorkloadComparison) -> tuple[str, ...]:
    bound = comparison.bound
    if bound is None:
        return ()
    plan = "" if bound.plan_gpu_hours is None else f", a plan of it {hours(bound.plan_gpu_hours)}"
    return (
        f"Bound: perfect foresight needs {hours(bound.lower_gpu_hours)} GPU-hours{plan}, in the fluid model, with "
        f"{percent(comparison.missed)} of the minutes outside the SLO; servers that share a queue may do with less.",
    )


def _change(policy: str, matched: Matched, comparison: WorkloadComparison) -> str:
    """Against the reference at equal or better attainment; – where the policy attains less."""
    frontier = comparison.of(comparison.claim.against)
    if frontier is None or policy == comparison.claim.against:
        return ""
    reference = frontier.at(comparison.missed).measures
    if not matched.attained and matched.measures["missed"] > reference["missed"]:
        return NONE
    return signed_percent(matched.measures["gpu_hours"] / reference["gpu_hours"] - 1)


def _above(gpu_hours: float, comparison: WorkloadComparison) -> str:
    least = 0.0 if comparison.bound is None else comparison.bound.lower_gpu_hours
    return signed_percent(gpu_hours / least - 1) if least > 0 else NONE


def _values(matched: Matched) -> str:
    return "–".join(NONE if value is None else f"{value:g}" for value in matched.values)


def _excess(each: Standing, *, at_target: bool) -> str:
    excess = (each.at_target if at_target else each.worst).excess
    return "not reached" if excess is None else signed_percent(excess)


def _percent_of(excess: float | None) -> str:
    return NONE if excess is None else percent(round(excess, 3))

"""A live snapshot on a terminal: tiers against their SLOs, GPU-hours, the load generator, the last decisions."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from results.quantities import clock, hours, percent, seconds
from results.standing import WASTED
from testbed.live_decisions import Decision
from testbed.live_requests import METRICS
from testbed.live_snapshot import LiveSnapshot

DECISIONS_SHOWN = 5


def live_tables(snapshot: LiveSnapshot) -> RenderableType:
    """Latencies are those of the newest bin in which requests of the tier completed."""
    wasted = sum(snapshot.gpu_hours[state] for state in WASTED)
    spent = f"{hours(sum(snapshot.gpu_hours.values()))} GPU-hours, {hours(wasted)} of them wasted while scaling"
    late = "" if snapshot.lateness_s is None else f", load generator late by {seconds(snapshot.lateness_s.p99)} (p99)"
    return Group(_tiers(snapshot), Text(spent + late), *_decisions(snapshot))


def _tiers(snapshot: LiveSnapshot) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("tier", "ended", "SLO met", "TTFT p95", "TPOT p95", "E2E p95"):
        table.add_column(name, justify="left" if name == "tier" else "right")
    for tier, counts in snapshot.requests.items():
        if counts.ended:
            last = [snapshot.last(metric, tier.value, "p95") for metric in METRICS]
            met = percent(counts.met / counts.ended)
            table.add_row(
                tier.value, f"{counts.ended:,}", met, *("·" if each is None else seconds(each) for each in last)
            )
    return table


def _decisions(snapshot: LiveSnapshot) -> list[Text]:
    return [
        Text(f"{clock(decision.at_s)}  {_told(decision)}", no_wrap=True, overflow="ellipsis")
        for decision in reversed(snapshot.decisions[-DECISIONS_SHOWN:])
    ]


def _told(decision: Decision) -> str:
    solved = "" if decision.solve is None else f"program {decision.solve.termination}"
    steps = [f"{change:+d} {placement} ({reason})" for placement, change, reason in decision.steps]
    return "; ".join(part for part in (solved, *steps) if part)

"""Every decision that did something is a mark on the time line, and the mark tells what the decision said."""

from controller.types import Placement, SolveReport, Step
from results.decision_charts import MOST_MARKS, decision_group
from results.decisions import Decision
from results.quantities import clock

WEST, EAST = Placement("m", "west", "h100"), Placement("m", "east", "h100")


def decision(at_s: float, *changes: tuple[Placement, int, str], solve: SolveReport | None = None) -> Decision:
    steps = tuple(Step(placement=place, change=change, reason=reason) for place, change, reason in changes)
    return Decision(at_s=at_s, steps=steps, solve=solve, forecasts={})


def solved(termination: str, shortfall: float = 0.0) -> SolveReport:
    return SolveReport(
        termination=termination,
        objective=1.0,
        best_bound=0.9,
        gap=0.1,
        shortfall_tokens_per_s=shortfall,
        variables=1,
        constraints=1,
        solve_wall_s=0.25,
    )


def test_a_mark_tells_time_place_change_and_reason():
    made = (decision(3661.0, (WEST, 2, "peak of 900 tokens/s"), (EAST, -1, "utilisation 0.2 < 0.3")),)
    group = decision_group(made, len(made), 7200.0)
    assert group is not None
    (lanes,) = group.charts
    assert "<title>1:01:01  m@west/h100 +2: peak of 900 tokens/s</title>" in lanes.plots[0]
    assert "<title>1:01:01  m@east/h100 -1: utilisation 0.2 &lt; 0.3</title>" in lanes.plots[0]


def test_what_the_solver_said_stands_beneath_and_trouble_has_its_own_colour():
    made = (
        decision(0.0, solve=solved("Optimal Solution Found")),
        decision(10.0, solve=solved("Time Limit")),
        decision(20.0, solve=solved("Optimal Solution Found", shortfall=5.0)),
    )
    group = decision_group(made, len(made), 60.0)
    assert group is not None
    gaps, _ = group.charts[1].plots
    assert "Time Limit, gap 10 %, 250 ms" in gaps
    assert "short of 5 tokens/s" in gaps
    inks = {mark.label.split()[0]: mark.colour for mark in group.legend}
    assert gaps.count(f'fill="{inks["solved"]}"') == 1
    assert gaps.count(f'fill="{inks["not"]}"') == 2


def test_more_marks_than_a_page_can_show_are_thinned_evenly_at_every_placement_and_told():
    many = tuple(decision(float(at_s), (WEST, 1, "r"), (EAST, 1, "r")) for at_s in range(MOST_MARKS))
    group = decision_group(many, 2 * MOST_MARKS, float(MOST_MARKS))
    assert group is not None
    lanes = group.charts[0].plots[0]
    assert lanes.count("<title>") == MOST_MARKS
    assert lanes.count(f"{WEST} +1") == lanes.count(f"{EAST} +1")
    last = clock(float(MOST_MARKS - 2))
    assert lanes.count(f"<title>{last}  ") == 2, "both placements are drawn to the end of the run"
    assert f"{MOST_MARKS:,} of {2 * MOST_MARKS:,} decisions: the most telling" in group.note
    assert f"{MOST_MARKS:,} of {2 * MOST_MARKS:,} marks" in group.note


def test_where_nothing_was_done_there_is_no_time_line():
    assert decision_group((), 0, 60.0) is None

"""A study's tables and page, from runs that are made up."""

from results.frontier_tables import headline_lines, matched_table, settings_table, standing_table
from results.study_comparison import Claim, WorkloadComparison, compared
from results.study_overview import overview_table
from results.study_page import StudyPage, study_page
from results.study_record import RunBound, StudyRun, runs_csv

CLAIM = Claim(policy="mpc", against="reactive", gpu_hours=0.25, wasted_gpu_hours=0.8)


def run(policy: str, value: float | None, missed: float, gpu_hours: float, *, wasted: float = 10.0) -> StudyRun:
    return StudyRun(
        workload="office",
        policy=policy,
        knob="" if value is None else "k",
        value=value,
        seed=1,
        fidelity="requests",
        requests=1000,
        missed=missed,
        gpu_hours=gpu_hours,
        wasted_gpu_hours=wasted,
        sleeping_server_hours=0.0,
        usd=2 * gpu_hours,
        starts=12,
        stops=10,
        slo_met={"IW-F": 1 - missed, "NIW": 1.0},
        ttft_p95_s={"IW-F": 3.0, "NIW": 60.0},
        bound=None,
        sha256=f"{policy}{value}",
        commit="",
    )


RUNS = [
    run("reactive", 0.3, 0.001, 200.0, wasted=50.0),
    run("reactive", 0.9, 0.05, 100.0, wasted=40.0),
    run("static", None, 0.03, 300.0, wasted=0.0),
    run("hpa", 0.5, 0.001, 90.0),
    run("mpc", 0.003, 0.004, 110.0, wasted=4.0),
    run("mpc", 0.03, 0.02, 90.0, wasted=4.0),
]


def comparison(runs: list[StudyRun] = RUNS, bound: float | None = None) -> WorkloadComparison:
    policies = ("reactive", "static", "hpa", "mpc")
    if bound is not None:
        known = RunBound(missed=0.01, lower_gpu_hours=bound, plan_gpu_hours=bound + 2)
        runs = [each.model_copy(update={"bound": known}) for each in runs]
    return compared("office", runs, description="A day.", missed=0.01, claim=CLAIM, policies=policies)


def cells(policy: str, column: str, of: WorkloadComparison) -> str:
    table = matched_table(of)
    place = table.columns.index(column)
    return next(row[place] for row in table.rows if row[0].split(" ")[0] == policy)


def test_policies_stand_in_the_order_of_the_study_and_those_without_runs_are_left_out() -> None:
    found = comparison([each for each in RUNS if each.policy != "static"])
    assert [row[0].split(" ")[0] for row in matched_table(found).rows] == ["reactive", "hpa", "mpc"]


def test_a_policy_that_cannot_reach_the_attainment_is_marked_and_compared_with_nothing() -> None:
    found = comparison()
    assert any(row[0] == "static *" for row in matched_table(found).rows)
    assert cells("static", "vs reactive", found) == "–"
    assert any(note.startswith("* attains it at no setting") for note in matched_table(found).notes)


def test_hours_are_told_against_the_reference_and_above_the_bound() -> None:
    found = comparison(bound=80.0)
    assert cells("hpa", "> bound", found) == "+12.5 %"
    assert cells("hpa", "vs reactive", found).startswith("-")
    assert any("80.00 GPU-hours, a plan of it 82.00" in note for note in matched_table(found).notes)


def test_a_bound_at_another_attainment_is_not_shown() -> None:
    other = RunBound(missed=0.05, lower_gpu_hours=1.0, plan_gpu_hours=None)
    found = comparison([each.model_copy(update={"bound": other}) for each in RUNS])
    assert found.bound is None
    assert cells("hpa", "> bound", found) == "–"


def test_a_brief_table_has_fewer_columns_and_the_same_rows() -> None:
    brief, whole = matched_table(comparison(), brief=True), matched_table(comparison())
    assert set(brief.columns) < set(whole.columns)
    assert len(brief.rows) == len(whole.rows)


def test_a_claim_that_holds_is_said_to_hold() -> None:
    held = {line.split(":")[0]: holds for holds, line in headline_lines(comparison())}
    assert held["GPU-hours"] is True
    assert held["GPU-hours wasted while scaling"] is True


def test_a_claim_that_fails_says_by_how_much_and_whether_the_bound_forbids_it() -> None:
    dear = [run("mpc", 0.01, 0.01, 170.0, wasted=40.0), *RUNS[:2]]
    tight = comparison(dear, bound=160.0)
    (_, hours), (wasted_holds, _), _ = headline_lines(tight)
    assert "points short of the 25 % claimed" in hours
    assert "so nobody could" in hours
    assert wasted_holds is False
    loose = comparison(dear, bound=50.0)
    assert "the bound does not forbid it" in headline_lines(loose)[0][1]


def test_a_policy_above_the_frontier_is_named_with_its_excess() -> None:
    found = comparison()
    assert found.on_or_under_all is False
    assert any(holds is False and "hpa by " in line for holds, line in headline_lines(found))
    rows = {row[0]: row for row in standing_table(found).rows}
    assert rows["hpa"][-1] == "above"
    assert rows["reactive"][-1] == "on or under"


def test_without_the_policy_of_the_claim_nothing_is_claimed() -> None:
    found = comparison([each for each in RUNS if each.policy != "mpc"])
    assert found.on_or_under_all is None
    assert headline_lines(found) == ()
    assert not standing_table(found).rows


def test_the_overview_has_a_row_per_workload_with_the_best_rival() -> None:
    table = overview_table([comparison(), comparison(bound=80.0)])
    assert len(table.rows) == 2
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert (row["best rival"], row["frontiers"]) == ("hpa", "above 1")
    assert row["> bound"].startswith("+")
    assert row["waste vs reactive"].startswith("-")


def test_the_overview_is_empty_without_the_policy_of_the_claim() -> None:
    assert not overview_table([comparison([each for each in RUNS if each.policy != "mpc"])]).rows
    assert not overview_table([]).rows


def test_every_setting_is_listed_and_those_on_a_frontier_are_marked() -> None:
    rows = settings_table(comparison()).rows
    assert len(rows) == len(RUNS)
    assert sum(row[-1] == "on the frontier" for row in rows) == 6


def test_the_csv_has_a_row_per_run_and_a_column_per_quantity() -> None:
    header, *rows = runs_csv(RUNS).splitlines()
    assert header.startswith("workload,policy,knob,value,seed,missed,gpu_hours")
    assert "slo_met_IW-F" in header
    assert len(rows) == len(RUNS)


def test_the_page_is_self_contained_and_escapes_what_comes_from_files() -> None:
    about = StudyPage(title="<b>s</b>", description="d", subtitle="", remarks=("r",), failures=("office mpc: broke",))
    page = study_page(about, [comparison()])
    assert "&lt;b&gt;s" in page and "<b>s</b>" not in page
    assert "<svg" in page and "office mpc: broke" in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_study_of_which_nothing_has_finished_has_a_page_too() -> None:
    about = StudyPage(title="s", description="", subtitle="")
    assert "No run has finished" in study_page(about, [])

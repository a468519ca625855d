"""`testbed compare` and `testbed figures` on small runs: what is put side by side, and what is refused."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from results.summary import RunSummary
from testbed.compared_runs import cases_of

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of the tests below lie, made once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def run(testbed: Command, small_scenario: Any, runs: Path) -> Callable[..., str]:
    """Make a short run of reactive and static, once per name; returns its folder."""

    def make(name: str, *options: str) -> str:
        folder = runs / name
        if not folder.exists():
            scenario = runs / "small.yaml"
            if not scenario.exists():
                shutil.copy(small_scenario.write(), scenario)
            short = ("--set", "workload.synthetic.horizon_h=2", "--policy", "reactive", "--policy", "static")
            code, _, err = testbed("run", str(scenario), *short, *options, "--out", str(folder))
            assert (code, err) == (0, "")
        return str(folder)

    return make


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_seeds_form_a_group_and_the_table_holds_their_summaries_mean(testbed: Command, run: Any) -> None:
    folders = [run(f"seed-{seed}", "--seed", str(seed)) for seed in (1, 2)]
    code, out, err = testbed("compare", *folders, "--out", "cmp")
    assert (code, err) == (0, "")
    assert "Means over 2 seeds" in out and "page: cmp/compare.html" in out
    held = [RunSummary.read(Path(folder)).policies["static"].gpu_hours for folder in folders]
    (row,) = (row for row in table("cmp/compare.csv") if row["quantity"] == "GPU-hours" and row["policy"] == "static")
    assert float(row["value"]) == sum(held) / 2
    assert " to " in row["interval"]
    page = Path("cmp/compare.html").read_text(encoding="utf-8")
    assert row["interval"] in page and "<script" not in page


def test_the_baseline_stands_first(testbed: Command, run: Any) -> None:
    assert testbed("compare", run("seed-1", "--seed", "1"), "--baseline", "static", "--out", "cmp")[0] == 0
    assert [row["policy"] for row in table("cmp/compare.csv")[:2]] == ["static", "reactive"]
    code, _, err = testbed("compare", run("seed-1"), "--baseline", "statik")
    assert code == 2
    assert "--baseline statik: not compared; did you mean 'static'?" in err


def test_a_policy_that_comes_twice_with_a_seed_stands_twice_by_its_folder(run: Any) -> None:
    folders = [Path(run(name, "--seed", "1")) for name in ("seed-1", "again")]
    (case,), _ = cases_of(folders, anyway=False)
    labels = ["reactive (seed-1)", "static (seed-1)", "reactive (again)", "static (again)"]
    assert [group.label for group in case.groups()] == labels
    assert case.groups("again")[0].label == "reactive (again)"


def test_folders_of_the_same_name_are_told_apart_by_their_paths(run: Any) -> None:
    ours = Path(run("seed-1", "--seed", "1"))
    other = Path("other") / ours.name
    shutil.copytree(ours, other)
    (case,), _ = cases_of([ours, other], anyway=False)
    labels = [f"{policy} ({path})" for path in (ours, other) for policy in ("reactive", "static")]
    assert [group.label for group in case.groups()] == labels


def test_a_folder_given_twice_is_refused_however_it_is_spelled(testbed: Command, run: Any) -> None:
    ours = run("seed-1", "--seed", "1")
    code, _, err = testbed("compare", ours, os.path.relpath(ours))
    assert code == 2
    assert "is given twice; give each run once" in err


def test_a_baseline_is_a_run_however_its_folder_is_spelled(run: Any) -> None:
    folders = [Path(run(name, "--seed", "1")) for name in ("seed-1", "again")]
    (case,), _ = cases_of(folders, anyway=False)
    assert case.groups(f"{os.path.relpath(folders[1])}/")[0].label == "reactive (again)"


def test_a_policy_that_did_not_finish_is_shown_and_named_and_left_out_of_figures(testbed: Command, run: Any) -> None:
    cut = Path("cut")
    shutil.copytree(run("seed-1", "--seed", "1"), cut)
    for name in ("summary.json", "manifest.json"):
        values = json.loads((cut / name).read_text(encoding="utf-8"))
        values["policies"]["static"]["status"] = "interrupted"
        (cut / name).write_text(json.dumps(values), encoding="utf-8")
    told = "cut: static did not finish (interrupted): shown, not compared"
    code, out, err = testbed("compare", "cut", "--out", "cmp")
    assert (code, err) == (0, "")
    assert told in out and told in Path("cmp/compare.html").read_text(encoding="utf-8")
    code, out, err = testbed("figures", "cut", "--out", "figures", "--format", "svg")
    assert (code, err) == (0, "")
    assert told in out
    assert {row["policy"] for row in table("figures/runs.csv")} == {"reactive"}


def test_runs_under_other_conditions_are_refused_in_one_line_that_names_them(testbed: Command, run: Any) -> None:
    ours, other = run("seed-1", "--seed", "1"), run("more", "--seed", "1", "--set", "regions.west.gpus.h100=7")
    code, _, err = testbed("compare", ours, other)
    assert code == 2
    assert "regions.west.gpus.h100 7.0 against 4.0" in err and "--anyway" in err
    code, out, _ = testbed("compare", ours, other, "--anyway", "--out", "cmp")
    assert code == 0
    assert "regions.west.gpus.h100 7.0 against 4.0" in out
    assert "regions.west.gpus.h100 7.0 against 4.0" in Path("cmp/compare.html").read_text(encoding="utf-8")


def test_other_requests_under_the_same_seed_are_refused(testbed: Command, run: Any) -> None:
    ours, other = Path(run("seed-1", "--seed", "1")), Path(run("seed-2", "--seed", "2"))
    forged = Path("forged")
    shutil.copytree(ours, forged)
    shutil.copy(other / "trace.parquet", forged / "trace.parquet")
    code, _, err = testbed("compare", str(ours), str(forged))
    assert code == 2
    told = f"forged differs from {ours} in its requests (trace.parquet), though the seed is the same"
    assert told in err
    code, _, err = testbed("compare", str(other), str(ours), str(forged))
    assert code == 2
    assert told in err


def test_a_folder_without_a_run_is_refused(testbed: Command) -> None:
    Path("empty").mkdir()
    for path in ("empty", "x" * 300):
        code, _, err = testbed("compare", path)
        assert code == 2
        assert "neither a run folder" in err


@pytest.mark.parametrize(
    ("content", "told"), [("a: [1", "not a readable YAML file"), ("workloads:\n", "no run of requests has finished")]
)
def test_a_study_that_is_none_is_refused_in_one_line(testbed: Command, content: str, told: str) -> None:
    Path("sweep").mkdir()
    Path("sweep/study.yaml").write_text(content, encoding="utf-8")
    code, _, err = testbed("compare", "sweep")
    assert code == 2
    assert told in err and err.count("\n") == 1


def test_a_record_of_a_sweep_that_is_none_is_refused_in_one_line(testbed: Command, run: Any) -> None:
    folder = Path("sweep/runs/w/p/run")
    shutil.copytree(run("seed-1", "--seed", "1"), folder)
    Path("sweep/study.yaml").write_text("workloads: {w: }", encoding="utf-8")
    (folder / "study_run.json").write_text("{", encoding="utf-8")
    code, _, err = testbed("compare", "sweep")
    assert code == 2
    assert "study_run.json: not what a sweep writes" in err and err.count("\n") == 1


def test_a_scenario_that_is_no_text_is_refused_in_one_line(testbed: Command, run: Any) -> None:
    shutil.copytree(run("seed-1", "--seed", "1"), "broken")
    Path("broken/scenario.yaml").write_bytes(b"\xff\xfe\x00")
    code, _, err = testbed("compare", "broken")
    assert code == 2
    assert "scenario.yaml: not readable" in err


def test_paths_are_shown_as_they_are(testbed: Command, run: Any) -> None:
    code, out, err = testbed("compare", run("seed-1", "--seed", "1"), "--out", "[/y]")
    assert (code, err) == (0, "")
    assert "page: [/y]/compare.html" in out


@pytest.fixture
def study(small_scenario: Any) -> str:
    """Two workloads that differ in their share of NIW, one with bursts, reactive and siloed."""
    values = small_scenario.values(regions={"west": {"gpus": {"h100": 8}}, "east": {"gpus": {"h100": 8}}})
    values["workload"] = {"synthetic": {**values["workload"]["synthetic"], "horizon_h": 2}}
    synthetic = {"interactive": {"first_minute_factor": 9}}
    path = Path(small_scenario.folder) / "study.yaml"
    workloads = {
        "mix-3-1": {"set": {"workload": {"synthetic": {"interactive_per_niw": 3}}}},
        "mix-1-1": {"set": {"workload": {"synthetic": {"interactive_per_niw": 1}}}},
        "burst": {"set": {"workload": {"synthetic": synthetic}}},
    }
    whole = {"name": "tiny", "scenario": values, "workloads": workloads, "policies": {"reactive": None, "siloed": None}}
    path.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return str(path)


def test_a_study_is_run_and_every_figure_is_drawn_with_its_numbers(testbed: Command, study: str) -> None:
    code, out, err = testbed("figures", study, "--out", "figures", "--format", "svg", "--jobs", "1")
    assert (code, err) == (0, "")
    names = {path.stem for path in Path("figures").glob("*.svg")}
    by_case = ("instance-hours", "waste", "ttft", "e2e", "utilisation")
    assert names >= {f"{figure}-{case}" for figure in by_case for case in ("mix-3-1", "mix-1-1", "burst")}
    assert names >= {"unified-or-siloed", "niw-share", "burst-misses-burst"}
    assert {path.stem for path in Path("figures").glob("*.csv")} == names | {"compare", "runs"}
    shares = {row["case"]: float(row["niw_share"]) for row in table("figures/niw-share.csv")}
    assert shares["mix-3-1"] < shares["mix-1-1"]
    assert "burst" not in shares
    # Servers of one GPU: instance-hours and GPU-hours are the same, and the models add up to the table's total.
    for figure, column, quantity in (
        ("instance-hours", "instance_hours", "GPU-hours"),
        ("waste", "gpu_hours", "wasted while scaling"),
    ):
        drawn = sum(float(row[column]) for row in table(f"figures/{figure}-mix-1-1.csv") if row["policy"] == "siloed")
        (said,) = (
            float(row["value"])
            for row in table("figures/compare.csv")
            if (row["case"], row["policy"], row["quantity"]) == ("mix-1-1", "siloed", quantity)
        )
        assert drawn == pytest.approx(said, rel=1e-12)
    # What is there is not run again, and the same runs give the same bytes.
    before = {path.name: path.read_bytes() for path in Path("figures").glob("*.svg")}
    assert testbed("figures", "results/runs/tiny", "--out", "figures", "--format", "svg")[0] == 0
    assert {path.name: path.read_bytes() for path in Path("figures").glob("*.svg")} == before
    assert "unified-or-siloed" in out


def test_a_format_that_is_none_is_refused(testbed: Command) -> None:
    code, _, err = testbed("figures", "x", "--out", "figures", "--format", "gif")
    assert code == 2
    assert "--format gif; wanted svg, png, pdf" in err


def test_seeds_and_jobs_of_a_run_that_is_there_are_refused(testbed: Command, run: Any) -> None:
    code, _, err = testbed("figures", run("seed-1", "--seed", "1"), "--out", "figures", "--seeds", "1,2")
    assert code == 2
    assert "--seeds and --jobs are for a study" in err

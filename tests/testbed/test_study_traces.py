"""Public traces made to fit a study, and traces of which the first hours are history."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from testbed.offered_load import OfferedLoad, offered_load
from testbed.scenario import ScenarioError
from testbed.scenario_file import load_scenario
from testbed.study import StudyError, StudyWorkload
from testbed.study_fluid_trace import RateTrace, fitted_rates
from testbed.study_trace import fitted_trace, found_trace, traces_folder
from workloads.request import Tier
from workloads.trace import Trace

HOURS = 6
PER_BIN = 40


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """Six hours of counts per 10 s: twice as many in the second half."""
    folder = tmp_path / "public"
    folder.mkdir()
    rng = np.random.default_rng(1)
    rows = ["Time,TIMESTAMP"]
    for place in range(HOURS * 360):
        begins_s = 10 * place
        at = f"2024-05-14 {begins_s // 3600:02d}:{begins_s // 60 % 60:02d}:{begins_s % 60:02d}"
        rows.append(f"{at},{rng.poisson(PER_BIN * (1 if place < HOURS * 180 else 2))}")
    path = folder / "counts.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def workload(history_h: float = 2.0, **changes: Any) -> StudyWorkload:
    trace = {
        "file": "counts.csv",
        "models": {"a": 3, "b": 1},
        "regions": {"west": 0.5, "east": 0.5},
        "tiers": {"IW-F": 0.8, "NIW": 0.2},
        "niw_deadline_h": 1,
        "mean_requests_per_s": 2.0,
        "prompt_tokens": [[0, 10], [1, 1000]],
        "output_tokens": [[0, 1], [1, 100]],
    }
    return StudyWorkload.model_validate({"trace": {**trace, **changes}, "history_h": history_h})


def test_a_public_trace_gets_the_models_regions_tiers_and_rate_of_the_study(counts: Path, tmp_path: Path) -> None:
    trace = Trace.read(tmp_path / fitted_trace("real", workload(), counts, 1, tmp_path))
    assert trace.horizon_s == HOURS * 3600
    run = trace.numbers("arrival_s") >= 2 * 3600
    assert run.sum() / (4 * 3600) == pytest.approx(2.0, rel=0.05)
    for column, name, share in (("model", "a", 0.75), ("region", "west", 0.5), ("tier", Tier.NIW, 0.2)):
        assert trace.labels(column).rows(name).mean() == pytest.approx(share, abs=0.03)
    deadlines = trace.numbers("deadline_s") - trace.numbers("arrival_s")
    assert np.isnan(deadlines[trace.interactive]).all()
    assert deadlines[~trace.interactive] == pytest.approx(3600.0)


def test_the_shape_of_the_trace_stays(counts: Path, tmp_path: Path) -> None:
    trace = Trace.read(tmp_path / fitted_trace("real", workload(), counts, 1, tmp_path))
    halves = np.bincount((trace.numbers("arrival_s") >= HOURS * 1800).astype(int))
    assert halves[1] / halves[0] == pytest.approx(2.0, rel=0.08)


def test_it_is_made_once_and_again_when_the_recipe_changes(counts: Path, tmp_path: Path) -> None:
    first = fitted_trace("real", workload(), counts, 1, tmp_path)
    made = (tmp_path / first).stat().st_mtime_ns
    assert fitted_trace("real", workload(), counts, 1, tmp_path) == first
    assert (tmp_path / first).stat().st_mtime_ns == made
    others = {
        fitted_trace("real", workload(), counts, 2, tmp_path),
        fitted_trace("real", workload(mean_requests_per_s=1.0), counts, 1, tmp_path),
        fitted_trace("real", workload(history_h=1.0), counts, 1, tmp_path),
    }
    assert len({first, *others}) == 4


def test_a_window_cuts_and_too_much_history_is_one_line(counts: Path, tmp_path: Path) -> None:
    cut = workload(hours=[1, 3], history_h=1)
    assert Trace.read(tmp_path / fitted_trace("real", cut, counts, 1, tmp_path)).horizon_s == 7200
    with pytest.raises(StudyError, match=r"workload real, trace counts\.csv: history_h leaves nothing to run of 2 h"):
        fitted_trace("real", workload(hours=[1, 3], history_h=2), counts, 1, tmp_path)


def test_lengths_are_needed_for_a_file_of_rates(counts: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not say how long requests are"):
        fitted_trace("real", workload(prompt_tokens=None), counts, 1, tmp_path)


def test_traces_are_looked_for_by_name_in_the_folder_given_or_in_the_environment(
    counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = workload(file=["elsewhere.csv", "counts.csv"]).trace
    assert public is not None
    monkeypatch.delenv("TESTBED_TRACES", raising=False)
    assert traces_folder(None) is None
    assert found_trace(public, None) is None
    monkeypatch.setenv("TESTBED_TRACES", str(tmp_path))
    assert found_trace(public, traces_folder(None)) == counts
    with pytest.raises(StudyError, match="traces nowhere: no such folder"):
        traces_folder(Path("nowhere"))


def test_rates_hold_all_tokens_of_the_trace_at_its_own_rate(counts: Path, tmp_path: Path) -> None:
    path = tmp_path / fitted_rates("real", workload(), counts, 1, 60.0, tmp_path)
    rates = RateTrace.read(path)
    assert {len(series) for series in rates.interactive.values()} == {HOURS * 60}
    per_s = sum(series.mean() for series in (*rates.interactive.values(), *rates.niw.values()))
    lengths = rates.mix["a"]
    mean_requests_per_s = 1.5 * PER_BIN / 10
    assert per_s == pytest.approx(mean_requests_per_s * (lengths.prompt_mean + lengths.output_mean), rel=0.02)
    west = sum(series.sum() for pool, series in rates.interactive.items() if pool.region == "west")
    assert west == pytest.approx(0.5 * sum(series.sum() for series in rates.interactive.values()))
    assert rates.mix["b"].tiers == {Tier.IW_F, Tier.NIW}
    rates.write(tmp_path / "again.npz")
    assert RateTrace.read(tmp_path / "again.npz").mix == rates.mix


# A scenario's own trace with history.


def of_trace(small_scenario: Any, history_h: float) -> OfferedLoad:
    values = small_scenario.values(workload={"trace": "day.parquet", "history_h": history_h}, demand_bin_s=60)
    path = Path(small_scenario.folder) / "with-trace.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return offered_load(*load_scenario(str(path)))


@pytest.fixture
def day(small_scenario: Any, counts: Path) -> Trace:
    """A trace beside the small scenario."""
    fitting = workload(models={"a": 1}, mean_requests_per_s=0.5)
    made = small_scenario.folder / fitted_trace("day", fitting, counts, 1, small_scenario.folder)
    made.rename(small_scenario.folder / "day.parquet")
    return Trace.read(small_scenario.folder / "day.parquet")


def test_the_first_hours_of_a_trace_are_history_and_the_rest_is_the_run(small_scenario: Any, day: Trace) -> None:
    load = of_trace(small_scenario, 2)
    assert load.trace.horizon_s == day.horizon_s - 7200
    assert len(load.trace) == (day.numbers("arrival_s") >= 7200).sum()
    before = [*load.interactive_before.values(), *load.niw_before.values()]
    assert {len(series) for series in before} == {120}
    seen = day.total_tokens[day.numbers("arrival_s") < 7200].sum()
    assert sum(series.sum() for series in before) * 60 == pytest.approx(seen)


def test_without_history_the_whole_trace_is_the_run(small_scenario: Any, day: Trace) -> None:
    load = of_trace(small_scenario, 0)
    assert len(load.trace) == len(day)
    assert not load.interactive_before


def test_history_that_leaves_nothing_or_does_not_fill_bins_is_one_line(small_scenario: Any, day: Trace) -> None:
    with pytest.raises(ScenarioError, match=r"leaves nothing to run of day\.parquet, which covers 6 h"):
        of_trace(small_scenario, 6)
    with pytest.raises(ScenarioError, match="no multiple of demand_bin_s 60"):
        of_trace(small_scenario, 0.51)

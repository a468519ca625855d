"""Study files: what they say, and how they fail in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from results.study_record import StudyRun
from testbed.scenario_file import overlaid
from testbed.study import StudyError, StudyPolicy, bundled_studies, is_study, load_study, study_of_scenario
from testbed.study_choice import SweepChoice, known_policies, present_workloads
from testbed.study_runs import Chosen, base_values, parameters, planned_runs, refined, spread

ALL = SweepChoice(folder=Path("unused"), jobs=1)


def study_values(small_scenario: Any, **changes: Any) -> dict[str, Any]:
    values = {
        "name": "s",
        "scenario": small_scenario.values(),
        "workloads": {"plain": None, "twice": {"set": {"workload": {"synthetic": {"mean_requests_per_s": 2}}}}},
        "policies": {
            "static": {"knob": "servers_per_pool", "values": [1, 2]},
            "reactive": {"knob": "scale_out_above", "values": [0.5, 0.9], "follows": {"scale_in_below": 0.4}},
        },
    }
    return {**values, **changes}


def write(small_scenario: Any, **changes: Any) -> Path:
    path = Path(small_scenario.folder) / "study.yaml"
    path.write_text(yaml.safe_dump(study_values(small_scenario, **changes), sort_keys=False), encoding="utf-8")
    return path


def chosen(study: Any, **changes: Any) -> Chosen:
    given: dict[str, Any] = {
        "workloads": tuple(study.workloads),
        "policies": tuple(study.policies),
        "seeds": study.seeds,
        "overrides": (),
        "traces": {},
    }
    return Chosen(**{**given, **changes})


FAULTS = [
    ({"atainment": 0.9}, "unknown key 'atainment'; did you mean 'attainment'?"),
    ({"attainment": 1.0}, "attainment: Input should be less than 1"),
    ({"scenario": None}, "give a base, a scenario, or both"),
    ({"workloads": {"w": {"policies": ["reactiv"]}}}, "workloads.w.policies: no policy 'reactiv'"),
    ({"workloads": {}}, "workloads: "),
    ({"workloads": {"a b": None}}, "it names a folder"),
    ({"quick": {"workloads": ["plian"]}}, "quick.workloads: no workload 'plian'; did you mean 'plain'?"),
    ({"policies": {"static": {"knob": "servers_per_pool"}}}, "policies.static: knob and values come together"),
    ({"policies": {"static": {"knob": "servers_per_pool", "values": [1, 1]}}}, "each once"),
    ({"policies": {"static": {"follows": {"x": 2}}}}, "follows needs a knob to follow"),
    ({"workloads": {"w": {"history_h": 2}}}, "history_h here belongs to a trace"),
    (
        {"workloads": {"w": {"trace": {"file": "f", "models": {"a": 1}, "regions": {"w": 1}, "hours": [3, 2]}}}},
        "wanted [from, to] with 0 <= from < to",
    ),
]


@pytest.mark.parametrize(("changes", "said"), FAULTS)
def test_a_faulty_study_is_one_line_that_names_the_key(small_scenario: Any, changes: Any, said: str) -> None:
    with pytest.raises(StudyError) as raised:
        load_study(str(write(small_scenario, **changes)))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_study_that_is_not_there_is_one_line() -> None:
    with pytest.raises(StudyError, match="did you mean 'paper-control'"):
        load_study("paper-contrl")


def test_a_run_that_cannot_be_made_is_named(small_scenario: Any) -> None:
    bad = {"reactive": {"knob": "scale_out_bove", "values": [0.5]}}
    study, path = load_study(str(write(small_scenario, policies=bad)))
    with pytest.raises(StudyError, match=r"workload plain, policy reactive, scale_out_bove=0.5: .*did you mean"):
        planned_runs(study, path, chosen(study))
    worse = {"w": {"set": {"regions": {"moon": {}}}}}
    study, path = load_study(str(write(small_scenario, workloads=worse)))
    with pytest.raises(StudyError, match="workload w, policy static, servers_per_pool=1: regions"):
        planned_runs(study, path, chosen(study))


def test_every_workload_meets_every_policy_at_every_value_and_seed(small_scenario: Any) -> None:
    study, path = load_study(str(write(small_scenario, seeds=[1, 2])))
    planned = planned_runs(study, path, chosen(study))
    assert len(planned) == 2 * 4 * 2
    assert len({run.sha256 for run in planned}) == len({run.folder for run in planned}) == len(planned)
    assert planned == planned_runs(study, path, chosen(study))


def test_a_follower_is_so_many_times_the_knob(small_scenario: Any) -> None:
    study, _ = load_study(str(write(small_scenario)))
    given = parameters(study.policies["reactive"], 0.9)
    assert given == pytest.approx({"scale_out_above": 0.9, "scale_in_below": 0.36})


def test_a_knob_may_lie_within_a_mapping_and_is_whole_where_its_values_are(small_scenario: Any) -> None:
    entry = {"knob": "forecast.peak_quantile", "values": [0.5], "parameters": {"forecast": {"step_s": 60}}}
    study, _ = load_study(str(write(small_scenario, policies={"lt-i": entry, "static": {"knob": "n", "values": [2]}})))
    assert parameters(study.policies["lt-i"], 0.5) == {"forecast": {"step_s": 60, "peak_quantile": 0.5}}
    assert repr(parameters(study.policies["static"], 3.0)) == "{'n': 3}"


def test_one_policy_may_enter_twice_under_names_of_its_own(small_scenario: Any) -> None:
    twice = {"static": None, "static-3": {"policy": "static", "parameters": {"servers_per_pool": 3}}}
    study, path = load_study(str(write(small_scenario, policies=twice)))
    assert {run.catalogue_name for run in planned_runs(study, path, chosen(study))} == {"static"}


def test_an_overlay_goes_mapping_by_mapping_and_a_null_takes_away() -> None:
    below = {"a": {"x": 1, "y": 2}, "b": 1}
    assert overlaid(below, {"a": {"y": None, "z": 3}, "b": {"c": 1}}) == {"a": {"x": 1, "z": 3}, "b": {"c": 1}}
    assert below == {"a": {"x": 1, "y": 2}, "b": 1}


def test_a_workload_may_name_the_policies_that_run_on_it(small_scenario: Any) -> None:
    workloads = {"all": None, "some": {"policies": ["static"]}}
    study, path = load_study(
        str(write(small_scenario, workloads=workloads, policies={"static": None, "reactive": None}))
    )
    runs = [(run.workload, run.policy) for run in planned_runs(study, path, chosen(study))]
    assert runs == [("all", "static"), ("all", "reactive"), ("some", "static")]


def test_a_studys_scenario_is_laid_over_its_base(small_scenario: Any) -> None:
    small_scenario.write()
    laid_over = {"base": "small.yaml", "scenario": {"min_servers": 0, "description": "laid over"}}
    study, path = load_study(str(write(small_scenario, **laid_over)))
    base = base_values(study, path)
    assert (base["min_servers"], base["description"]) == (0, "laid over")
    assert base["models"] == small_scenario.values()["models"]


def test_fewer_values_are_spread_over_all_of_them() -> None:
    assert spread([1, 2, 3, 4, 5], 3) == (1, 3, 5)
    assert spread([1, 2], 3) == (1, 2)
    assert spread([1, 2, 3], 1) == (2,)
    assert spread([1, 2, 3], None) == (1, 2, 3)


def test_a_policy_that_does_not_exist_is_left_out_and_told(small_scenario: Any) -> None:
    study, _ = load_study(str(write(small_scenario, policies={"reactive": None, "reactivv": None})))
    told: list[str] = []
    assert known_policies(study, ALL, told.append) == ("reactive",)
    assert "there is no policy 'reactivv'; did you mean 'reactive'?" in told[0]


def test_a_policy_or_workload_asked_for_must_be_in_the_study(small_scenario: Any) -> None:
    study, _ = load_study(str(write(small_scenario)))
    with pytest.raises(StudyError, match="--policy hpa: not in this study"):
        known_policies(study, SweepChoice(folder=Path("x"), jobs=1, policies=("hpa",)), print)
    with pytest.raises(StudyError, match="--workload plan: not in this study; did you mean 'plain'"):
        present_workloads(study, SweepChoice(folder=Path("x"), jobs=1, workloads=("plan",)), print)


def test_a_workload_without_its_trace_is_left_out_and_told(small_scenario: Any, tmp_path: Path) -> None:
    trace = {"file": ["a.csv", "b.csv"], "models": {"a": 1}, "regions": {"west": 1}}
    study, _ = load_study(str(write(small_scenario, workloads={"plain": None, "real": {"trace": trace}})))
    told: list[str] = []
    assert present_workloads(study, ALL, told.append) == (("plain",), {})
    assert "real (a.csv)" in told[0] and "--traces DIR" in told[0]
    (tmp_path / "traces" / "deep").mkdir(parents=True)
    (tmp_path / "traces" / "deep" / "b.csv").touch()
    there = SweepChoice(folder=Path("x"), jobs=1, traces_folder=tmp_path / "traces")
    assert present_workloads(study, there, print)[1] == {"real": tmp_path / "traces" / "deep" / "b.csv"}


@pytest.mark.parametrize("name", bundled_studies())
def test_every_bundled_study_can_be_planned(name: str) -> None:
    study, path = load_study(name)
    policies = known_policies(study, ALL, lambda _: None)
    traces = {
        (w, seed): "traces/t.parquet" for w, entry in study.workloads.items() if entry.trace for seed in study.seeds
    }
    assert planned_runs(study, path, chosen(study, policies=policies, traces=traces))


def test_a_study_is_told_from_a_scenario(small_scenario: Any) -> None:
    assert is_study(str(write(small_scenario)))
    assert is_study("paper-control")
    assert not is_study(str(small_scenario.write()))
    assert not is_study("quickstart")


def test_a_scenario_makes_a_study_of_its_own_workload_and_policies(small_scenario: Any) -> None:
    study, path = study_of_scenario(str(small_scenario.write()), ("reactive.scale_out_above=0.5,0.9",))
    assert list(study.workloads) == ["small"]
    assert study.policies["reactive"].values == (0.5, 0.9)
    assert len(planned_runs(study, path, chosen(study))) == len(study.policies) + 1
    with pytest.raises(StudyError, match=r"wanted POLICY\.PARAMETER=V1,V2"):
        study_of_scenario(str(small_scenario.write()), ("reactive.scale_out_above=high",))


def run(value: float, missed: float) -> StudyRun:
    return StudyRun(
        workload="w",
        policy="p",
        knob="k",
        value=value,
        seed=1,
        fidelity="requests",
        requests=1,
        missed=missed,
        gpu_hours=1.0,
        wasted_gpu_hours=0.0,
        sleeping_server_hours=0.0,
        usd=None,
        starts=0,
        stops=0,
        slo_met={},
        ttft_p95_s={},
        bound=None,
        sha256="",
        commit="",
    )


RATIO = StudyPolicy(knob="k", values=(0.4, 0.9))
WHOLE = StudyPolicy(knob="k", values=(2, 6))


def test_the_next_value_is_the_geometric_mean_of_the_two_that_enclose_the_attainment() -> None:
    assert refined(RATIO, [run(0.4, 0.001), run(0.9, 0.05)], 0.01) == pytest.approx(0.6)


def test_it_goes_on_inside_the_narrower_bracket() -> None:
    found = refined(RATIO, [run(0.4, 0.001), run(0.6, 0.02), run(0.9, 0.05)], 0.01)
    assert found is not None
    assert 0.4 < found < 0.6


def test_where_nothing_encloses_the_attainment_there_is_no_next_value() -> None:
    assert refined(RATIO, [run(0.4, 0.02), run(0.9, 0.05)], 0.01) is None
    assert refined(RATIO, [run(0.4, 0.0), run(0.9, 0.001)], 0.01) is None


def test_a_knob_of_whole_numbers_ends_at_neighbours() -> None:
    assert refined(WHOLE, [run(2, 0.5), run(3, 0.0)], 0.01) is None
    assert refined(WHOLE, [run(2, 0.5), run(6, 0.0)], 0.01) == 3

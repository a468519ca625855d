"""`testbed calibrate`: a record of emulated servers is reproduced to the bit, and what differs is found and told."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.profile import ServerProfile, load_profile
from profiler.profile_parts import LatencySlo, MeasuredTheta
from results.calibration import CALIBRATION_FILE, CalibrationRecord, CaseRecord, Measure
from results.calibration_tables import measures_table
from testbed import calibration_profiles
from testbed.calibration_alone import with_step_times
from testbed.calibration_runs import sustained_requests_per_s
from testbed.capacities import capacities, load_profiles, strictest_slo
from testbed.offered_load import offered_load
from testbed.profile_job import ProfileJob
from testbed.run import run_experiment
from testbed.scenario_file import load_scenario

Command = Callable[..., tuple[int, str, str]]
SHORT = ("--set", "workload.synthetic.horizon_h=6")


def read(folder: str) -> CalibrationRecord:
    return CalibrationRecord.model_validate_json((Path(folder) / CALIBRATION_FILE).read_text(encoding="utf-8"))


def named(measures: tuple[Measure, ...], name: str) -> Measure:
    (one,) = (one for one in measures if one.name == name)
    return one


@pytest.fixture(scope="module")
def recorded(make_small_scenario: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `reactive` in two regions that are 0.2 s apart, as it would lie there from another machine."""
    folder = tmp_path_factory.mktemp("recorded")
    scenario = make_small_scenario(folder)
    values = scenario.values()
    values["regions"]["west"]["rtt_s"] = {"east": 0.2}
    experiment = scenario.experiment(
        "router.order=edf", "workload.synthetic.horizon_h=6", "policies={reactive: {interval_s: 5}}", values=values
    )
    return run_experiment(experiment, folder / "run", lambda _: nullcontext(), page=False).folder


def slower(folder: Path, scale: float, request_overhead_s: float | None = None) -> str:
    """A profile with iterations `scale` times as long as those of the small scenario."""
    profile: ServerProfile = with_step_times(load_profile(folder / "slow.json"), scale)
    profile.model_copy(update={"request_overhead_s": request_overhead_s}).save(folder / "slower.json")
    return f"a/h100={folder / 'slower.json'}"


def only_case(folder: str) -> CaseRecord:
    (case,) = read(folder).cases
    return case


def test_servers_that_are_emulated_exactly_show_no_error_alone_or_in_the_whole_system(
    testbed: Command, recorded: Path
) -> None:
    code, out, err = testbed("calibrate", str(recorded), "--out", "c")
    assert (code, err) == (0, "")
    case = only_case("c")
    assert "TTFT p50" in out
    (run,) = case.runs
    assert run.compared == run.completed > 0
    for one in (*case.servers_alone, *case.whole_system):
        assert one.error == pytest.approx(0.0, abs=1e-6) or one.real == (0.0,), one.name
    (decisions,) = case.decisions
    assert decisions.same == decisions.matched == decisions.real > 0
    assert decisions.first == ()
    assert all(
        starts.real == starts.emulated and starts.real_mean_s == starts.emulated_mean_s for starts in case.starts
    )


def test_a_profile_that_is_half_as_slow_again_is_found_out_with_its_factor(
    testbed: Command, recorded: Path, small_scenario: Any
) -> None:
    given = slower(small_scenario.folder, 1.5)
    assert testbed("calibrate", str(recorded), "--profile", given, "--out", "c")[0] == 0
    case = only_case("c")
    tpot = named(case.servers_alone, "TPOT p50")
    assert tpot.error is not None and tpot.error > 0.4
    assert tpot.within is False
    as_it_is, _, scaled = case.variants
    assert as_it_is.errors["TPOT p50"] == tpot.error
    assert float(scaled.name.removeprefix("step times x ")) == pytest.approx(1 / 1.5, rel=0.02)
    assert scaled.errors["E2E p90"] == pytest.approx(0.0, abs=0.03)


def test_the_request_overhead_of_a_profile_is_told_apart_from_its_step_times(
    testbed: Command, recorded: Path, small_scenario: Any
) -> None:
    given = slower(small_scenario.folder, 1.0, request_overhead_s=0.05)
    assert testbed("calibrate", str(recorded), "--profile", given, "--out", "c")[0] == 0
    case = only_case("c")
    with_it, without, _ = case.variants
    assert without.errors["TTFT p50"] == pytest.approx(0.0, abs=1e-6)
    ttft = named(case.servers_alone, "TTFT p50")
    assert with_it.errors["TTFT p50"] == ttft.error
    assert ttft.emulated[0] is not None and ttft.real[0] is not None
    assert ttft.emulated[0] - ttft.real[0] == pytest.approx(0.05, rel=0.5)


@pytest.mark.parametrize(
    ("chosen", "told"), [("null", ()), ("false", ("--no-async-scheduling",)), ("true", ("--async-scheduling",))]
)
def test_the_profile_of_a_calibration_is_measured_as_the_scenario_serves_its_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str, told: tuple[str, ...]
) -> None:
    jobs: list[ProfileJob] = []
    monkeypatch.setattr(calibration_profiles, "measured_with_progress", lambda work, _: jobs.append(work.args[0]))
    model = 'models."small-llama"'
    env = "{GOMP_CPU_AFFINITY: '1', OMP_NUM_THREADS: '2'}"
    overrides = (f"{model}.vllm.async_scheduling={chosen}", f"{model}.max_num_seqs=7", f"{model}.vllm.env={env}")
    placed = calibration_profiles.measure_profiles("calibrate-cpu", overrides, 2.0, tmp_path)
    assert placed == (f'{model}.profiles."cpu"={tmp_path / "small-llama-cpu.json"}',)
    (job,) = jobs
    assert job.serving.max_num_seqs == 7
    assert job.serving.extra_args == (*told, "--distributed-executor-backend", "uni")
    assert job.spec().env == {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "2",
        "GOMP_CPU_AFFINITY": "1",
    }
    assert job.subject().engine.env == job.spec().env
    assert job.plan.budget_s == 120.0


def test_decisions_that_part_are_told_with_what_each_policy_saw(
    testbed: Command, recorded: Path, small_scenario: Any
) -> None:
    given = slower(small_scenario.folder, 1.9)
    assert testbed("calibrate", str(recorded), "--profile", given, "--out", "c")[0] == 0
    (decisions,) = only_case("c").decisions
    assert decisions.same < decisions.matched
    first = decisions.first[0]
    assert first.real_count != first.emulated_count
    assert "utilisation" in first.real_saw
    assert first.placement in Path("c/calibration.html").read_text(encoding="utf-8")


def test_a_scenario_is_run_at_each_load_as_often_as_told_and_repeats_of_one_machine_do_not_differ(
    testbed: Command, small_scenario: Any
) -> None:
    path = str(small_scenario.write())
    command = ("calibrate", path, "--policy", "static", "--mode", "virtual", "--loads", "0.3,0.6", "--repeats", "2")
    assert testbed(*command, *SHORT, "--out", "c")[0] == 0
    light, heavy = read("c").cases
    assert [case.name for case in (light, heavy)] == ["small at 30% of capacity", "small at 60% of capacity"]
    assert [len(case.runs) for case in (light, heavy)] == [2, 2]
    assert heavy.runs[0].requests_per_s == pytest.approx(2 * light.runs[0].requests_per_s, rel=0.2)
    assert {one.noise for one in heavy.servers_alone} == {0.0}


@pytest.mark.parametrize(("longer", "requests_per_s"), [(1.05, 2.5), (2.0, None)])
def test_a_load_is_a_share_of_what_the_profile_measured_at_this_mix_else_of_what_its_step_times_give(
    small_scenario: Any, longer: float, requests_per_s: float | None
) -> None:
    scenario, path = load_scenario(str(small_scenario.write()), SHORT[1:])
    load = offered_load(scenario, path)
    (model,) = load.mix
    mix = load.mix[model]
    slo = strictest_slo(scenario.slos(), mix.tiers)
    (computed,) = capacities(scenario, load_profiles(scenario), load.mix).values()
    measured = MeasuredTheta(
        prompt_tokens_mean=longer * mix.prompt_mean,
        output_tokens_mean=mix.output_mean,
        prompt_cv=mix.prompt_cv,
        output_cv=mix.output_cv,
        slo=LatencySlo(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s),
        requests_per_s=2.5,
        tokens_per_s=2.5 * (mix.prompt_mean + mix.output_mean),
        missed_at_requests_per_s=2.7,
        n=250,
    )
    capacity = replace(computed, profile=computed.profile.model_copy(update={"theta": (measured,)}))
    assert sustained_requests_per_s(capacity, mix, slo) == (requests_per_s or computed.theta.requests_per_s)
    assert sustained_requests_per_s(computed, mix, slo) == computed.theta.requests_per_s != 2.5


def test_calibrations_are_shown_together_with_the_mean_of_their_errors(
    testbed: Command, small_scenario: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert testbed("run", str(small_scenario.write()), "--policy", "static", *SHORT, "--out", "run")[0] == 0
    for name, scale in (("fast", 0.8), ("slow", 1.2)):
        assert testbed("calibrate", "run", "--profile", slower(small_scenario.folder, scale), "--out", name)[0] == 0
    code, out, _ = testbed("calibrate", "fast", "slow")
    assert code == 0
    (tpot,) = (line.split() for line in out.splitlines() if line.startswith("TPOT p50"))
    fast, slow, mean = (float(tpot[at]) for at in (2, 4, 6))
    assert fast < -10 < 10 < slow
    assert mean == pytest.approx((fast + slow) / 2, abs=0.1)


def test_calibrations_shown_together_take_no_options_and_no_runs(testbed: Command, small_scenario: Any) -> None:
    assert testbed("run", str(small_scenario.write()), "--policy", "static", *SHORT, "--out", "run")[0] == 0
    assert testbed("calibrate", "run", "--out", "c")[0] == 0
    code, _, told = testbed("calibrate", "c", "run")
    assert (code, "run/calibration.json: No such file or directory" in told) == (2, True)
    code, _, told = testbed("calibrate", "c", "c", "--repeats", "2")
    assert (code, "leave the options out" in told) == (2, True)
    Path("c/calibration.json").write_text('{"name": 3}', encoding="utf-8")
    code, _, told = testbed("calibrate", "c", "c")
    assert (code, "c/calibration.json: name: " in told) == (2, True)


def test_runs_of_one_workload_are_repeats_and_of_two_are_two_cases(testbed: Command, small_scenario: Any) -> None:
    path = str(small_scenario.write())
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        assert testbed("run", path, "--policy", "static", "--seed", seed, *SHORT, "--out", name)[0] == 0
    assert testbed("calibrate", "one", "other", "again", "--out", "c")[0] == 0
    assert [[run.folder for run in case.runs] for case in read("c").cases] == [["one", "again"], ["other"]]


def test_runs_of_one_workload_under_other_settings_are_no_repeats(testbed: Command, small_scenario: Any) -> None:
    path = str(small_scenario.write())
    changes = {
        "one": (),
        "again": ("--set", "ports.first=9000"),
        "router": ("--set", "router.region_threshold=0.5"),
        "policy": ("--set", "policies.static.servers_per_pool=2"),
    }
    for name, change in changes.items():
        assert testbed("run", path, "--policy", "static", *SHORT, *change, "--out", name)[0] == 0
    assert testbed("calibrate", *changes, "--out", "c")[0] == 0
    found = [[run.folder for run in case.runs] for case in read("c").cases]
    assert found == [["one", "again"], ["router"], ["policy"]]


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_did_not_finish_is_refused(testbed: Command, recorded: Path, tmp_path: Path, status: str) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.json"
    told = json.loads(manifest.read_text(encoding="utf-8"))
    told["policies"]["reactive"]["status"] = status
    manifest.write_text(json.dumps(told), encoding="utf-8")
    code, _, err = testbed("calibrate", "run", "--out", "c")
    assert code == 2
    assert f"run: reactive has not finished ({status}); calibrate whole runs" in err


def test_a_factor_beyond_those_tried_is_told_as_the_nearest_with_what_is_left(
    testbed: Command, recorded: Path, small_scenario: Any
) -> None:
    given = slower(small_scenario.folder, 4.0)
    assert testbed("calibrate", str(recorded), "--profile", given, "--out", "c")[0] == 0
    scaled = only_case("c").variants[-1]
    assert "the nearest factor tried (1/2 to 2); TPOT p50 is still off by +" in scaled.why


def test_a_limit_of_what_was_not_measured_is_neither_kept_nor_broken() -> None:
    nothing = Measure(name="TPOT p50", unit="s", real=(None,), emulated=(None,), error=None, noise=None, limit=0.1)
    ((*_, limit, _),) = measures_table("Servers alone", [nothing]).rows
    assert limit == "10 %"


def test_a_trace_with_a_history_that_is_not_in_the_folder_calibrates_its_servers_and_says_what_is_missing(
    testbed: Command, small_scenario: Any
) -> None:
    assert testbed("run", str(small_scenario.write()), "--policy", "static", *SHORT, "--out", "first")[0] == 0
    values = small_scenario.values(workload={"trace": str(Path("first/trace.parquet").absolute()), "history_h": 0.01})
    values["demand_bin_s"] = 4
    path = str(small_scenario.write(values))
    assert testbed("run", path, "--policy", "static", "--out", "second")[0] == 0
    assert testbed("calibrate", "second", "--out", "c")[0] == 0
    case = only_case("c")
    assert case.whole_system == ()
    assert named(case.servers_alone, "E2E p50").error == pytest.approx(0.0, abs=1e-6)
    assert "workload.history_h" in case.remarks[0]


def test_the_page_is_one_file_and_shows_names_as_text(testbed: Command, small_scenario: Any) -> None:
    path = str(small_scenario.write(small_scenario.values(name="<b>small [red]")))
    assert testbed("run", path, "--policy", "static", *SHORT, "--out", "recorded")[0] == 0
    code, out, _ = testbed("calibrate", "recorded", "--out", "c")
    assert code == 0
    assert "<b>small [red]" in out
    page = Path("c/calibration.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "<b>small" not in page
    assert "<script" not in page and "<link" not in page and "<img" not in page


FAULTS = [
    (["calibrate", "nowhere"], "no scenario 'nowhere': neither a file nor a bundled name"),
    (["calibrate", "RUN", "quickstart"], "give run folders, or one scenario"),
    (["calibrate", "quickstart", "vllm-cpu"], "one scenario at a time"),
    (["calibrate", "RUN", "--loads", "0.5"], "a run folder has its own"),
    (["calibrate", "RUN", "--profile", "a=x.json"], "wanted MODEL/GPU=FILE"),
    (["calibrate", "RUN", "--profile", "a/h100=nowhere.json"], "name one with --profile MODEL/GPU=FILE"),
    (["calibrate", "SMALL", "--loads", "half"], "wanted shares of the capacity"),
    (["calibrate", "SMALL", "--loads", "0"], "wanted shares of the capacity"),
    (["calibrate", "RUN", "--out", "."], ". exists already; name a folder with --out that does not"),
    (["calibrate", "RUN", "--out", "SMALL/x/y"], "is a file; name a folder"),
    (["calibrate", "RUN", "--repeats", "2"], "a run folder has its own"),
    (["calibrate", "RUN", "--mode", "virtual"], "a run folder has its own"),
]


@pytest.mark.parametrize(("arguments", "told"), FAULTS)
def test_a_fault_is_one_line_with_the_way_out(
    testbed: Command, small_scenario: Any, recorded: Path, arguments: list[str], told: str
) -> None:
    small = str(small_scenario.write())
    places = {"RUN": str(recorded), "SMALL": small, "SMALL/x/y": f"{small}/x/y"}
    code, _, err = testbed(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_run_folder_without_its_trace_is_refused(testbed: Command, recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    (tmp_path / "run" / "trace.parquet").unlink()
    code, _, err = testbed("calibrate", "run", "--out", "c")
    assert code == 2
    assert "trace.parquet" in err


def test_a_calibration_reads_back_as_it_was_written(testbed: Command, recorded: Path) -> None:
    assert testbed("calibrate", str(recorded), "--out", "c")[0] == 0
    text = Path("c", CALIBRATION_FILE).read_text(encoding="utf-8")
    assert read("c").model_dump(mode="json") == json.loads(text)

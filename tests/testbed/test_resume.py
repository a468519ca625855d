"""A run that was cut off goes on: the same to the last bit in virtual time, where it stopped in real time."""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.records import decode_all
from results.manifest import RunManifest
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder, RunFolder
from results.standing import server_intervals
from testbed.live_events import Decided, Event, Listener
from testbed.policy_run import PolicyRun, Progress
from testbed.process_record import run_record
from testbed.run import Experiment, run_experiment
from testbed.starting_point import StartingPoint, where_cut_off
from testbed.virtual_time import VirtualTimeLoop
from workloads.completion import Completion
from workloads.trace import Trace
from workloads.trace_metadata import TraceMetadata

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of this test alone."""
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def killed_copy(folder: Path, to: Path) -> None:
    """What a kill at this moment would leave of a folder."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(".*"))


# One policy, in virtual time: the laws of what goes on, at many moments.


def record(
    experiment: Experiment,
    policy: str,
    folder: Path,
    listener: Callable[[RunRecorder, Event], None] = lambda *_: None,
    begins: StartingPoint | None = None,
) -> PolicyFolder:
    trace = experiment.setting.load.trace
    progress = Progress(policy=policy, horizon_s=trace.horizon_s, offered=len(trace))

    async def run(recorder: RunRecorder) -> None:
        def told(event: Event) -> None:
            listener(recorder, event)

        parts = (experiment.setting, experiment.policies[policy], recorder, progress, folder, told, begins)
        await PolicyRun(*parts).run()

    with (
        RunRecorder(folder, goes_on_from_s=None if begins is None else begins.from_s) as recorder,
        asyncio.Runner(loop_factory=VirtualTimeLoop) as runner,
    ):
        runner.run(run(recorder))
    assert progress.ended == progress.arrived
    return PolicyFolder(name=policy, path=folder)


def cut_at(folder: Path, ends: list[int]) -> Callable[[RunRecorder, Event], None]:
    """Copies the folder to FOLDER-N when the Nth request has ended; rows are on disk at every 20th end alone."""
    ended = 0

    def told(recorder: RunRecorder, event: Event) -> None:
        nonlocal ended
        if isinstance(event, Completion):
            ended += 1
            if ended % 20 == 0:
                recorder.flush()
            if ended in ends:
                killed_copy(folder, folder.with_name(f"{folder.name}-{ended}"))

    return told


def assert_whole(run: PolicyFolder, experiment: Experiment, policy: str) -> None:
    """The laws of any run."""
    rows = run.completions()
    assert sorted(rows["request_id"]) == sorted(experiment.setting.load.trace.numbers("request_id"))
    for table in (rows["last_token_s"], run.pools()["at_s"], run.servers()["at_s"]):
        assert (np.diff(table) >= -1e-9).all()
    assert (rows["sent_s"] <= rows["last_token_s"]).all() and (rows["arrival_s"] <= rows["sent_s"]).all()
    assert not run.pools().duplicated(["at_s", "model", "region", "gpu_type", "role"]).any()
    servers = run.servers()
    begun = servers[servers["state"] == "STARTING"]
    assert not begun["server_id"].duplicated().any(), "nobody sleeps here"
    stays = server_intervals(servers, 1e9)
    for (region, gpu_type), quota in experiment.setting.limits.quota_gpus.items():
        here = stays[(stays["region"] == region) & (stays["gpu_type"] == gpu_type)]
        for at_s in here["from_s"]:
            assert here["gpus"][(here["from_s"] <= at_s) & (at_s < here["to_s"])].sum() <= quota
    decided = decode_all(run.decisions())
    assert [seen.at_s for seen, _ in decided] == sorted({seen.at_s for seen, _ in decided})
    for seen, plan in decided:
        assert experiment.policies[policy].decide(seen).counts == plan.counts


ENDS = [1, 99, 259, 479, 719]


@pytest.mark.parametrize("policy", ["reactive", "lt-ua"])
def test_killed_at_any_moment_a_run_goes_on_and_every_request_ends_exactly_once(
    policy: str, small_scenario: Any, tmp_path: Path
) -> None:
    experiment = small_scenario.experiment("faults=[{kind: kill, at_s: 20}, {kind: kill, at_s: 120}]")
    trace = experiment.setting.load.trace
    whole = record(experiment, policy, tmp_path / "run", cut_at(tmp_path / "run", ENDS))
    assert_whole(whole, experiment, policy)
    for ends in ENDS:
        folder = PolicyFolder(name=policy, path=tmp_path / f"run-{ends}")
        if ends == 259:
            with (folder.path / "decisions.jsonl").open("a") as decisions:
                decisions.write('{"seen":{"at_s":')
        before = folder.completions()
        begins = where_cut_off(folder, trace, None)
        told: list[Event] = []
        resumed = record(experiment, policy, folder.path, lambda _, event, told=told: told.append(event), begins)
        assert sum(isinstance(event, Completion) for event in told) == len(trace), "who looks on sees it whole"
        decided = [event.seen for event in told if isinstance(event, Decided)]
        recorded = [seen for seen, _ in decode_all(resumed.decisions())][-len(decided) :]
        for seen, kept in zip(decided, recorded, strict=True):
            assert {key: series.tolist() for key, series in seen.demand.interactive.items()} == {
                key: series.tolist() for key, series in kept.demand.interactive.items()
            }
        assert_whole(resumed, experiment, policy)
        after = resumed.completions()
        assert after.iloc[: len(before)].astype(str).equals(before.astype(str)), "what had ended stays as it was"
        lost = after[after["reason"].astype(str).str.startswith("lost: the run was cut off")]
        assert (lost["arrival_s"] < begins.from_s).all() and (lost["tier"] != "NIW").all()
        assert (after["arrival_s"][len(before) + len(lost) :] >= begins.from_s).sum() > 0
        faults = resumed.faults()["at_s"]
        assert not (faults.round(3)).duplicated().any() and len(faults) <= 2


def test_what_a_policy_had_been_shown_and_had_planned_it_is_shown_again(small_scenario: Any, tmp_path: Path) -> None:
    experiment = small_scenario.experiment()
    record(experiment, "lt-ua", tmp_path / "run", cut_at(tmp_path / "run", [500]))
    folder = PolicyFolder(name="lt-ua", path=tmp_path / "run-500")
    before = decode_all(folder.decisions())
    begins = where_cut_off(folder, experiment.setting.load.trace, None)
    record(experiment, "lt-ua", folder.path, begins=begins)
    (last, plan), (first, _) = decode_all(folder.decisions())[len(before) - 1 : len(before) + 1]
    assert (last.at_s, plan) == (before[-1][0].at_s, before[-1][1])
    assert first.at_s == max(plan.next_decision_s, begins.from_s)
    assert first.previous == plan
    for key, series in last.demand.interactive.items():
        assert first.demand.interactive[key][: len(series)].tolist() == series.tolist()
        assert len(first.demand.interactive[key]) > len(series)
    standing = {place: state.ready + state.starting for place, state in first.placements.items()}
    assert standing == plan.counts


def test_killed_while_its_tables_are_taken_up_a_run_loses_no_row(
    small_scenario: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(small_scenario.experiment(), "reactive", tmp_path / "run", cut_at(tmp_path / "run", [500]))
    folder = PolicyFolder(name="reactive", path=tmp_path / "run-500")
    before, changes = folder.completions()["request_id"].tolist(), folder.servers()["at_s"]
    assert before and changes.max() > 50.0

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for place in ("results.atomic_file.Path.replace", "results.parts.shutil.rmtree", "results.parts.Path.mkdir"):
        with monkeypatch.context() as patched:
            patched.setattr(place, killed)
            with pytest.raises(KeyboardInterrupt):
                RunRecorder(folder.path, goes_on_from_s=50.0)
        assert folder.completions()["request_id"].tolist() == before
    RunRecorder(folder.path, goes_on_from_s=50.0).close()
    assert folder.completions()["request_id"].tolist() == before
    assert folder.servers()["at_s"].tolist() == changes[changes <= 50.0].tolist()


def sessions() -> Trace:
    """Ten sessions of four turns each; each turn comes 3 s after the answer before it."""
    turns = 40
    return Trace.from_columns(
        request_id=np.arange(turns),
        arrival_s=np.sort(np.tile(np.arange(10.0), 4) + np.repeat(np.arange(4) * 10.0, 10)),
        model=["a"] * turns,
        region=["west"] * turns,
        tier=["IW-N"] * turns,
        prompt_tokens=np.full(turns, 200, dtype=np.int32),
        output_tokens=np.full(turns, 50, dtype=np.int32),
        deadline_s=np.full(turns, np.nan),
        metadata=TraceMetadata(horizon_s=200.0),
        optional={
            "session": np.arange(turns) % 10,
            "turn": (1 + np.arange(turns) // 10).astype(np.int32),
            "think_s": np.full(turns, 3.0),
        },
    )


@pytest.mark.parametrize("ends", [3, 24])
def test_sessions_go_on_after_the_answers_that_they_had(ends: int, small_scenario: Any, tmp_path: Path) -> None:
    made = small_scenario.experiment()
    setting = replace(made.setting, load=replace(made.setting.load, trace=sessions()))
    experiment = replace(made, setting=setting)

    def told(recorder: RunRecorder, event: Event) -> None:
        recorder.flush()
        cut(recorder, event)

    cut = cut_at(tmp_path / "run", [ends])
    record(experiment, "static", tmp_path / "run", told)
    folder = PolicyFolder(name="static", path=tmp_path / f"run-{ends}")
    begins = where_cut_off(folder, sessions(), None)
    rows = record(experiment, "static", folder.path, begins=begins).completions().set_index("request_id")
    assert sorted(rows.index) == list(range(40))
    for turn in range(10, 40):
        assert rows["arrival_s"][turn] == pytest.approx(rows["last_token_s"][turn - 10] + 3.0, abs=1e-6)


# Whole runs, by the command.


def views(act: Callable[[Progress, Event], None]) -> Callable[[Progress], AbstractContextManager[Listener]]:
    @contextmanager
    def view(progress: Progress) -> Iterator[Listener]:
        yield lambda event: act(progress, event)

    return view


def digests(folder: Path) -> dict[str, dict[str, str]]:
    return {name: record.digests for name, record in RunFolder.open(folder).manifest.policies.items()}


def cut_in_the_second(experiment: Experiment, folder: Path, killed: Path) -> None:
    """Three policies of which the second is killed (a copy of the folder), and then interrupted."""

    def act(progress: Progress, event: Event) -> None:
        if progress.policy == "reactive" and isinstance(event, Completion) and progress.ended == 100:
            killed_copy(folder, killed)
            signal.raise_signal(signal.SIGINT)

    assert run_experiment(experiment, folder, views(act)).interrupted


def three(small_scenario: Any) -> Experiment:
    values = small_scenario.values()
    values["policies"] = {name: values["policies"][name] for name in ("static", "reactive", "lt-ua")}
    experiment: Experiment = small_scenario.experiment("workload.synthetic.horizon_h=8", values=values)
    return experiment


def test_a_virtual_run_that_was_cut_off_ends_with_the_digests_of_one_that_was_not(
    small_scenario: Any, testbed: Command, tmp_path: Path
) -> None:
    run_experiment(three(small_scenario), tmp_path / "whole", lambda _: nullcontext(), page=False)
    cut_in_the_second(three(small_scenario), tmp_path / "interrupted", tmp_path / "killed")
    for name, status in (("interrupted", "interrupted"), ("killed", "running")):
        before = RunFolder.open(tmp_path / name).manifest
        assert (before.status, before.policies["lt-ua"].status) == (status, "waiting")
        kept = (tmp_path / name / "static" / "completions.parquet").stat().st_mtime_ns
        code, out, err = testbed("run", "--resume", str(tmp_path / name))
        assert (code, err) == (0, "")
        assert "goes on with reactive from its start" in out
        assert digests(tmp_path / name) == digests(tmp_path / "whole")
        assert (tmp_path / name / "static" / "completions.parquet").stat().st_mtime_ns == kept
        manifest = RunFolder.open(tmp_path / name).manifest
        assert (manifest.status, manifest.started_at) == ("finished", before.started_at)
        assert [(again.policy, again.from_s) for again in manifest.resumed] == [("reactive", 0.0)]
        assert "This run was cut off; it went on" in (tmp_path / name / "report.html").read_text()


def test_a_run_killed_before_its_report_gets_one(small_scenario: Any, testbed: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_experiment(small_scenario.experiment("policies={static: {}}"), folder, lambda _: nullcontext(), page=False)
    manifest = RunFolder.open(folder).manifest
    manifest.model_copy(update={"status": "running", "ended_at": None}).write(folder)
    code, out, err = testbed("run", "--resume", str(folder))
    assert (code, err) == (0, "")
    assert "nothing was left to run" in out
    assert (folder / "report.html").exists()
    assert RunFolder.open(folder).manifest.status == "finished"
    assert RunFolder.open(folder).manifest.resumed == ()


def short(small_scenario: Any) -> dict[str, Any]:
    """Some seconds in real time."""
    values: dict[str, Any] = small_scenario.values(mode="emulated", demand_bin_s=0.5, gauge_every_s=0.5, drain_s=1)
    values["models"]["a"] |= {"start_s": 0.3, "stop_s": 0.1}
    values["workload"]["history_h"] = 0
    synthetic = values["workload"]["synthetic"]
    synthetic |= {"day_s": 4, "mean_requests_per_s": 30.0}
    synthetic["models"]["a"]["output_tokens"] = [[0.0, 2], [1.0, 40]]
    values["policies"] = {"reactive": {"interval_s": 0.5}}
    return values


def test_a_run_in_real_time_goes_on_where_it_stopped(small_scenario: Any, testbed: Command, tmp_path: Path) -> None:
    folder, killed = tmp_path / "interrupted", tmp_path / "killed"
    experiment = small_scenario.experiment(values=short(small_scenario))

    def act(progress: Progress, event: Event) -> None:
        if isinstance(event, Completion) and progress.now_s > 1.6 and not killed.exists():
            killed_copy(folder, killed)
            signal.raise_signal(signal.SIGINT)

    assert run_experiment(experiment, folder, views(act), page=False).interrupted
    for name in (folder, killed):
        before = RunFolder.open(name).policy("reactive").completions(["request_id"])
        assert len(before) > 0
        code, out, err = testbed("run", "--resume", str(name))
        assert (code, err) == (0, "")
        run = RunFolder.open(name)
        assert_whole(run.policy("reactive"), experiment, "reactive")
        (again,) = run.manifest.resumed
        assert (run.manifest.status, again.policy) == ("finished", "reactive")
        assert 0.5 < again.from_s < 3.0
        assert "goes on with reactive from " in out
        rows = run.policy("reactive").completions()
        assert rows["request_id"][: len(before)].tolist() == before["request_id"].tolist()
        assert rows["last_token_s"].max() > again.from_s
        servers = run.policy("reactive").servers()
        cut = servers[servers["reason"] == "the run was cut off"]
        assert set(cut["state"]) == {"FAILED"} and (cut["at_s"] == again.from_s).all()
        assert json.loads((name / "summary.json").read_text())["policies"]["reactive"]["requests"]["not_recorded"] == 0


def test_what_cannot_go_on_is_refused_in_one_line(small_scenario: Any, testbed: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    experiment = small_scenario.experiment("policies={static: {}}")
    run_experiment(experiment, folder, lambda _: nullcontext(), page=False)

    def refused(*arguments: str) -> str:
        code, out, err = testbed("run", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    assert "this run has finished" in refused("--resume", str(folder))
    assert "no SCENARIO given" in refused()
    assert "holds no manifest.json" in refused("--resume", str(tmp_path / "nowhere"))
    for option in ("--seed=0", "--out=x", "--set=seed=3", "--mode=emulated", "--policy=static"):
        assert f"{option.partition('=')[0]} is not for --resume" in refused("--resume", str(folder), option)
    manifest = RunFolder.open(folder).manifest
    cut_off: RunManifest = manifest.model_copy(update={"status": "interrupted"})
    cut_off.write(folder)
    with run_record(folder):
        assert "this run is going on" in refused("--resume", str(folder))
    assert "not of quickstart" in refused("quickstart", "--resume", str(folder))
    sessions().write(folder / "trace.parquet")
    assert "is not what the scenario's workload makes" in refused("--resume", str(folder))
    (folder / "scenario.yaml").write_text("name: other\n")
    assert "is not the scenario that ran" in refused("--resume", str(folder))
    (folder / "scenario.yaml").unlink()
    assert "scenario.yaml: No such file" in refused("--resume", str(folder))


@pytest.mark.parametrize("history", [False, True])
def test_a_run_of_a_trace_goes_on_with_the_copy_in_its_folder_or_with_the_history_beside_its_scenario(
    history: bool, small_scenario: Any, testbed: Command, tmp_path: Path
) -> None:
    made = small_scenario.experiment("workload.history_h=0", "workload.synthetic.horizon_h=16")
    made.setting.load.trace.write(tmp_path / "day.parquet")
    values = small_scenario.values(policies={"static": {}})
    values["workload"] = {"trace": "day.parquet", "history_h": 60 / 3600 if history else 0}
    folder = tmp_path / "run"
    experiment = small_scenario.experiment(values=values)

    def interrupt(progress: Progress, _: Event) -> None:
        if progress.ended == 100:
            signal.raise_signal(signal.SIGINT)

    assert run_experiment(experiment, folder, views(interrupt), page=False).interrupted
    run_experiment(experiment, tmp_path / "whole", lambda _: nullcontext(), page=False)
    if history:
        code, _, err = testbed("run", "--resume", str(folder))
        assert code == 2 and "name that too" in err
        assert testbed("run", str(tmp_path / "small.yaml"), "--resume", str(folder))[0] == 0
    else:
        (tmp_path / "day.parquet").unlink()
        assert testbed("run", "--resume", str(folder))[0] == 0
    assert digests(folder) == digests(tmp_path / "whole")

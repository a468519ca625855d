"""Whatever strikes the servers: every request ends once, no GPU is used twice, and the same seed gives the same run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.digest import content_digest
from results.run_folder import PolicyFolder
from testbed.run import Experiment, prepare
from testbed.scenario_file import load_scenario
from testbed.server import ServerState
from workloads.completion import Outcome

RunPolicy = Callable[[Experiment, str, Path], PolicyFolder]

SMALLER = (
    "workload.synthetic.mean_requests_per_s=0.03",
    "initial_servers=1",
    "policies.reactive.interval_s=60",
    # As many faults in six hours as in the whole day.
    "workload.synthetic.horizon_h=6",
    "faults=[{kind: kill, per_h: 12}, {kind: hang, per_h: 4}, {kind: hang, per_h: 4, for_s: 30}, "
    "{kind: slow, per_h: 8, factor: 4, for_s: 900}, {kind: fail_start, per_h: 5}]",
)


def chaos(seed: int, *overrides: str) -> Experiment:
    return prepare(*load_scenario("chaos", (f"seed={seed}", *overrides)), [])


def assert_nothing_is_lost(recorded: PolicyFolder, experiment: Experiment) -> None:
    offered = len(experiment.setting.load.trace)
    rows = recorded.completions()
    assert sorted(rows["request_id"]) == list(range(offered))
    assert (rows["arrival_s"] <= rows["sent_s"]).all()
    assert (rows["sent_s"] <= rows["last_token_s"]).all()
    completed = rows["outcome"] == Outcome.COMPLETED
    assert (rows["output_tokens"][completed] == rows["output_tokens_asked"][completed]).all()
    assert (rows["reason"][~completed].astype(str) != "").all()
    for place, owned in experiment.setting.limits.quota_gpus.items():
        in_use: dict[str, float] = {}
        for row in recorded.servers().itertuples():
            if (row.region, row.gpu_type) == place:
                in_use[row.server_id] = 0.0 if row.state in (ServerState.STOPPED, ServerState.FAILED) else row.gpus
                assert sum(in_use.values()) <= owned + 1e-9
        assert sum(in_use.values()) == 0


def assert_faults_were_survived(recorded: PolicyFolder) -> None:
    faults, servers = recorded.faults(), recorded.servers()
    hit = faults[faults["server_id"].astype(str) != ""]
    assert len(hit) > 50
    killed = set(hit["server_id"][hit["kind"].isin(["kill", "fail_start"])].astype(str))
    failed = servers[servers["state"] == ServerState.FAILED]
    # One told to stop at that very moment stops instead.
    assert len(killed - set(failed["server_id"].astype(str))) <= 0.1 * len(killed)
    assert (failed["reason"].astype(str) != "").all()
    assert servers["reason"].astype(str).str.startswith("again, after").any()


@pytest.mark.parametrize("policy", ["reactive", "lt-ua"])
def test_a_day_of_faults_loses_nothing_and_can_be_repeated_to_the_bit(
    policy: str, run_policy: RunPolicy, tmp_path: Path
) -> None:
    experiment = chaos(8, *SMALLER)
    once = run_policy(experiment, policy, tmp_path / "once")
    assert_nothing_is_lost(once, experiment)
    assert_faults_were_survived(once)
    again = run_policy(chaos(8, *SMALLER), policy, tmp_path / "again")
    assert content_digest(again) == content_digest(once)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_no_seed_of_faults_loses_anything(seed: int, run_policy: RunPolicy, tmp_path: Path) -> None:
    experiment = chaos(seed, *SMALLER)
    recorded = run_policy(experiment, "reactive", tmp_path / "run")
    assert_nothing_is_lost(recorded, experiment)
    assert_faults_were_survived(recorded)


@pytest.mark.slow
def test_two_hundred_faults_in_a_day_of_100_000_requests(run_policy: RunPolicy, tmp_path: Path) -> None:
    experiment = chaos(8)
    assert len(experiment.setting.load.trace) > 100_000
    recorded = run_policy(experiment, "reactive", tmp_path / "run")
    assert_nothing_is_lost(recorded, experiment)
    assert_faults_were_survived(recorded)
    faults: Any = recorded.faults()
    assert len(faults) >= 200
    completed = (recorded.completions()["outcome"] == Outcome.COMPLETED).mean()
    assert completed > 0.999

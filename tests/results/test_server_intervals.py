import numpy as np
import pytest

from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from results.standing import gpu_hours, mean_standing, scaling_actions, server_intervals


@pytest.fixture
def servers(policy_path, server_row):
    """s1 stands from before the run and fails at 7200; s2 (2 GPUs) starts at 3600 and leaves from 9000 on."""
    with RunRecorder(policy_path) as recorder:
        server_row(recorder, -60.0, "s1", "STARTING")
        server_row(recorder, 0.0, "s1", "READY")
        server_row(recorder, 3600.0, "s2", "STARTING", gpus=2.0, model="n")
        server_row(recorder, 5400.0, "s2", "READY", gpus=2.0, model="n")
        server_row(recorder, 7200.0, "s1", "FAILED", reason="died")
        server_row(recorder, 9000.0, "s2", "DRAINING", gpus=2.0, model="n")
        server_row(recorder, 9900.0, "s2", "STOPPING", gpus=2.0, model="n")
    return PolicyFolder(name="reactive", path=policy_path).servers()


def test_a_state_lasts_until_the_next_one_and_the_last_until_the_end_of_the_run(servers):
    intervals = server_intervals(servers, end_s=10_800.0)
    assert intervals[["server_id", "state", "from_s", "to_s"]].values.tolist() == [
        ["s1", "READY", 0.0, 7200.0],
        ["s2", "STARTING", 3600.0, 5400.0],
        ["s2", "READY", 5400.0, 9000.0],
        ["s2", "DRAINING", 9000.0, 9900.0],
        ["s2", "STOPPING", 9900.0, 10_800.0],
    ]
    # 2 h x 1 GPU; 0.5 h, 1 h, 0.25 h and 0.25 h x 2 GPUs.
    assert gpu_hours(intervals).tolist() == [2.0, 1.0, 2.0, 0.5, 0.5]


def test_the_end_of_the_run_cuts_what_comes_after(servers):
    intervals = server_intervals(servers, end_s=4500.0)
    assert intervals[["server_id", "from_s", "to_s"]].values.tolist() == [["s1", 0.0, 4500.0], ["s2", 3600.0, 4500.0]]


def test_the_start_state_is_no_action_and_one_leaving_is_one_stop(servers):
    actions = scaling_actions(servers, end_s=10_800.0)
    assert (actions.starts, actions.stops, actions.failures) == (1, 1, 1)


def test_what_the_end_of_the_run_stops_is_no_action(servers):
    assert scaling_actions(servers, end_s=9000.0).stops == 0


def test_a_server_ready_at_time_0_was_not_started(policy_path, server_row):
    with RunRecorder(policy_path) as recorder:
        server_row(recorder, 0.0, "s1", "STARTING")
        server_row(recorder, 0.0, "s1", "READY")
        server_row(recorder, 0.0, "s2", "STARTING")
        server_row(recorder, 30.0, "s2", "READY")
    rows = PolicyFolder(name="reactive", path=policy_path).servers()
    assert scaling_actions(rows, end_s=100.0).starts == 1
    assert server_intervals(rows, 100.0)[["server_id", "state"]].values.tolist() == [
        ["s1", "READY"],
        ["s2", "STARTING"],
        ["s2", "READY"],
    ]


def test_the_average_standing_counts_parts_of_a_bin(servers):
    intervals = server_intervals(servers, end_s=10_800.0)
    edges = np.array([0.0, 3600.0, 7200.0, 10_800.0])
    assert mean_standing(intervals, edges) == pytest.approx([1.0, 2.0, 1.0])
    assert mean_standing(intervals, edges, intervals["gpus"].to_numpy()) == pytest.approx([1.0, 3.0, 2.0])
    ready = intervals[intervals["state"] == "READY"]
    assert mean_standing(ready, edges) == pytest.approx([1.0, 1.5, 0.5])


def test_nobody_standing_is_zero(servers):
    nobody = server_intervals(servers.iloc[:0], end_s=10.0)
    assert mean_standing(nobody, np.array([0.0, 5.0, 10.0])).tolist() == [0.0, 0.0]

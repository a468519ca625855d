import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from results.parts import TableWriter
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from results.schema import COMPLETIONS, SERVERS
from workloads.completion import Outcome
from workloads.request import Tier


def read(path: Path) -> PolicyFolder:
    return PolicyFolder(name=path.name, path=path)


def test_a_completion_reads_back_with_every_value(policy_path, completion):
    given = completion(
        7, tier=Tier.NIW, arrival_s=3.25, first=0.5, last=9.0, late=0.125, deadline_s=100.0, cached_tokens=4
    )
    with RunRecorder(policy_path) as recorder:
        recorder.completion(given)
    rows = read(policy_path).completions().to_dict("records")
    assert rows == [
        {
            "request_id": 7,
            "model": "m",
            "region": "west",
            "served_region": "east",
            "server_id": "s0",
            "tier": "NIW",
            "prompt_tokens": 10,
            "output_tokens_asked": 5,
            "output_tokens": 5,
            "cached_tokens": 4,
            "arrival_s": 3.25,
            "sent_s": 3.375,
            "first_token_s": 3.75,
            "last_token_s": 12.25,
            "deadline_s": 100.0,
            "outcome": "completed",
            "reason": "",
        }
    ]


def test_what_never_came_is_null_and_not_zero(policy_path, completion):
    with RunRecorder(policy_path) as recorder:
        recorder.completion(completion(first=None, outcome=Outcome.REJECTED, reason="no server"))
    row = pq.read_table(policy_path / "completions.parquet").to_pylist()[0]
    assert row["first_token_s"] is None
    assert row["cached_tokens"] is None
    assert row["deadline_s"] is None
    assert row["reason"] == "no server"


@pytest.mark.parametrize("part_rows", [1, 3, 7, 1000])
def test_every_row_is_kept_in_order_whatever_the_size_of_a_part(policy_path, completion, part_rows):
    with RunRecorder(policy_path, part_rows=part_rows) as recorder:
        for index in range(23):
            recorder.completion(completion(index, model=f"m{index % 3}"))
    rows = read(policy_path).completions()
    assert rows["request_id"].tolist() == list(range(23))
    assert rows["model"].tolist() == [f"m{index % 3}" for index in range(23)]
    assert not list(policy_path.glob("*.parts"))


def test_the_other_tables_read_back(policy_path, server_row):
    with RunRecorder(policy_path) as recorder:
        server_row(recorder, -4.0, "s1", "STARTING", gpus=0.5, reason="start state")
        recorder.gauge(
            at_s=5.0,
            server_id="s1",
            model="m",
            region="west",
            num_requests_running=3,
            num_requests_waiting=2,
            kv_cache_usage=0.25,
        )
        recorder.pool_gauge(
            at_s=6.0,
            model="m",
            region="west",
            gpu_type="h100",
            ready=1,
            starting=2,
            draining=3,
            utilisation=1.5,
            outstanding_tokens=3_000_000_000,
            niw_queued=4,
        )
    folder = read(policy_path)
    assert folder.servers()[["at_s", "server_id", "gpus", "state", "reason"]].values.tolist() == [
        [-4.0, "s1", 0.5, "STARTING", "start state"]
    ]
    assert folder.gauges()[["num_requests_running", "num_requests_waiting", "kv_cache_usage"]].values.tolist() == [
        [3, 2, 0.25]
    ]
    assert folder.pools()[["ready", "starting", "draining", "outstanding_tokens", "niw_queued"]].values.tolist() == [
        [1, 2, 3, 3_000_000_000, 4]
    ]


def test_a_record_that_was_never_closed_reads_up_to_its_last_flush(policy_path, completion):
    recorder = RunRecorder(policy_path, part_rows=4)
    for index in range(6):
        recorder.completion(completion(index))
    assert read(policy_path).completions()["request_id"].tolist() == [0, 1, 2, 3]
    recorder.flush()
    recorder.completion(completion(6))
    assert read(policy_path).completions()["request_id"].tolist() == [0, 1, 2, 3, 4, 5]


def test_frequent_flushes_grow_one_part_instead_of_leaving_many(policy_path, completion):
    recorder = RunRecorder(policy_path)
    for index in range(30):
        recorder.completion(completion(index))
        recorder.flush()
    assert len(list((policy_path / "completions.parts").iterdir())) == 1
    recorder.close()
    assert read(policy_path).completions()["request_id"].tolist() == list(range(30))


def test_half_written_files_are_ignored(policy_path, completion):
    recorder = RunRecorder(policy_path)
    recorder.completion(completion(1))
    recorder.flush()
    (policy_path / "completions.parts" / ".part-00001.parquet.tmp").write_bytes(b"PAR1 half")
    (policy_path / ".completions.parquet.tmp").write_bytes(b"PAR1 half")
    assert read(policy_path).completions()["request_id"].tolist() == [1]


def test_a_kill_between_merging_and_removing_the_parts_doubles_no_row(policy_path, completion):
    recorder = RunRecorder(policy_path)
    recorder.completion(completion(1))
    recorder.flush()
    part = next((policy_path / "completions.parts").iterdir())
    part_bytes = part.read_bytes()
    recorder.close()
    part.parent.mkdir()
    part.write_bytes(part_bytes)
    assert read(policy_path).completions()["request_id"].tolist() == [1]


def test_a_torn_last_decision_is_left_out_and_counted(policy_path):
    recorder = RunRecorder(policy_path)
    recorder.decision({"n": 1})
    recorder.decision({"n": 2})
    with (policy_path / "decisions.jsonl").open("a") as file:
        file.write('{"n": 3, "ste')
    folder = read(policy_path)
    assert list(folder.decisions()) == [{"n": 1}, {"n": 2}]
    assert list(folder.decision_lines()).count(None) == 1


def test_a_decision_is_in_the_file_before_the_next_thing_happens(policy_path):
    recorder = RunRecorder(policy_path)
    recorder.decision({"reason": "a\nb"})
    assert json.loads((policy_path / "decisions.jsonl").read_text()) == {"reason": "a\nb"}
    recorder.close()


def test_a_folder_that_holds_a_record_is_not_written_over(policy_path, completion):
    with RunRecorder(policy_path) as recorder:
        recorder.completion(completion(1))
    with pytest.raises(FileExistsError, match="give the run a new folder"):
        RunRecorder(policy_path)
    assert read(policy_path).completions()["request_id"].tolist() == [1]


def test_an_error_in_the_run_still_closes_the_record(policy_path, completion):
    with pytest.raises(RuntimeError), RunRecorder(policy_path) as recorder:
        recorder.completion(completion(1))
        raise RuntimeError("the run broke")
    assert (policy_path / "completions.parquet").exists()


def test_closing_twice_is_harmless(policy_path, completion):
    recorder = RunRecorder(policy_path)
    recorder.completion(completion(1))
    recorder.close()
    recorder.close()
    assert len(read(policy_path).completions()) == 1


def test_rows_survive_a_flush_that_failed(tmp_path, monkeypatch):
    writer = TableWriter(tmp_path, SERVERS, 10)
    writer.row((0.0, "s", "m", "west", "h100", "shared", 1.0, "READY", ""))
    with monkeypatch.context() as disk:

        def full(*_: object) -> None:
            raise OSError("No space left on device")

        disk.setattr("results.parts.replace_file", full)
        with pytest.raises(OSError, match="No space"):
            writer.flush()
    writer.close()
    assert pq.read_metadata(tmp_path / "servers.parquet").num_rows == 1


def test_a_table_that_got_no_row_is_an_empty_file_with_its_columns(policy_path):
    RunRecorder(policy_path).close()
    assert tuple(read(policy_path).completions().columns) == COMPLETIONS.columns
    assert len(read(policy_path).completions()) == 0

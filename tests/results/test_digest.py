from pathlib import Path

import pytest

from results.digest import content_digest
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder


def digest(path: Path) -> dict[str, str]:
    return content_digest(PolicyFolder(name="p", path=path))


def record(path: Path, completions, part_rows: int = 1000, flush_every: int = 0) -> dict[str, str]:
    with RunRecorder(path, part_rows=part_rows) as recorder:
        for index, one in enumerate(completions):
            recorder.completion(one)
            if flush_every and index % flush_every == 0:
                recorder.flush()
    return digest(path)


@pytest.fixture
def many(completion):
    return [
        completion(i, model="ab"[i % 2] * (i % 5), arrival_s=i / 7, cached_tokens=i if i % 3 else None)
        for i in range(40)
    ]


@pytest.mark.parametrize(("part_rows", "flush_every"), [(1, 0), (7, 0), (1000, 3)])
def test_the_digest_does_not_depend_on_parts(tmp_path, many, part_rows, flush_every):
    assert record(tmp_path / "a", many) == record(tmp_path / "b", many, part_rows, flush_every)


def test_the_digest_of_a_killed_record_is_that_of_the_same_rows_closed(tmp_path, many):
    killed = RunRecorder(tmp_path / "killed", part_rows=9)
    for one in many:
        killed.completion(one)
    killed.flush()
    assert digest(tmp_path / "killed") == record(tmp_path / "closed", many)


def test_any_change_of_a_value_or_of_the_order_changes_the_digest(tmp_path, completion):
    base = [completion(1), completion(2)]
    changed = [
        [completion(2), completion(1)],
        [completion(1), completion(2, last=1.0000000001)],
        [completion(1), completion(2, cached_tokens=0)],
        [completion(1), completion(2, reason="x")],
        [completion(1)],
    ]
    digests = {record(tmp_path / str(i), rows)["completions"] for i, rows in enumerate([base, *changed])}
    assert len(digests) == 6


def test_text_moved_from_one_row_to_the_next_changes_the_digest(tmp_path, completion):
    one = record(tmp_path / "a", [completion(1, reason="ab"), completion(2, reason="c")])
    other = record(tmp_path / "b", [completion(1, reason="a"), completion(2, reason="bc")])
    assert one["completions"] != other["completions"]


def test_a_change_of_server_state_is_in_the_digest_and_gauges_are_not(tmp_path, server_row):
    digests = []
    for index, state in enumerate(("READY", "READY", "FAILED")):
        with RunRecorder(tmp_path / str(index)) as recorder:
            server_row(recorder, 1.0, "s", state)
            if index == 1:
                recorder.gauge(
                    at_s=1.0,
                    server_id="s",
                    model="m",
                    region="west",
                    num_requests_running=1,
                    num_requests_waiting=0,
                    kv_cache_usage=0.5,
                )
        digests.append(digest(tmp_path / str(index)))
    assert digests[0] == digests[1]
    assert digests[0]["servers"] != digests[2]["servers"]


def test_the_solvers_seconds_are_left_out_of_the_digest_and_nothing_else_is(tmp_path):
    records = [
        {"plan": [{"solve": {"gap": 0.1, "solve_wall_s": 1.5}}], "at_s": 1},
        {"at_s": 1, "plan": [{"solve": {"solve_wall_s": 99, "gap": 0.1}}]},
        {"at_s": 1, "plan": [{"solve": {"solve_wall_s": 99, "gap": 0.2}}]},
    ]
    digests = []
    for index, one in enumerate(records):
        with RunRecorder(tmp_path / str(index)) as recorder:
            recorder.decision(one)
        digests.append(digest(tmp_path / str(index))["decisions"])
    assert digests[0] == digests[1] != digests[2]

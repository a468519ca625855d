"""Columns that only some traces have: kept where they are, absent where they are not, checked where they are wrong."""

import numpy as np
import pyarrow as pa
import pytest

from workloads.merge import merge
from workloads.relabel import relabel, set_deadlines
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.trace_metadata import Calendar, TraceMetadata
from workloads.transforms import clip_lengths, cut, jitter, scale_rate, stretch_time

SESSIONS = {
    "session": [4, -1, 4, 4],
    "turn": [1, 0, 2, 5],
    "think_s": [np.nan, np.nan, 2.0, 0.0],
    "cancel_after_s": [30.0, np.nan, np.nan, 1.0],
}
PREFIXES = {"prefix_hashes": [[1, 2], [1], [], [1, 2, 3]]}


def _trace(optional=None, block=None, **changes) -> Trace:
    columns = {
        "request_id": [0, 1, 2, 3],
        "arrival_s": [0.0, 10.0, 20.0, 30.0],
        "model": ["a", "b", "a", "a"],
        "region": ["west"] * 4,
        "tier": ["IW-F", "NIW", "IW-F", "IW-F"],
        "prompt_tokens": [32, 16, 20, 40],
        "output_tokens": [4, 4, 4, 4],
        "deadline_s": [np.nan, 500.0, np.nan, np.nan],
        "tenant": [0, 1, 0, 0],
    }
    metadata = TraceMetadata(horizon_s=40.0, prefix_block_tokens=block, calendar=Calendar(start_hour_of_week=5.0))
    return Trace.from_columns(**{**columns, **changes}, optional=optional, metadata=metadata)


@pytest.fixture
def full() -> Trace:
    return _trace({**SESSIONS, **PREFIXES}, 16)


def _lists(trace: Trace) -> list[list[int]]:
    return trace.prefix_hashes().to_pylist()


def test_a_trace_has_the_optional_columns_that_it_is_given_and_no_other(full, tmp_path):
    assert _trace().optional == ()
    assert full.optional == ("session", "turn", "think_s", "prefix_hashes", "cancel_after_s")
    assert full.numbers("session").tolist() == [4, -1, 4, 4]
    assert _lists(full) == [[1, 2], [1], [], [1, 2, 3]]
    with pytest.raises(KeyError):
        _trace().numbers("session")
    full.write(tmp_path / "t.parquet")
    again = Trace.read(tmp_path / "t.parquet")
    assert (again.digest(), again.metadata) == (full.digest(), full.metadata)


def test_the_digest_counts_optional_columns_and_block_size_and_leaves_other_traces_alone(full):
    plain = _trace()
    other = _trace({**SESSIONS, "prefix_hashes": [[1, 2], [2], [], [1, 2, 3]]}, 16)
    finer = _trace({**SESSIONS, **PREFIXES}, 8)
    moved = _trace({**SESSIONS, "prefix_hashes": [[1], [2], [1], [1, 2, 3]]}, 16)
    assert len({trace.digest() for trace in (plain, full, other, finer, moved)}) == 5


def test_what_is_not_known_of_a_row_may_be_null(tmp_path):
    trace = _trace(
        {
            "session": pa.array([4, None, 4, None], pa.int64()),
            "turn": pa.array([1, None, 2, None], pa.int32()),
            "prefix_hashes": pa.array([[1], None, [], None], pa.list_(pa.int64())),
        },
        16,
    )
    assert trace.numbers("session").tolist() == [4, -1, 4, -1]
    assert trace.numbers("turn").tolist() == [1, 0, 2, 0]
    assert _lists(trace) == [[1], [], [], []]


BROKEN = [
    ({"session": [0, 0, 0, 0]}, None, "session and turn go together"),
    ({"think_s": [1.0] * 4}, None, "think_s without session"),
    (PREFIXES, None, "prefix_hashes and prefix_block_tokens in the metadata go together"),
    ({}, 16, "prefix_hashes and prefix_block_tokens in the metadata go together"),
    ({**SESSIONS, "session": [4, -2, 4, 4]}, None, "column session, row 1: -2; must be 0 or more"),
    ({**SESSIONS, "turn": [1, 0, 0, 5]}, None, "column turn, row 2: 0; must be 1 or more in a session"),
    ({**SESSIONS, "turn": [1, 3, 2, 5]}, None, "column turn, row 1: 3; must be 0 outside a session"),
    ({**SESSIONS, "turn": [1, 0, 2, 2]}, None, "column turn, row 3: 2; is not above the turn before it"),
    ({**SESSIONS, "think_s": [0, 0, -1.0, 0]}, None, "column think_s, row 2: -1.0; must be finite, 0 or more"),
    ({"cancel_after_s": [0.0, 1, 1, 1]}, None, "column cancel_after_s, row 0: 0.0; must be finite, above 0"),
    ({"prefix_hashes": [[1, 2], [1, 2], [], []]}, 16, "column prefix_hashes, row 1: 2; numbers; more than the blocks"),
    ({"colour": [1] * 4}, None, "no optional column colour"),
]


@pytest.mark.parametrize(("optional", "block", "told"), BROKEN, ids=[told for _, _, told in BROKEN])
def test_an_optional_column_that_breaks_a_rule_is_named(optional, block, told):
    with pytest.raises(TraceError) as error:
        _trace(optional, block)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_keeps_turns_whose_session_began_before(full):
    piece = cut(full, 15.0, 40.0)
    assert piece.numbers("turn").tolist() == [2, 5]
    assert _lists(piece) == [[], [1, 2, 3]]
    assert piece.metadata.prefix_block_tokens == 16


def test_stretching_time_stretches_thinking_and_patience(full):
    slow = stretch_time(full, 2.0)
    assert slow.numbers("think_s")[2] == 4.0
    assert slow.numbers("cancel_after_s")[0] == 60.0


def test_a_clipped_prompt_keeps_the_blocks_that_are_left_of_it(full):
    short = clip_lengths(full, {"a": 20, "b": 20})
    assert short.numbers("prompt_tokens").tolist() == [16, 16, 16, 16]
    assert _lists(short) == [[1], [1], [], [1]]
    assert short.metadata.steps[-1].parameters["cut_share"] == {"a": 1.0, "b": 0.0}


def test_scaling_the_rate_drops_sessions_and_says_so_but_keeps_prefixes(full):
    scaled = scale_rate(full, 3.0, 1)
    assert scaled.optional == ("prefix_hashes", "cancel_after_s")
    assert scaled.metadata.steps[-1].parameters["dropped_columns"] == ["session", "turn", "think_s"]
    assert {tuple(row) for row in _lists(scaled)} <= {(1, 2), (1,), (), (1, 2, 3)}
    assert "dropped_columns" not in scale_rate(_trace(), 3.0, 1).metadata.steps[-1].parameters


def test_jitter_spreads_equal_times_and_keeps_the_order_of_rows(full):
    stamps = _trace(SESSIONS, arrival_s=[7.0, 7.0, 7.0, 8.0])
    moved = jitter(stamps, 1.0, 3)
    arrival_s = moved.numbers("arrival_s")
    assert moved.numbers("request_id").tolist() == [0, 1, 2, 3]
    assert moved.numbers("turn").tolist() == [1, 0, 2, 5]
    assert 7.0 < arrival_s[0] < arrival_s[1] < arrival_s[2] < 8.0 < arrival_s[3] < 9.0
    assert moved.numbers("deadline_s")[1] - arrival_s[1] == pytest.approx(493.0)
    assert jitter(stamps, 1.0, 3).digest() == moved.digest() != jitter(stamps, 1.0, 4).digest()
    assert moved.metadata.steps[-1].parameters == {"width_s": 1.0, "seed": 3}
    with pytest.raises(ValueError, match="must be above 0 and finite"):
        jitter(stamps, 0.0, 1)


def test_jitter_moves_the_horizon_only_where_an_arrival_passes_it():
    at_end = _trace(arrival_s=[0.0, 10.0, 20.0, 40.0])
    assert jitter(at_end, 5.0, 1).horizon_s == jitter(at_end, 5.0, 1).numbers("arrival_s")[-1] > 40.0


def test_merging_keeps_every_request_apart_and_in_order(full):
    plain = _trace(arrival_s=[5.0, 6.0, 7.0, 8.0])
    both = merge([full, plain], offsets_s=[0.0, 2.5])
    assert both.numbers("request_id").tolist() == list(range(8))
    assert both.numbers("arrival_s").tolist() == [0.0, 7.5, 8.5, 9.5, 10.0, 10.5, 20.0, 30.0]
    assert both.numbers("tenant").tolist() == [0, 2, 3, 2, 1, 2, 0, 0]
    assert both.numbers("session").tolist() == [4, -1, -1, -1, -1, -1, 4, 4]
    assert np.nan_to_num(both.numbers("deadline_s")).tolist() == [0, 0, 502.5, 0, 500.0, 0, 0, 0]
    assert [len(row) for row in _lists(both)] == [2, 0, 0, 0, 1, 0, 0, 3]
    assert both.horizon_s == 42.5
    step = both.metadata.steps[-1]
    assert (step.name, step.parameters["requests"]) == ("merge", [4, 4])


def test_sessions_and_prefixes_of_two_traces_meet_only_in_the_same_world(full):
    apart = merge([full, full])
    assert sorted(set(apart.numbers("session").tolist())) == [-1, 4, 9]
    first, second, *_ = _lists(apart)
    assert first[0] != second[0]
    # In one world the same session would have the same turn twice.
    alike = _trace({**PREFIXES}, 16)
    one_world = merge([alike, alike], same_world=True)
    assert _lists(one_world)[0] == _lists(one_world)[1] == [1, 2]
    assert one_world.numbers("tenant").max() == 1


def test_hashes_that_fill_64_bits_are_merged_without_overflow():
    big = _trace({"prefix_hashes": [[2**63 - 1], [-(2**63)], [2**63 - 1], []]}, 16)
    lists = _lists(merge([big, big]))
    assert lists[0] == lists[4] != lists[2]
    assert lists[1] == lists[5] != lists[0]


def test_a_calendar_survives_a_merge_only_if_all_traces_agree(full):
    assert merge([full, full]).metadata.calendar == Calendar(start_hour_of_week=5.0)
    assert merge([full, full], offsets_s=[0.0, 7200.0]).metadata.calendar is None


def test_prefix_blocks_of_different_sizes_cannot_be_merged(full):
    with pytest.raises(ValueError, match="prefix blocks of 16 and 32 tokens"):
        merge([full, _trace({"prefix_hashes": [[]] * 4}, 32)])
    with pytest.raises(ValueError, match="wanted at least one"):
        merge([])


def test_relabelling_renames_and_records(full):
    renamed = relabel(full, model={"a": "x", "*": "y"}, tier={"NIW": "IW-N"})
    assert [request.model for request in renamed.requests()] == ["x", "y", "x", "x"]
    assert [request.tier for request in renamed.requests()] == [Tier.IW_F, Tier.IW_N, Tier.IW_F, Tier.IW_F]
    assert renamed.numbers("session").tolist() == full.numbers("session").tolist()
    assert [request.deadline_s for request in renamed.requests()] == [None] * 4
    assert renamed.metadata.steps[-1].parameters == {"model": {"a": "x", "*": "y"}, "tier": {"NIW": "IW-N"}}
    one = relabel(full, model={"*": "z"}, region={"west": "north"})
    assert (one.labels("model").names, one.labels("region").names) == (("z",), ("north",))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": {"q": "x"}}, "no model 'q' here; there are a, b"),
        ({"tier": {"NIW": "slow"}}, "no tier 'slow'"),
        ({"region": {"west": " "}}, "new name is empty"),
    ],
)
def test_a_name_that_is_not_there_cannot_be_replaced(full, given, told):
    with pytest.raises(ValueError, match=told):
        relabel(full, **given)


def test_niw_requests_without_a_deadline_get_one_and_the_others_keep_theirs():
    trace = _trace(tier=["NIW", "NIW", "IW-F", "IW-F"])
    due = set_deadlines(trace, 60.0)
    assert [request.deadline_s for request in due.requests()] == [60.0, 500.0, None, None]
    assert due.metadata.steps[-1].parameters == {"after_s": 60.0, "requests": 1}

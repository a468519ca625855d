"""Files that are broken, or not in the unit that their format says: one clear line, and nothing lost in silence."""

from dataclasses import replace
from functools import partial

import pytest

from workloads.formats.byte_blocks import line_blocks
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.request import Tier
from workloads.trace_checks import TraceError

SAID = ReadOptions(model="m", region="west", tier=Tier.IW_F)
STRICT = ReadOptions(model="m", region="west", tier=Tier.IW_F, strict=True)
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2024-05-10 00:00:00.5+00:00,100,10\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
SAGE = (
    "request_id,batch_id,client_tenant,request_type,scenario,sla,utility,regions,model_type,workload_type,"
    "application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
)
TIDY = "arrival_s,prompt_tokens,output_tokens\n"


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes, name: str = "file"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def _sage(request_id: int, arrival: str, regions: str = "012", kind: str = "prod") -> str:
    return f"{request_id},-1,1,2,ES,10,3,{regions},A,{kind},-1,{arrival},1,100,10\n"


def _mooncake(timestamp: object, length: int = 600, hashes: str = "[1, 2]") -> str:
    return f'{{"timestamp": {timestamp}, "input_length": {length}, "output_length": 5, "hash_ids": {hashes}}}\n'


BAD_ROWS = [
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,100\n", 3, "2 fields where 3 were expected"),
    (AZURE + GOOD + "2024-05-10 00:0", 3, "1 field where 3 were expected"),
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,nan,10\n", 3, "ContextTokens: not a finite number"),
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,,10\n", 3, "ContextTokens: no value"),
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,-5,10\n", 3, "ContextTokens: below 1"),
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,5,0\n", 3, "GeneratedTokens: below 1"),
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,2.5,10\n", 3, "ContextTokens: a fraction"),
    (AZURE + GOOD + "2024-05-10 00:00:01+00:00,99999999999,10\n", 3, "ContextTokens: above 10,000,000"),
    (AZURE + GOOD + f"2024-05-10 00:00:01+00:00,{'9' * 400},10\n", 3, "ContextTokens: not a finite number"),
    (AZURE + GOOD + "2024-13-10 00:00:01+00:00,5,10\n", 3, "TIMESTAMP: not a date and time"),
    (AZURE + GOOD + "yesterday,5,10\n", 3, "TIMESTAMP: not a date and time"),
    ((AZURE + GOOD).encode() + b"2024-05-10 00:00:01+00:00,\xff\xfe5,10\n", 3, "ContextTokens: not a number"),
    ((AZURE + GOOD).encode() + b"\xff\n", 3, "1 field where 3 were expected"),
    (AZURE + GOOD + '"2024-05-10 00:00:01+00:00,5,10\n' + GOOD, 3, "1 field where 3 were expected"),
    (AZURE + "\n" + GOOD + "\n\nx,5,10\n", 6, "TIMESTAMP: not a date and time"),
    (BURST + "5,m,10,5,15,API log\n6,m,10,5,16,API log\n", 3, "Total tokens: not the sum"),
    (BURST + "5,m,10,5,15,API log\n-6,m,10,5,15,API log\n", 3, "Timestamp: negative"),
    ((BURST + "5,m,10,5,15,API log\n").encode() + b"6,\xff,10,5,15,API log\n", 3, "Model: not UTF-8"),
    (BURST + "5,m,10,5,15,API log\n6,,10,5,15,API log\n", 3, "Model: no value"),
    (SAGE + _sage(0, "1.5") + _sage(1, "2.5", regions="013"), 3, "regions: not an order of the regions"),
    (SAGE + _sage(0, "1.5") + _sage(1, "2.5", kind="test"), 3, "workload_type: wanted prod or dev"),
    (SAGE + _sage(0, "1.5") + _sage(1, "inf"), 3, "arrival_timestamp: not a finite number"),
    (_mooncake(0) + '{"timestamp": 5, "input_le', 2, "not a JSON object, or cut off"),
    (_mooncake(0) + "[1, 2]\n", 2, "not a JSON object, or cut off"),
    (_mooncake(0) + _mooncake("NaN"), 2, "timestamp: not a finite number"),
    (_mooncake(0) + _mooncake("null"), 2, "timestamp: no value"),
    (_mooncake(0) + _mooncake(5, hashes="[1.5]"), 2, "hash_ids: not a list of whole numbers"),
    (_mooncake(0) + _mooncake(5, hashes=f"[{2**70}]"), 2, "hash_ids: not a list of whole numbers"),
    (_mooncake(0) + _mooncake(1) + _mooncake(5, hashes="[1, 2, 3]"), 3, "hash_ids: more blocks of 512 tokens"),
    (TIDY.replace("\n", ",tier\n") + "1,2,3,IW-F\n2,2,3,iw\n", 3, "tier: wanted one of IW-F"),
    (TIDY.replace("\n", ",deadline_s\n") + "1,2,3,\n2,2,3,1.5\n", 3, "deadline_s: lies before arrival_s"),
]


def _said(text: str | bytes, strict: bool) -> ReadOptions:
    """The labels that the format of `text` lacks."""
    start = text[:30] if isinstance(text, str) else text[:30].decode()
    return ReadOptions(
        model=None if start.startswith((BURST[:15], SAGE[:15])) else "m",
        region=None if start.startswith(SAGE[:15]) else "west",
        tier=None if start.startswith(SAGE[:15]) or b"tier" in (text if isinstance(text, bytes) else text.encode())[:60]
        else Tier.IW_F,
        strict=strict,
    )  # fmt: skip


@pytest.mark.parametrize(("text", "line", "reason"), BAD_ROWS, ids=[reason for _, _, reason in BAD_ROWS])
def test_a_row_that_cannot_be_used_is_skipped_counted_and_shown_by_line(file, text, line, reason):
    path = file(text)
    trace, report = read_trace(path, _said(text, strict=False))
    (skipped,) = report.skipped
    assert reason in skipped.reason
    assert (skipped.rows, skipped.first_line) == (1, line)
    assert report.rows_read == len(trace) + 1
    assert trace.metadata.steps[0].parameters["skipped"] == {skipped.reason: 1}
    assert "\n" not in "".join(report.lines())


@pytest.mark.parametrize(("text", "line", "reason"), BAD_ROWS, ids=[reason for _, _, reason in BAD_ROWS])
def test_a_strict_reader_stops_at_it_and_names_file_line_and_column(file, text, line, reason):
    path = file(text)
    with pytest.raises(TraceError) as error:
        read_trace(path, _said(text, strict=True))
    column, _, why = reason.rpartition(": ")
    assert str(error.value).startswith(f"{path}, line {line}, column {column or '(line)'}: ")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_out_of_order_are_sorted_and_said(file):
    text = AZURE + GOOD + "2024-05-10 00:00:09+00:00,2,2\n2024-05-09 23:59:59+00:00,3,3\n"
    trace, report = read_trace(file(text), SAID)
    assert trace.numbers("prompt_tokens").tolist() == [3, 100, 2]
    assert trace.numbers("arrival_s").tolist() == [0.0, 1.5, 10.0]
    assert report.notes == ("1 rows were out of order (first: line 4); now by arrival",)
    with pytest.raises(TraceError, match=r"line 4, arrival: 10 s before the row above; sort the rows"):
        read_trace(file(text), STRICT)


def test_ids_that_repeat_are_counted_anew_and_said(file):
    text = SAGE + _sage(7, "1.5") + _sage(7, "2.5") + _sage(5, "3.5")
    trace, report = read_trace(file(text), ReadOptions())
    assert trace.numbers("request_id").tolist() == [0, 1, 2]
    assert any("1 rows repeat the request_id of another (first: line 3)" in note for note in report.notes)
    with pytest.raises(TraceError, match="line 3, column request_id: an earlier line has the same"):
        read_trace(file(text), ReadOptions(strict=True))


def _many(row, count=200):
    return "".join(row(i) for i in range(count))


WRONG_UNITS = [
    ("seconds for ms", _many(lambda i: _mooncake(i // 5)), "more than 1000 requests/s: in seconds rather than ms?"),
    (
        "ms for seconds",
        BURST + _many(lambda i: f"{i * 10**9},m,10,5,15,API log\n"),
        "more than 400 days: a finer unit? say the unit with --time-unit",
    ),
    (
        "ms where fractions of seconds belong",
        SAGE + _many(lambda i: _sage(i, str(i * 1000))),
        "none has a fraction: a finer unit?",
    ),
    (
        "since 1970",
        SAGE + _many(lambda i: _sage(i, f"{1_700_000_000 + i}.5")),
        "the time since 1970?",
    ),
    (
        "seconds of the day",
        SAGE + _sage(0, "86390.5") + _sage(1, "3.25") + _sage(2, "9.5"),
        "line 3: the timestamp falls by 86,387 s: seconds of the day",
    ),
    ("tokens in k", AZURE + _many(lambda i: f"2024-05-10 00:00:{i % 60:02}+00:00,2.{i},1\n"), "thousands?"),
    ("tokens with a k", AZURE + _many(lambda i: f"2024-05-10 00:00:{i % 60:02}+00:00,2k,1\n"), "end in k: thousands?"),
    (
        "lengths in k",
        _many(lambda i: _mooncake(i * 1000, 12, "[1, 2, 3, 4]")),
        "4 blocks for 12 tokens, and most rows alike; a block has 512 tokens",
    ),
    ("numbers for dates", AZURE + "53895.92,100,10\n", "'53895.92' is a number; wanted a date and time"),
]


@pytest.mark.parametrize(("text", "told"), [row[1:] for row in WRONG_UNITS], ids=[row[0] for row in WRONG_UNITS])
def test_a_wrong_unit_is_an_error_that_says_so(file, text, told):
    with pytest.raises(TraceError) as error:
        read_trace(file(text), _said(text, strict=False))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_unit_that_is_said_ends_the_doubt(file):
    text = _many(lambda i: _mooncake(i // 5))
    options = ReadOptions(model="m", region="west", tier=Tier.IW_F, time_unit="s")
    trace, _ = read_trace(file(text), options)
    assert trace.numbers("arrival_s")[-1] == 39.0
    assert trace.metadata.steps[0].parameters["time_unit"] == "s"


NO_TRACES = [
    (b"", "an empty file"),
    (b"\n\n", "an empty file"),
    (b"a,b\n1,2\n", "'a,b' is no format known here; there are parquet, csv"),
    (b'{"when": 1}\n', "JSON with the keys when is no format known here"),
    (b"\xff\xfeT\x00I\x00", "is no format known here"),
    (b"PAR1 and nothing more", "not a readable Parquet file"),
    (b"\x1f\x8b and nothing more", "file: "),
    (AZURE.encode(), "none of 0 rows of format azure can be used"),
    (AZURE.encode() + b"x,1,1\n", "none of 1 rows of format azure can be used; first: line 2, TIMESTAMP: not a date"),
    (b"Time,TIMESTAMP\n2024-05-12 00:00:00,132\n", "wanted at least two"),
    (b"Time,TIMESTAMP\n2024-05-12 00:00:00,1\n2024-05-12 00:00:10,1\n2024-05-12 00:00:13,1\n", "not on one grid"),
]


@pytest.mark.parametrize(("body", "told"), NO_TRACES, ids=[told for _, told in NO_TRACES])
def test_a_file_that_is_no_trace_is_refused_in_one_line(file, body, told):
    with pytest.raises(TraceError) as error:
        read_trace(file(body), ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=1))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match="gone: no such file"):
        read_trace(tmp_path / "gone", SAID)


def test_labels_that_a_format_lacks_must_be_given_and_ones_that_it_has_must_not(file):
    with pytest.raises(TraceError, match="does not say model, region, tier; give --model NAME --region NAME --tier"):
        read_trace(file(AZURE + GOOD))
    with pytest.raises(TraceError, match="says the model itself, so --model has no place; to rename use --map-model"):
        read_trace(file(BURST + "5,m,10,5,15,API log\n"), SAID)


def test_rates_need_a_seed_and_lengths(file):
    text = "Time,TIMESTAMP\n2024-05-12 00:00:00,132\n2024-05-12 00:00:10,1\n"
    with pytest.raises(TraceError, match=r"holds rates; give a seed \(--seed\)"):
        read_trace(file(text), SAID)
    with pytest.raises(TraceError, match="does not say how long requests are; give quantiles"):
        read_trace(file(text), ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=1))


def test_an_extra_column_of_the_simulators_csv_is_named(file):
    with pytest.raises(TraceError, match=r"and no other; it has .*, colour"):
        read_trace(file(SAGE.replace("\n", ",colour\n") + _sage(0, "1.5").replace("\n", ",red\n")), ReadOptions())


def test_blocks_of_a_file_meet_without_loss(file, monkeypatch):
    monkeypatch.setattr("workloads.formats.csv_rows.line_blocks", partial(line_blocks, block_bytes=1000))
    rows = "".join(f"2024-05-10 00:{i // 60:02}:{i % 60:02}+00:00,{i + 1},10\n" for i in range(300))
    broken = rows.replace(",150,10", ",150").replace(",200,", ",x,")
    trace, report = read_trace(file(AZURE + broken), SAID)
    assert trace.numbers("prompt_tokens").tolist() == [i for i in range(1, 301) if i not in (150, 200)]
    assert sorted(skip.first_line for skip in report.skipped) == [151, 201]


@pytest.mark.parametrize("stray", ["2025-09-10", "2199-01-01"])
def test_a_stray_date_is_refused_but_for_a_window_that_leaves_it_out(file, stray):
    path = file(AZURE + GOOD + f"{stray} 00:00:00+00:00,100,10\n")
    with pytest.raises(TraceError, match=r"line 3: .* days after the beginning"):
        read_trace(path, SAID)
    trace, _ = read_trace(path, replace(SAID, window_s=(0.0, 86_400.0)))
    assert len(trace) == 1
    with pytest.raises(TraceError, match="cut to 500 days; at most 400 are read"):
        read_trace(path, replace(SAID, window_s=(0.0, 500 * 86_400.0)))

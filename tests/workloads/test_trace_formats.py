"""Formats of others: rows as published become the requests that they describe, in seconds and tokens."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workloads.dispersion import index_of_dispersion
from workloads.formats.azure_counts import read_counts
from workloads.formats.findings import Findings
from workloads.formats.known import READABLE, detected
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import TraceError

# Quoted from the traces as published (Azure: CC-BY 4.0; BurstGPT: CC-BY 4.0; Mooncake, Bailian, ServeGen: Apache-2.0;
# SageServe: MIT).
AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-12 00:00:00+00:00,76,15
2024-05-16 23:59:59.886489+00:00,897,1
"""
AZURE_LMM = """TIMESTAMP,NumImages,ContextTokens,GeneratedTokens
2024-10-15T12:00:00.269Z,0,770,491
2024-10-15T12:00:05.819Z,1,949,126
2024-10-22T11:59:59.539Z,16,4564,137
"""
AZURE_COUNTS = """Time,TIMESTAMP
2024-05-12 00:00:00,132
2024-05-12 00:00:10,269
2024-05-12 00:00:20,258
"""
BURSTGPT_1 = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,Conversation log
"""
MOONCAKE = (
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, '
    '"hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2353, 2354]}\n'
    '{"timestamp": 30535, "input_length": 6472, "output_length": 26, '
    '"hash_ids": [46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 2366]}\n'
)
BAILIAN = (
    '{"chat_id": 159, "parent_chat_id": 55, "timestamp": 61.114, "input_length": 521, "output_length": 132, '
    '"type": "text", "turn": 2, "hash_ids": [1089, 1090, 1091, 6326, 13148]}\n'
)
SAGESERVE = """request_id,batch_id,client_tenant,request_type,scenario,sla,utility,regions,model_type,workload_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size
0,-1,1,2,ES,10,3,120,llama2-70b-p,prod,-1,53895.920,1,11967,409
1,-1,1,2,ES,10,3,102,llama2-70b-p,prod,-1,53909.369,1,14432,106
2,-1,2,2,ES,10,3,201,llama2-70b-p,prod,-1,53917.539,1,5672,274
"""  # noqa: E501
SAGESERVE_DAY_1 = """arrival_timestamp,regions,model_type,workload_type,prompt_size,token_size,client_tenant,request_id,batch_id,scenario,sla,utility,request_type,application_id,batch_size
0.00000,120,C,dev,702,64,8,5399999,-1,ES,10,1,2,-1,1
0.00000,210,B,prod,862,14,4,10399999,-1,ES,10,1,2,-1,1
0.13163,21,D,prod,7091,81,4,6899998,-1,ES,10,1,2,-1,1
86400.113242,021,D,prod,7092,89,4,6034350,-1,ES,10,1,2,-1,1
"""  # noqa: E501
SERVEGEN = """0,1.3316666666666668,8.598383725990791,Weibull,0.3753486140101707,0.3967677807107179
600,0,0,,0,0
1200,0.2733333333333333,6.016918484717946,Weibull,0.4949831672353574,3.3810771356697296
1800,0.15,4.068197850957398,Gamma,0.060422107316638725,103.65095274189687
"""
SERVEGEN_LENGTHS = (
    '{"0": {"input_tokens": "{224: 0.25, 225: 0.75}", "output_tokens": "{61: 1.0}"}, '
    '"1200": {"input_tokens": "{300: 1.0}", "output_tokens": "{}"}}'
)
SAID = ReadOptions(model="m", region="west", tier=Tier.IW_N)
LENGTHS = {"prompt_tokens": ((0.0, 10), (1.0, 20)), "output_tokens": ((0.0, 5), (1.0, 5))}


@pytest.fixture
def read(tmp_path):
    """Writes text to a file and reads it as a trace; returns the trace and the report."""

    def write_and_read(text: str, options: ReadOptions = SAID, name: str = "file", **named):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return read_trace(path, options, **named)

    return write_and_read


def _column(trace: Trace, name: str) -> list:
    return trace.numbers(name).tolist()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AZURE_2023, "azure"),
        (AZURE_2024, "azure"),
        (AZURE_LMM, "azure-lmm"),
        (AZURE_COUNTS, "azure-counts"),
        (BURSTGPT_1, "burstgpt"),
        (MOONCAKE, "mooncake"),
        (BAILIAN, "bailian"),
        (SAGESERVE, "sageserve"),
        (SAGESERVE_DAY_1, "sageserve"),
        ("arrival_s,prompt_tokens,output_tokens\n0,1,1\n", "csv"),
    ],
)
def test_a_format_is_recognised_by_what_is_in_the_file(text, name, tmp_path):
    for body in (text.encode(), b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), gzip.compress(text.encode())):
        (tmp_path / "file").write_bytes(body)
        assert detected(tmp_path / "file").name == name
    assert name in READABLE


def test_azure_2023_keeps_its_100_ns_and_begins_in_the_second_of_its_first_request(read):
    trace, report = read(AZURE_2023)
    assert _column(trace, "arrival_s") == [0.68059, 4.995169]
    assert (_column(trace, "prompt_tokens"), _column(trace, "output_tokens")) == ([374, 396], [44, 109])
    assert report.time_zero == datetime(2023, 11, 16, 18, 15, 46, tzinfo=UTC)
    assert trace.metadata.calendar.start_hour_of_week == pytest.approx(3 * 24 + 18 + 15 / 60 + 46 / 3600)
    assert read("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.0000001,1,1\n")[0].numbers(
        "arrival_s"
    ) == [1e-7]


def test_azure_2024_leaves_out_the_fraction_of_whole_seconds(read):
    trace, report = read(AZURE_2024)
    assert _column(trace, "arrival_s") == [0.00993, 172_800.0, 604_799.886489]
    assert trace.horizon_s == 604_800
    assert report.lines()[0].endswith("3 rows of format azure, 3 requests")


def test_a_time_with_another_offset_is_the_same_moment(read):
    trace, _ = read(AZURE_2024.replace("2024-05-12 00:00:00+00:00", "2024-05-12 02:00:00+02:00"))
    assert _column(trace, "arrival_s") == [0.00993, 172_800.0, 604_799.886489]


def test_images_are_counted_and_said_for_a_request_has_none(read):
    trace, report = read(AZURE_LMM)
    assert _column(trace, "arrival_s") == [0.269, 5.819, 604_799.539]
    assert "17 images in 2 requests are not in the trace" in report.notes[0]
    assert trace.metadata.steps[0].parameters["notes"] == list(report.notes)


def test_labels_that_a_format_lacks_are_those_given_and_recorded(read):
    trace, _ = read(AZURE_2023)
    assert {(r.model, r.region, r.tier) for r in trace.requests()} == {("m", "west", Tier.IW_N)}
    step = trace.metadata.steps[0]
    assert step.name == "import"
    assert {"file": "file", "format": "azure", "model": "m", "region": "west", "tier": "IW-N"}.items() <= (
        step.parameters.items()
    )


def test_ten_second_counts_become_as_many_arrivals_in_each_bin(read):
    trace, report = read(AZURE_COUNTS, ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=5, **LENGTHS))
    assert np.bincount((trace.numbers("arrival_s") // 10).astype(int)).tolist() == [132, 269, 258]
    assert (trace.horizon_s, trace.metadata.seed) == (30.0, 5)
    assert set(_column(trace, "output_tokens")) == {5}
    assert report.time_zero == datetime(2024, 5, 12, tzinfo=UTC)
    again, _ = read(AZURE_COUNTS, ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=5, **LENGTHS))
    other, _ = read(AZURE_COUNTS, ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=6, **LENGTHS))
    assert again.digest() == trace.digest() != other.digest()


def test_ten_second_counts_become_a_demand_series_in_which_missing_bins_are_zero(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text(AZURE_COUNTS + "2024-05-12 00:00:50,10\n")
    findings = Findings("counts.csv", "azure-counts", strict=False)
    demand = read_counts(path, findings).demand(("m", "west"), tokens_per_request=100.0)
    assert demand.interactive[("m", "west")].tolist() == [1320.0, 2690.0, 2580.0, 0.0, 0.0, 100.0]
    assert demand.niw[("m", "west")].sum() == 0
    assert (demand.from_s, demand.bin_s) == (0.0, 10.0)
    assert "2 of 6 bins are missing" in findings.report(0).notes[0]


def test_burstgpt_names_its_models_and_skips_requests_that_failed(read):
    trace, report = read(BURSTGPT_1 + "130,ChatGPT,300,0,300,API log\n", ReadOptions(region="r", tier=Tier.IW_F))
    assert [(r.arrival_s, r.model, r.prompt_tokens, r.output_tokens) for r in trace.requests()] == [
        (5.0, "ChatGPT", 472, 18),
        (45.0, "ChatGPT", 1087, 230),
        (118.0, "GPT-4", 417, 276),
    ]
    (skipped,) = report.skipped
    assert (skipped.rows, skipped.first_line) == (1, 5)
    assert "a request that failed" in skipped.reason


def test_burstgpt_sessions_become_turns_that_think_from_the_answer_to_the_next_request(read):
    text = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
0,a,10,ChatGPT,10,5,15,Conversation log
4,,2,ChatGPT,10,5,15,API log
30,a,6.5,ChatGPT,20,5,25,Conversation log
33,b,1,GPT-4,20,5,25,Conversation log
36,a,2,ChatGPT,30,5,35,Conversation log
"""
    trace, report = read(text, ReadOptions(region="r", tier=Tier.IW_F))
    later, _ = read(text, ReadOptions(region="r", tier=Tier.IW_F, window_s=(30.0, 36.0)))
    assert _column(later, "turn") == [2, 1, 3]  # what was before the window still counts
    assert trace.optional == ("session", "turn", "think_s")
    session = _column(trace, "session")
    assert session[0] == session[2] == session[4] != session[3]
    assert session[1] == -1
    assert _column(trace, "turn") == [1, 0, 2, 1, 3]
    assert np.nan_to_num(trace.numbers("think_s"), nan=-1).tolist() == [-1, -1, 20.0, -1, 0.0]
    assert any("1 turns were sent before the answer" in note for note in report.notes)


def test_mooncake_counts_milliseconds_and_shares_512_token_blocks(read):
    trace, _ = read(MOONCAKE)
    assert _column(trace, "arrival_s") == [27.482, 30.535]
    assert trace.metadata.prefix_block_tokens == 512
    first, second = trace.prefix_hashes().to_pylist()
    assert first[:12] == second[:12] == list(range(46, 58))
    assert (first[12:], second[12:]) == ([2353, 2354], [2366])


def test_bailian_parents_and_turns_become_sessions_of_16_token_blocks(read):
    line = (
        '{"chat_id": %d, "parent_chat_id": %d, "timestamp": %s, "input_length": 33, "output_length": 9, "turn": %d}\n'
    )
    text = BAILIAN + "".join(
        line % row for row in [(3, -1, "62.5", 1), (9, 159, "70.25", 3), (4, 3, "71.0", 2), (5, 3, "72.0", 2)]
    )
    trace, report = read(text)
    assert _column(trace, "request_id") == [159, 3, 9, 4, 5]
    assert trace.metadata.prefix_block_tokens == 16
    assert trace.prefix_hashes().to_pylist()[:2] == [[1089, 1090, 1091, 6326, 13148], []]
    session = _column(trace, "session")
    assert session[0] == session[2]
    assert session[1] == session[3]
    assert len(set(session)) == 3  # the second request that follows 3 begins a chain of its own
    assert _column(trace, "turn") == [2, 1, 3, 2, 2]
    assert "think_s" not in trace.optional
    assert any("1 requests follow one that is not in the file" in note for note in report.notes)
    assert any("1 requests share the request before them" in note for note in report.notes)


def test_sageserve_rows_say_model_region_of_origin_and_tier(read):
    trace, report = read(SAGESERVE, ReadOptions())
    assert [(r.arrival_s, r.model, r.region, r.tier, r.prompt_tokens, r.output_tokens) for r in trace.requests()] == [
        (53895.92, "llama2-70b-p", "central", Tier.IW_F, 11967, 409),
        (53909.369, "llama2-70b-p", "central", Tier.IW_F, 14432, 106),
        (53917.539, "llama2-70b-p", "east", Tier.IW_F, 5672, 274),
    ]
    assert _column(trace, "tenant") == [1, 1, 2]
    assert len(report.notes) == 1


def test_a_leading_zero_that_regions_lost_is_put_back_and_said(read):
    trace, report = read(SAGESERVE_DAY_1, ReadOptions())
    assert [(r.region, r.tier) for r in trace.requests()] == [
        ("central", Tier.NIW),
        ("east", Tier.IW_F),
        ("west", Tier.IW_F),
        ("west", Tier.IW_F),
    ]
    assert _column(trace, "request_id") == [5399999, 10399999, 6899998, 6034350]
    assert any("1 values of regions had lost a leading 0" in note for note in report.notes)
    assert any("another order" in note for note in report.notes)


@pytest.fixture
def servegen(tmp_path) -> Path:
    folder = tmp_path / "m-large"
    folder.mkdir()
    (folder / "chunk-7-trace.csv").write_text(SERVEGEN)
    (folder / "chunk-7-dataset.json").write_text(SERVEGEN_LENGTHS)
    return folder


def test_servegen_windows_are_drawn_at_their_rate_with_their_clients_lengths(servegen):
    assert detected(servegen).name == "servegen"
    counts = np.zeros(4)
    for seed in range(60):
        trace, _ = read_trace(servegen, ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=seed))
        counts += np.histogram(trace.numbers("arrival_s"), [0, 600, 1200, 1800, 2400])[0] / 60
    assert counts == pytest.approx([799, 0, 164, 90], rel=0.3)
    assert counts[1] == 0
    assert set(_column(trace, "prompt_tokens")) == {224, 225}  # at 1200 s outputs are not known: the time before holds
    assert set(_column(trace, "tenant")) == {7}
    assert trace.horizon_s == 2400


def test_servegen_arrivals_are_far_burstier_than_poisson(servegen):
    trace, _ = read_trace(servegen, ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=1))
    assert index_of_dispersion(trace.numbers("arrival_s"), trace.horizon_s) > 3


def test_a_part_of_servegen_is_the_same_as_in_the_whole(servegen):
    said = {"model": "m", "region": "r", "tier": Tier.IW_F, "seed": 3}
    whole, _ = read_trace(servegen, ReadOptions(**said))
    part, _ = read_trace(servegen, ReadOptions(**said, window_s=(1200.0, 1800.0)))
    arrival_s = whole.numbers("arrival_s")
    within = (arrival_s >= 1200) & (arrival_s <= 1800)
    assert part.numbers("arrival_s").tolist() == arrival_s[within].tolist()
    assert part.numbers("prompt_tokens").tolist() == whole.numbers("prompt_tokens")[within].tolist()


def test_a_table_of_servegen_windows_takes_lengths_from_outside(tmp_path):
    table = pa.table(
        {
            "client": [0, 0],
            "t": [0, 600],
            "rate": [1.5, 0.0],
            "cv": [2.0, 0.0],
            "pat": ["Gamma", None],
            "p1": [0.25, 0.0],
            "p2": [1.0, 0.0],
        }
    )
    pq.write_table(table, tmp_path / "w.parquet")
    options = ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=1, **LENGTHS)
    trace, _ = read_trace(tmp_path / "w.parquet", options)
    assert len(trace) > 300
    assert trace.numbers("arrival_s").max() < 600
    assert trace.horizon_s == 1200


def test_tidy_csv_needs_three_columns_and_takes_all(read):
    bare, _ = read("prompt_tokens,arrival_s,output_tokens\n7,0.5,3\n")
    assert [(r.arrival_s, r.prompt_tokens, r.output_tokens) for r in bare.requests()] == [(0.5, 7, 3)]
    text = (
        "request_id,arrival_s,model,region,tier,prompt_tokens,output_tokens,deadline_s,tenant,session,turn,think_s,"
        "cancel_after_s,colour\n"
        "4,0.5,a,x,IW-F,7,3,,2,0,1,,,red\n9,1.5,b,x,NIW,7,3,90,,0,2,0.25,8,blue\n"
    )
    full, report = read(text, ReadOptions())
    assert _column(full, "request_id") == [4, 9]
    assert [r.deadline_s for r in full.requests()] == [None, 90.0]
    assert _column(full, "tenant") == [2, -1]
    assert _column(full, "turn") == [1, 2]
    assert full.numbers("think_s")[1] == 0.25
    assert full.numbers("cancel_after_s")[1] == 8.0
    assert any("left out: colour" in note for note in report.notes)


def test_servegen_files_may_be_numbered_with_leading_zeros(servegen):
    said = ReadOptions(model="m", region="r", tier=Tier.IW_F, seed=1)
    plain, _ = read_trace(servegen, said)
    for file in list(servegen.iterdir()):
        file.rename(file.with_name(file.name.replace("-7-", "-007-")))
    padded, _ = read_trace(servegen, said)
    assert list(padded.requests()) == list(plain.requests())
    (servegen / "chunk-07-trace.csv").write_text(SERVEGEN)
    with pytest.raises(TraceError, match=r"is of client 7, as is chunk-007-trace\.csv; number each client once"):
        read_trace(servegen, said)

"""`testbed trace convert`: traces of others become ours, changed as asked, and every loss is said."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from testbed.trace_changes import TraceChanges
from workloads.formats.known import FORMATS
from workloads.trace import Trace

Command = Callable[..., tuple[int, str, str]]
LABELS = ("--model", "m", "--region", "west", "--tier", "IW-F")


@pytest.fixture
def convert(testbed: Command) -> Command:
    """Run `testbed trace convert` in a folder with two Azure files; returns exit code, standard output and error."""
    for day, name in ((10, "code.csv"), (12, "conv.csv")):
        rows = [f"2024-05-{day} {h:02}:{m:02}:00+00:00,{100 + h},{10 + m}\n" for h in range(4) for m in range(60)]
        Path(name).write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows) + "cut off\n")
    return partial(testbed, "trace", "convert")


def test_it_says_what_was_read_skipped_and_written(convert: Command) -> None:
    code, told, err = convert("code.csv", "-o", "t.parquet", *LABELS)
    assert (code, err) == (0, "")
    assert "code.csv: 241 rows of format azure, 240 requests" in told
    assert "skipped 1: (line): 1 field where 3 were expected (first: line 242, 'cut off')" in told
    assert "240 requests in 3.98333 h → t.parquet" in told
    assert Trace.read("t.parquet").metadata.steps[0].parameters["rows_kept"] == 240


def test_changes_are_made_in_order_and_recorded(convert: Command) -> None:
    code, told, err = convert(
        "code.csv", "-o", "t.parquet", *LABELS, "--cut", "1h:3h", "--map-model", "m=llama", "--map-tier", "*=NIW",
        "--niw-deadline", "24h", "--jitter", "60", "--stretch", "0.5", "--rate-scale", "2",
        "--clip-context", "llama=60", "--seed", "3",
    )  # fmt: skip
    assert (code, err) == (0, "")
    trace = Trace.read("t.parquet")
    names = [step.name for step in trace.metadata.steps]
    assert names == [
        "import",
        "cut",
        "relabel",
        "set_deadlines",
        "jitter",
        "stretch_time",
        "scale_rate",
        "clip_lengths",
    ]
    for name in names[1:]:
        assert f"{name}: " in told
    assert trace.horizon_s == 3600
    assert len(trace) == pytest.approx(240, rel=0.4)
    assert trace.total_tokens.max() <= 60
    assert {(request.model, str(request.tier)) for request in trace.requests()} == {("llama", "NIW")}
    assert trace.numbers("deadline_s") - trace.numbers("arrival_s") == pytest.approx(43_200, abs=60)


def test_files_with_dates_are_put_on_one_clock_unless_told_otherwise(convert: Command) -> None:
    assert convert("code.csv", "conv.csv", "-o", "clock.parquet", *LABELS)[0] == 0
    assert convert("code.csv", "conv.csv", "-o", "start.parquet", *LABELS, "--align", "start")[0] == 0
    clock, start = Trace.read("clock.parquet"), Trace.read("start.parquet")
    assert len(clock) == len(start) == 480
    assert clock.numbers("arrival_s")[[0, 240]].tolist() == [0.0, 172_800.0]
    assert start.numbers("arrival_s")[:2].tolist() == [0.0, 0.0]
    assert np.unique(start.numbers("request_id")).size == 480


def test_the_suffix_says_the_format_to_write_and_to_overrides_it(convert: Command) -> None:
    for out, extra, first in (
        ("t.csv", (), "request_id,arrival_s,model"),
        ("sage.csv", ("--to", "sageserve"), "request_id,batch_id,client_tenant"),
        ("v.csv", ("--to", "vidur"), "arrived_at,num_prefill_tokens"),
        ("m.jsonl", (), '{"timestamp": 0, "input_length": 100'),
    ):
        assert convert("code.csv", "-o", out, *LABELS, *extra)[0] == 0
        assert Path(out).read_text().startswith(first)


def test_whole_clients_can_be_sampled_where_they_are_known(convert: Command) -> None:
    rows = [f"{i},{i % 97},{i % 10},5,5\n" for i in range(2000)]
    rows.sort(key=lambda row: int(row.split(",")[1]))
    Path("t.csv").write_text("request_id,arrival_s,tenant,prompt_tokens,output_tokens\n" + "".join(rows))
    code, told, _ = convert(
        "t.csv", "-o", "few.parquet", *LABELS, "--rate-scale", "0.3", "--keep", "clients", "--seed", "1"
    )
    assert code == 0
    assert "sample_tenants" in told
    few = Trace.read("few.parquet")
    assert np.unique(few.numbers("tenant")).size == 3
    assert len(few) == 600


def test_a_demand_for_all_rows_keeps_a_file_from_being_streamed() -> None:
    none: dict[str, str] = {}
    assert not TraceChanges(models=none, regions=none, tiers=none, cut_s=(0.0, 9.0)).need_all_rows
    assert TraceChanges(models=none, regions=none, tiers=none, cut_s=(0.0, None)).need_all_rows
    assert TraceChanges(models={"a": "b"}, regions=none, tiers=none).need_all_rows


FAULTS = [
    (["code.csv", "-o", "there.csv"], "--out there.csv exists already"),
    (["code.csv", "-o", "t.xyz"], "--out t.xyz: what format? End it in .parquet, .csv, .jsonl or give --to"),
    (["code.csv", "-o", "t.csv", "--to", "azure"], "no format 'azure' to write; there are parquet, csv"),
    (["code.csv", "-o", "t.csv", "--from", "vidur"], "no format 'vidur' to read; there are parquet, csv"),
    (["code.csv", "-o", "t.csv"], "does not say model, region, tier; give --model NAME --region NAME --tier NAME"),
    (["gone.csv", "-o", "t.csv"], "gone.csv: no such file"),
    (["code.csv", "-o", "t.csv", *LABELS, "--strict"], "code.csv, line 242, column (line): 'cut off'; 1 field where"),
    (["code.csv", "-o", "t.csv", *LABELS, "--cut", "8h"], "--cut 8h: wanted FROM:TO"),
    (["code.csv", "-o", "t.csv", *LABELS, "--cut", "1x:2h"], "--cut 1x: not a time"),
    (["code.csv", "-o", "t.csv", *LABELS, "--cut", "3h:1h"], "--cut 3h:1h: it ends before it begins; wanted FROM:TO"),
    (["code.csv", "-o", "t.csv", *LABELS, "--cut", "2h:9h"], "must be a window within 0.."),
    (["code.csv", "-o", "t.csv", *LABELS, "--map-model", "x"], "--map-model x: wanted OLD=NEW"),
    (["code.csv", "-o", "t.csv", *LABELS, "--map-model", "x=y"], "no model 'x' here; there are m"),
    (["code.csv", "-o", "t.csv", *LABELS, "--jitter", "1"], "--jitter draws at random; give --seed N"),
    (["code.csv", "-o", "t.csv", *LABELS, "--rate-scale", "0", "--seed", "1"], "must be above 0 and finite"),
    (["code.csv", "-o", "t.csv", *LABELS, "--keep", "all"], "--keep all: wanted dispersion or clients"),
    (["code.csv", "-o", "t.csv", *LABELS, "--keep", "clients", "--rate-scale", ".5", "--seed", "1"], "how='redraw'"),
    (["code.csv", "-o", "t.csv", *LABELS, "--align", "stars"], "--align stars: wanted clock or start"),
    (["code.csv", "-o", "t.csv", *LABELS, "--time-unit", "h"], "--time-unit h: wanted one of s, ms, us, ns"),
    (["code.csv", "-o", "t.csv", *LABELS, "--clip-context", "n=5"], "--clip-context n=5: wanted tokens, or MODEL="),
    (["code.csv", "-o", "t.csv", *LABELS, "--clip-context", "1"], "must be at least 2"),
    (["code.csv", "-o", "t.csv", *LABELS, "--prompt-tokens", "0:5"], "--prompt-tokens 0:5: "),
    (["code.csv", "-o", "m.csv", "--to", "sageserve", "--model", "m", "--region", "oslo", "--tier", "NIW"], "'oslo'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), FAULTS, ids=[told for _, told in FAULTS])
def test_what_cannot_be_done_is_one_line_and_leaves_no_file(arguments: list[str], told: str, convert: Command) -> None:
    Path("there.csv").write_text("here\n")
    code, out, err = convert(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("testbed: ")
    assert err.count("\n") == 1
    assert told in err
    assert sorted(path.name for path in Path().iterdir()) == ["code.csv", "conv.csv", "there.csv"]


def test_every_format_is_listed(testbed: Command) -> None:
    _, told, _ = testbed("trace", "formats")
    assert all(name in told for name in FORMATS)

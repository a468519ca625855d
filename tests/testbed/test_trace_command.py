"""`testbed trace`: makes a trace that a scenario can replay, and tells what is in one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from workloads.trace import Trace

Command = Callable[..., tuple[int, str, str]]
SMALL = ["--set", "horizon_h=6", "--set", "mean_requests_per_s=0.05"]


@pytest.fixture
def trace_command(testbed: Command) -> Command:
    """Run `testbed trace` in an empty folder; returns exit code, standard output and standard error."""
    return partial(testbed, "trace")


def test_the_same_seed_makes_the_same_bytes_and_another_one_does_not(trace_command: Command) -> None:
    digests = []
    for seed, out in (("3", "one.parquet"), ("3", "folder/two.parquet"), ("4", "three.parquet")):
        code, told, err = trace_command("make", "--seed", seed, "-o", out, *SMALL)
        assert (code, err) == (0, "")
        trace = Trace.read(out)
        assert f"{len(trace):,} requests in 6 h → {out}  digest {trace.digest()}" in told
        digests.append(trace.digest())
    assert digests[0] == digests[1] != digests[2]
    assert Path("one.parquet").read_bytes() == Path("folder/two.parquet").read_bytes()


def test_what_is_made_is_parquet_and_has_no_other_name(trace_command: Command) -> None:
    code, _, err = trace_command("make", "--seed", "3", "-o", "t.csv", *SMALL)
    assert code == 2
    assert "--out t.csv: wanted a .parquet file; `testbed trace convert` makes other formats" in err
    assert not Path("t.csv").exists()


def test_a_trace_of_a_scenario_is_what_the_scenario_replays(trace_command: Command, small_scenario: Any) -> None:
    path = small_scenario.write()
    assert trace_command("make", "--seed", "5", "--scenario", str(path), "-o", "t.parquet")[0] == 0
    assert Trace.read("t.parquet").digest() == small_scenario.experiment().setting.load.trace.digest()


def test_a_workload_file_and_overrides_say_what_is_made(trace_command: Command) -> None:
    Path("w.yaml").write_text("mean_requests_per_s: 0.05\nhorizon_h: 100\nregions: {north: {share: 1.0}}\n")
    assert trace_command("make", "--params", "w.yaml", "--seed", "1", "-o", "t.parquet", "--set", "horizon_h=6")[0] == 0
    trace = Trace.read("t.parquet")
    assert trace.horizon_s == 6 * 3600
    assert trace.labels("region").names == ("north",)


def test_a_description_is_drawn_as_a_page_with_the_same_table(trace_command: Command) -> None:
    trace_command("make", "--seed", "3", "-o", "t.parquet", *SMALL)
    code, told, err = trace_command("describe", "t.parquet", "--html", "t.html")
    assert (code, err) == (0, "")
    assert told.rstrip().endswith("→ t.html")
    page = Path("t.html").read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') >= 9
    assert "<script" not in page and "http" not in page
    (counts,) = (line for line in told.splitlines() if line.startswith("targets: "))
    assert counts in page
    assert f"{page.count('>pass</td>')} pass, {page.count('>miss</td>')} miss" in counts
    assert trace_command("describe", "t.parquet", "--html", "t.html")[0] == 2, "a file that is there is left alone"


def test_a_description_tells_counts_and_why_a_statistic_cannot_be_had(trace_command: Command) -> None:
    trace_command("make", "--seed", "3", "-o", "t.parquet", *SMALL)
    code, told, err = trace_command("describe", "t.parquet")
    assert (code, err) == (0, "")
    assert f"{len(Trace.read('t.parquet')):,}" in told
    assert "- (" in told


def test_a_description_ends_with_the_verdict_on_every_target(trace_command: Command) -> None:
    trace_command("make", "--seed", "3", "-o", "t.parquet", *SMALL)
    _, told, _ = trace_command("describe", "t.parquet")
    for number in ("1 ", "3a", "6b", "12b"):
        assert f"\n{number}" in told
    assert "not applicable" in told
    assert "* the two weeks from its Monday on, drawn from the same workload and seed at 0.05" in told
    assert told.splitlines()[-1].startswith("targets: ")


def test_a_preset_can_be_listed_printed_changed_and_made(trace_command: Command) -> None:
    _, told, _ = trace_command("presets")
    assert "sageserve-day" in told
    _, told, _ = trace_command("presets", "burst")
    assert told.startswith("# Six hours")
    Path("mine.yaml").write_text(told)
    quick = ["--set", "horizon_h=0.5", "--seed", "1"]
    trace_command("make", "burst", "-o", "preset.parquet", *quick)
    trace_command("make", "--params", "mine.yaml", "-o", "file.parquet", *quick)
    assert Trace.read("preset.parquet").digest() == Trace.read("file.parquet").digest()


def test_a_trace_can_be_learned_and_made_again(trace_command: Command) -> None:
    trace_command("make", "--seed", "3", "-o", "t.parquet", "--set", "horizon_h=6", "--set", "mean_requests_per_s=0.1")
    code, told, err = trace_command("fit", "t.parquet", "-o", "learned.yaml")
    assert (code, err) == (0, "")
    assert "the trace does not cover every hour of a day" in told
    assert Path("learned.yaml").read_text().startswith("# Learned from t.parquet, digest ")
    assert trace_command("make", "--params", "learned.yaml", "--seed", "4", "-o", "again.parquet")[0] == 0
    first, second = Trace.read("t.parquet"), Trace.read("again.parquet")
    assert second.horizon_s == first.horizon_s
    assert 0.7 < len(second) / len(first) < 1.4


FAULTS = [
    (["make", "--seed", "1", "-o", "there.yaml"], "--out there.yaml exists already; name a file that does not"),
    (["make", "chat", "--scenario", "quickstart", "--seed", "1", "-o", "t"], "give only one of a preset, --params and"),
    (["make", "chet", "--seed", "1", "-o", "t"], "no preset 'chet'; did you mean 'chat'?"),
    (["make", "there.yaml", "--seed", "1", "-o", "t"], "no preset 'there.yaml'; a file of your own goes to --params"),
    (["make", "--params", "nowhere.yaml", "--seed", "1", "-o", "t"], "no workload file nowhere.yaml"),
    (["make", "--params", ".", "--seed", "1", "-o", "t"], ".: not a readable YAML file"),
    (["make", "--params", "there.yaml", "--seed", "1", "-o", "t"], "there.yaml: holds list, wanted a mapping"),
    (["presets", "chet"], "no preset 'chet'; did you mean 'chat'?"),
    (["fit", "nowhere.parquet", "-o", "t"], "no trace nowhere.parquet; make one with `testbed trace make`"),
    (["make", "--seed", "1", "-o", "t", "--set", "horizn_h=1"], "unknown key 'horizn_h'; did you mean 'horizon_h'?"),
    (["make", "--seed", "1", "-o", "t", "--set", "horizon_h=-1"], "horizon_h: Input should be greater than 0"),
    (["describe", "nowhere.parquet"], "no trace nowhere.parquet; make one with `testbed trace make`"),
    (["describe", "there.yaml"], "there.yaml: not a readable Parquet file"),
    (["describe", "there.yaml"], "`testbed trace convert` makes one of other formats"),
]


@pytest.mark.parametrize(("arguments", "told"), FAULTS, ids=[told for _, told in FAULTS])
def test_a_fault_is_one_line_and_exit_code_2(arguments: list[str], told: str, trace_command: Command) -> None:
    Path("there.yaml").write_text("- 1\n")
    code, out, err = trace_command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("testbed: ")
    assert err.count("\n") == 1
    assert told in err
    assert [path.name for path in Path().iterdir()] == ["there.yaml"]

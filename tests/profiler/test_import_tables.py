from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from profiler.analytical import analytical_profile
from profiler.exports.export import export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.exports.settings import ExportSettings
from profiler.exports.splitwise import COLUMNS
from profiler.gpu_types import A100_80GB, H100
from profiler.imports.dynamo import read_dynamo
from profiler.imports.imported import ImportedFileError, profile_of
from profiler.imports.splitwise import read_splitwise
from profiler.imports.units import UnitsError, detect_units
from profiler.model_shapes import LLAMA_2_70B, LLAMA_3_1_8B
from profiler.profile import ServerProfile, load_profile
from profiler.step_time import prefill_pairs
from testbed import cli_export
from testbed.bad_input import BadInput

SERVER = analytical_profile(LLAMA_2_70B, H100, 4)
OTHER = analytical_profile(LLAMA_3_1_8B, A100_80GB, 1)
# Rows of SplitwiseSim's table (ms, time per token) and of SageServe's Llama-3.1-8B (s, time of all tokens), both MIT.
SPLITWISE = """\
llama2-70b,a100-80gb,512,1,128,1.0000125,0.73599375,196.2532191537321,54.87951193752838,7168.983697891235,2
llama2-70b,a100-80gb,512,1,128,1.0000125,0.73599375,195.56166394613683,54.85629275859165,7165.2703285217285,2
llama2-70b,a100-80gb,512,1,128,1.0000125,0.73599375,197.44017580524087,54.80496003659163,7160.75325012207,2
"""
SAGESERVE = """\
Llama-3.1-8B,a100-80gb,128,1,128,0,0,0.02635645866394043,1.0914227962493896,1.120187759399414,2
Llama-3.1-8B,a100-80gb,128,1,128,0,0,0.024628400802612305,1.08858060836792,1.1153385639190674,2
Llama-3.1-8B,a100-80gb,128,1,128,0,0,0.024098873138427734,1.087883710861206,1.114281415939331,2
"""


def rows(text: str) -> pd.DataFrame:
    return pd.read_csv(StringIO(text), names=list(COLUMNS))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("export") / "canonical"
    export([SERVER, OTHER], EXPORT_FORMATS["splitwise"], into, ExportSettings(canonical=True))
    return into / "data" / "perf_model.csv"


def agrees(imported: ServerProfile, original: ServerProfile) -> None:
    for tokens in (200, 1000, 3000):
        exact = original.step_time.step_s(tokens, prefill_pairs(tokens), 0, 0) + (original.request_overhead_s or 0)
        fitted = imported.step_time.step_s(tokens, prefill_pairs(tokens), 0, 0) + (imported.request_overhead_s or 0)
        assert fitted == pytest.approx(exact, rel=0.02)
    for seqs, context in ((1, 500), (10, 2000), (64, 1000), (200, 500)):
        exact = original.step_time.step_s(0, 0, seqs, seqs * context)
        assert imported.step_time.step_s(0, 0, seqs, seqs * context) == pytest.approx(exact, rel=0.02)


def test_published_tables_are_told_apart_by_their_units() -> None:
    assert detect_units(rows(SPLITWISE)).units == "ms-per-token"
    found = detect_units(rows(SAGESERVE))
    assert found.units == "s-total"
    assert "faster than any server" in found.why and "e2e_time is prompt_time + token_time" in found.why
    assert (found.seconds, found.whole_answer) == (1.0, True)


def test_a_table_that_contradicts_itself_asks_for_its_units() -> None:
    strange = rows(SPLITWISE).assign(e2e_time=500.0)
    with pytest.raises(UnitsError, match="--units"):
        detect_units(strange)
    with pytest.raises(UnitsError, match="--units"):
        detect_units(rows(SPLITWISE).assign(e2e_time=0))


def test_a_profile_survives_the_way_through_a_splitwise_table(table: Path) -> None:
    imported = profile_of(read_splitwise(table, model="llama2-70b"), [table])
    assert (imported.kind, imported.model.name, imported.gpu.type) == ("imported", "llama2-70b", "h100-80gb")
    assert imported.engine.tensor_parallel_size == 4 and imported.domain is not None
    assert imported.lifecycle.cold_start_s is None and imported.power is None
    assert any("lower bound" in note for note in imported.provenance.notes)
    agrees(imported, SERVER)


def test_seconds_and_whole_answers_give_the_same_profile(table: Path, tmp_path: Path) -> None:
    content = pd.read_csv(table)
    content["token_time"] *= content["token_size"] - 1
    content[["prompt_time", "token_time", "e2e_time"]] /= 1000
    content.to_csv(tmp_path / "seconds.csv", index=False)
    agrees(profile_of(read_splitwise(tmp_path / "seconds.csv", model="llama2-70b"), [table]), SERVER)


def test_units_that_are_told_win_over_what_is_detected(table: Path) -> None:
    told = read_splitwise(table, model="llama2-70b", units="s-per-token")
    detected = read_splitwise(table, model="llama2-70b")
    assert told.samples[0].observed_s == pytest.approx(1000 * detected.samples[0].observed_s)
    assert any("as told" in note for note in told.notes)


def test_batches_whose_first_prompt_alone_was_timed_are_not_taken_for_whole_ones(table: Path, tmp_path: Path) -> None:
    content = pd.read_csv(table)
    alone = content[content["batch_size"] == 1].groupby(["model", "prompt_size"])["prompt_time"].median()
    key = pd.MultiIndex.from_frame(content[["model", "prompt_size"]])
    content["prompt_time"] = alone.reindex(key).to_numpy()
    content.to_csv(tmp_path / "first.csv", index=False)
    imported = read_splitwise(tmp_path / "first.csv", model="llama2-70b", units="ms-per-token")
    prefills = [sample for sample in imported.samples if sample.kind == "prefill"]
    assert {sample.prefill_tokens for sample in prefills} == set(
        content[(content["model"] == "llama2-70b") & (content["batch_size"] == 1)]["prompt_size"]
    )
    assert any("does not grow with batch_size" in note for note in imported.notes)


def test_one_of_several_servers_must_be_picked(table: Path) -> None:
    with pytest.raises(ImportedFileError, match="llama2-70b on 4 x h100-80gb; llama"):
        read_splitwise(table)
    with pytest.raises(ImportedFileError, match="0 fit"):
        read_splitwise(table, model="llama2-70b", gpu="a100-80gb")


def test_the_iteration_axis_form_is_refused(tmp_path: Path) -> None:
    export([SERVER], EXPORT_FORMATS["splitwise"], tmp_path / "out")
    with pytest.raises(ImportedFileError, match="every row has batch_size 1"):
        read_splitwise(tmp_path / "out" / "data" / "perf_model.csv")


def test_a_file_of_another_kind_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ImportedFileError, match="lacks columns model, hardware"):
        read_splitwise(tmp_path / "other.csv")
    with pytest.raises(ImportedFileError, match="not a readable CSV"):
        read_splitwise(tmp_path / "none.csv")


def test_a_profile_survives_the_way_through_dynamos_files(tmp_path: Path) -> None:
    export([SERVER], EXPORT_FORMATS["dynamo"], tmp_path / "out")
    imported = profile_of(
        read_dynamo([tmp_path / "out"], model="llama-2-70b", gpu="h100", tensor_parallel_size=4), [tmp_path]
    )
    assert imported.name == "llama-2-70b-h100-tp4"
    assert imported.kv_cache.max_tokens == SERVER.kv_cache.max_tokens
    agrees(imported, SERVER)


def test_half_of_dynamos_files_is_not_enough(tmp_path: Path) -> None:
    export([SERVER], EXPORT_FORMATS["dynamo"], tmp_path / "out")
    decode = tmp_path / "out" / "selected_decode_interpolation" / "raw_data.npz"
    with pytest.raises(ImportedFileError, match="no array prefill_isl, prefill_ttft"):
        read_dynamo([decode], model="m", gpu="g")


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command("export")(cli_export.export)
    app.command("import")(cli_export.import_)
    return app


def test_the_command_says_what_it_detected_and_how_well_it_fits(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    asked = [
        "import",
        str(table),
        "--from",
        "splitwise",
        "-o",
        str(out),
        "--model",
        "llama2-70b",
        "--kv-tokens",
        "480000",
    ]
    result = CliRunner().invoke(_app(), asked)
    assert result.exit_code == 0, result.output
    assert "units ms-per-token" in result.output and "mean error" in result.output
    assert load_profile(out).kv_cache.max_tokens == 480_000
    again = CliRunner().invoke(_app(), asked)
    assert isinstance(again.exception, BadInput) and "exists already" in str(again.exception)


def test_dynamos_files_want_the_names_that_they_lack(tmp_path: Path) -> None:
    result = CliRunner().invoke(_app(), ["import", "x", "--from", "dynamo", "-o", str(tmp_path / "p.json")])
    assert isinstance(result.exception, BadInput) and "--model and --gpu" in str(result.exception)

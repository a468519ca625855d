from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from profiler.analytical import analytical_profile
from profiler.exports.export import export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.exports.settings import ExportError, ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile import OutsideDomainError
from profiler.profile_parts import Domain, LoadPoint, Percentiles
from testbed import cli_export
from testbed.bad_input import BadInput

WHOLE = analytical_profile(LLAMA_3_1_8B, H100, 1)
MEASURED = WHOLE.model_copy(
    update={
        "name": "measured",
        "kind": "measured",
        "domain": Domain(
            prefill_tokens=(0, 8192), prefill_pairs=(0, 8192 * 8192), decode_seqs=(0, 64), kv_tokens=(0, 100_000)
        ),
    }
)


@pytest.mark.parametrize("to", EXPORT_FORMATS, ids=str)
def test_every_format_writes_a_page_that_names_what_it_was_made_for(to: str, tmp_path: Path) -> None:
    done = export([MEASURED], EXPORT_FORMATS[to], tmp_path / "out")
    assert all(path.exists() and path.is_relative_to(tmp_path / "out") for path in done.files)
    page = (tmp_path / "out" / "README.md").read_text()
    assert page.startswith("# ") and "`measured`: llama-3.1-8b on 1 x h100" in page
    assert "grids end where the measurements do" in page
    if to != "csv":
        assert "Looked at:" in page


@pytest.mark.parametrize("to", EXPORT_FORMATS, ids=str)
def test_a_measured_profile_is_extrapolated_only_when_asked_to(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float, float, float]] = []
    original = StepTimes.step_s

    def step_s(self: StepTimes, prefill_tokens: float, pairs: float, decode_seqs: float, kv_tokens: float) -> float:
        seconds = original(self, prefill_tokens, pairs, decode_seqs, kv_tokens)
        asked.append((prefill_tokens, pairs, decode_seqs, kv_tokens))
        return seconds

    monkeypatch.setattr(StepTimes, "step_s", step_s)
    export([MEASURED], EXPORT_FORMATS[to], tmp_path / "within")
    within = np.array(asked).max(axis=0)
    assert (within <= [8192, 8192 * 8192, 64, 100_000]).all()
    asked.clear()
    export([MEASURED], EXPORT_FORMATS[to], tmp_path / "beyond", ExportSettings(extrapolate=True))
    assert np.array(asked).max(axis=0)[2] > 64
    assert "extrapolated beyond what was measured" in (tmp_path / "beyond" / "README.md").read_text()


def test_the_longest_prompt_is_one_whose_last_chunk_was_measured() -> None:
    times = StepTimes(MEASURED)
    longest = times.largest_prompt_tokens
    assert times.covers_prefill(longest) and longest > 8192
    with pytest.raises(OutsideDomainError, match="prefill_pairs"):
        times.prefill_s(longest + 8192)


def test_a_prompt_that_the_server_would_take_at_once_must_have_been_measured_at_once() -> None:
    domain = MEASURED.domain
    assert domain is not None
    short = MEASURED.model_copy(update={"domain": domain.model_copy(update={"prefill_tokens": (0.0, 1000.0)})})
    assert StepTimes(short).largest_prompt_tokens == 1000


def test_a_request_beyond_the_measurements_is_refused_with_what_to_do(tmp_path: Path) -> None:
    settings = ExportSettings(prompt_tokens=50_000)
    with pytest.raises(ExportError, match="--extrapolate"):
        export([MEASURED], EXPORT_FORMATS["inferno"], tmp_path / "out", settings)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_has_both_ends_and_no_number_twice() -> None:
    assert geometric(1, 8, 1) == [1, 2, 4, 8]
    assert geometric(5, 5, 3) == [5]
    assert geometric(1, 3, 10) == [1, 2, 3]


def test_the_csv_has_a_unit_for_every_value_and_no_row_for_what_is_unknown(tmp_path: Path) -> None:
    some = Percentiles(p50=0.1, p90=0.2, p95=0.3, p99=0.4, mean=0.15, n=20)
    point = LoadPoint(
        concurrency=8,
        prompt_tokens=100,
        output_tokens=20,
        completed=20,
        failed=0,
        ttft_s=some,
        tpot_s=None,
        e2e_s=some,
        window_s=10,
        completed_per_s=2,
        prompt_tokens_per_s=200,
        output_tokens_per_s=40,
    )
    export([WHOLE.model_copy(update={"points": (point,)})], EXPORT_FORMATS["csv"], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "profiles.csv")
    assert table["unit"].notna().all() and table["value"].notna().all()
    ttft = table[(table["quantity"] == "ttft") & (table["statistic"] == "p95")].iloc[0]
    assert (ttft["value"], ttft["unit"], ttft["load"], ttft["n"]) == (0.3, "s", "closed 8", 20)
    quantities = set(table["quantity"])
    assert {"prefill", "decode_iteration", "cold_start", "kv_cache_max_tokens", "power_limit"} <= quantities
    assert not {"tpot", "drain", "power_idle", "goodput", "request_overhead"} & quantities


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command("export")(cli_export.export)
    app.command("import")(cli_export.import_)
    return app


def test_the_command_prints_the_error_of_its_coefficients(tmp_path: Path) -> None:
    MEASURED.save(tmp_path / "measured.json")
    out = tmp_path / "out"
    result = CliRunner().invoke(_app(), ["export", str(tmp_path / "measured.json"), "--to", "inferno", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "mean error" in result.output and "grids end where the measurements do" in result.output


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["x.json", "--to", "nothing", "-o", "new"], "one of sageserve, splitwise"),
        (["no-such-profile", "--to", "csv", "-o", "new"], "nearest bundled"),
        (["a.json", "b.json", "--to", "csv", "--model-name", "m", "-o", "new"], "is for one profile"),
    ],
)
def test_bad_arguments_of_export_say_what_was_wanted(
    arguments: list[str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(_app(), ["export", *arguments])
    assert isinstance(result.exception, BadInput) and wanted in str(result.exception)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(_app(), ["export", "x.json", "--to", "csv", "-o", str(tmp_path)])
    assert isinstance(result.exception, BadInput) and "not an empty folder" in str(result.exception)


ELSEWHERE = ExportSettings(model_name="/models/mine")


@pytest.mark.parametrize("to", ["inferno", "llm-d-inference-sim"])
def test_a_model_with_a_path_for_a_name_is_exported_where_no_file_is_named_after_it(to: str, tmp_path: Path) -> None:
    done = export([WHOLE], EXPORT_FORMATS[to], tmp_path / "out", ELSEWHERE)
    assert any("/models/mine" in file.read_text() for file in done.files)


def test_a_model_with_a_path_for_a_name_is_refused_where_a_folder_is_named_after_it(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="model '/models/mine' names no file of an export; give --model-name"):
        export([WHOLE], EXPORT_FORMATS["vidur"], tmp_path / "out", ELSEWHERE)

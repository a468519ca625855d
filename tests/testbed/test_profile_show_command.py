"""`testbed profile show` and `compare`: a profile to look at, and one line for what cannot be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from profiler.analytical import analytical_profile
from profiler.gpu_types import A100_80GB, H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile_parts import ProfiledModel, StepSample
from profiler.raw_samples import write_samples
from testbed import cli_profile_show
from testbed.bad_input import BadInput

Command = Callable[..., str]
A_SAMPLE = StepSample(
    kind="decode",
    point="decode 4 x 64",
    repeat=0,
    prefill_tokens=0,
    prefill_pairs=0,
    decode_seqs=4,
    kv_tokens=300,
    steps=32,
    observed_s=0.25,
)


@pytest.fixture
def profile_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `show` or `compare` in a folder with h100.json and a100.json; returns what was printed."""
    monkeypatch.chdir(tmp_path)
    analytical_profile(LLAMA_3_1_8B, H100, 1).save(Path("h100.json"))
    analytical_profile(LLAMA_3_1_8B, A100_80GB, 1).save(Path("a100.json"))
    app = typer.Typer()
    app.command("show")(cli_profile_show.show)
    app.command("compare")(cli_profile_show.compare)

    def run(*arguments: str) -> str:
        app([*arguments], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_show_prints_what_a_profile_holds(profile_command: Command) -> None:
    told = profile_command("show", "h100.json")
    for part in ("llama-3.1-8b", "KV cache", "Lifecycle", "An iteration costs", "theta", "not measured"):
        assert part in told


def test_show_writes_a_page_and_figures_where_asked(profile_command: Command) -> None:
    told = profile_command("show", "h100.json", "--html", "deep/p.html", "--figures", "figures", "--format", "svg")
    assert Path("deep/p.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in Path("figures").iterdir()) == [
        "between-tokens-map.svg",
        "between-tokens.svg",
        "first-token.svg",
    ]
    assert "deep/p.html" in told


def test_compare_puts_ratios_beside_each_other(profile_command: Command) -> None:
    told = profile_command("compare", "h100.json", "a100.json", "--html", "c.html", "--ttft-s", "2", "--tpot-s", "0.1")
    assert "What differs" in told
    assert "x)" in told
    assert "TTFT ≤ 2.00 s, TPOT ≤ 100 ms" in Path("c.html").read_text()


def test_samples_beside_a_profile_are_drawn_and_their_absence_is_told(profile_command: Command) -> None:
    samples = [A_SAMPLE.model_copy(update={"repeat": repeat}) for repeat in range(3)]
    named = write_samples(samples, Path("h.samples.parquet"))
    analytical_profile(LLAMA_3_1_8B, H100, 1).model_copy(update={"samples": named}).save(Path("with.json"))
    profile_command("show", "with.json", "--html", "with.html")
    assert "Predicted against observed" in Path("with.html").read_text()
    Path("h.samples.parquet").unlink()
    told = profile_command("show", "with.json", "--html", "without.html")
    assert "no samples" in told and "copy both" in told
    assert "copy both" in Path("without.html").read_text()


def test_markup_of_a_profile_does_not_reach_the_terminal(profile_command: Command) -> None:
    sly = analytical_profile(LLAMA_3_1_8B, H100, 1).model_copy(update={"model": ProfiledModel(name="[bold]m[/bold]")})
    sly.save(Path("sly.json"))
    assert "[bold]m[/bold]" in profile_command("show", "sly.json")


def test_a_profile_has_no_control_characters_in_its_names() -> None:
    with pytest.raises(ValueError, match="name"):
        ProfiledModel(name="\x1b[31mred \x07")


FAULTS = [
    (["show", "nowhere.json"], "'nowhere.json' is neither a file nor bundled"),
    (["show", "text.json"], "text.json is no server profile"),
    (["show", "bytes.json"], "bytes.json is no server profile: it is not UTF-8 text"),
    (["show", "folder.json"], "folder.json"),
    (["show", "h100.json", "--html", "a100.json"], "--html a100.json exists already; name a file that does not"),
    (["show", "h100.json", "--html", "a100.json/p.html"], "--html a100.json/p.html cannot be written"),
    (["show", "h100.json", "--figures", "a100.json"], "--figures a100.json is a file; name a folder"),
    (["show", "h100.json", "--figures", "folder.json"], "--figures folder.json has first-token.png already"),
    (["compare", "h100.json"], "one profile, h100.json; name two or more"),
    (["compare", "h100.json", "nowhere.json"], "'nowhere.json' is neither a file nor bundled"),
]


@pytest.mark.parametrize(("arguments", "told"), FAULTS, ids=[" ".join(arguments) for arguments, _ in FAULTS])
def test_bad_input_is_one_line_that_says_what_was_given(
    arguments: list[str], told: str, profile_command: Command
) -> None:
    Path("text.json").write_text("{}")
    Path("bytes.json").write_bytes(b"\xff\xfe\x00")
    Path("folder.json").mkdir()
    Path("folder.json/first-token.png").touch()
    with pytest.raises(BadInput) as error:
        profile_command(*arguments)
    assert told in str(error.value)
    assert "\n" not in str(error.value)

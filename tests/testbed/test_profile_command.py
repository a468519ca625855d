"""`testbed profile` against an emulated server of known step times, behind real HTTP, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiler.analytical import analytical_profile
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile import load_profile
from profiler.profile_parts import KvCache
from profiler.raw_samples import read_samples, read_table
from profiler.step_time import StepTimeModel
from testbed.cli import main

ROOT = Path(__file__).parents[2]
SERVED = ("--max-num-seqs", "8", "--max-num-batched-tokens", "512", "--gpu-type", "h100")
SMALL = (
    "--points",
    "16",
    "--budget-minutes",
    "0.5",
    "--longest-prompt",
    "512",
    "--prompt-tokens",
    "100",
    "--output-tokens",
    "20",
)
TRUTH = StepTimeModel(
    overhead_s=4e-3,
    slopes=((64, 2e-5),),
    per_sequence_s=1e-5,
    per_kv_token_s=1e-7,
    per_prefill_pair_s=1e-9,
    prefill_overhead_s=1e-3,
)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of the server, and the profile that it follows."""
    truth = tmp_path_factory.mktemp("served") / "truth.json"
    profile = analytical_profile(LLAMA_3_1_8B, H100, 1, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=1024)
    profile.model_copy(
        update={
            "name": "truth",
            "step_time": TRUTH,
            "request_overhead_s": 0.002,
            "kv_cache": KvCache(num_gpu_blocks=512, block_size=16, max_tokens=8192),
        }
    ).save(truth)
    program = subprocess.Popen(
        [sys.executable, "-m", "testbed.emulated_program", str(truth)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert program.stdin is not None and program.stdout is not None
    yield program.stdout.readline().strip(), truth
    program.stdin.close()
    program.wait(10)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "testbed", "profile", *arguments]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_server_behind_http_is_profiled_to_what_it_is(served: tuple[str, Path], tmp_path: Path) -> None:
    # Where cores are slow just then, half a minute leaves no time for points to hold out.
    longer = (*SMALL, "--budget-minutes", "1")
    done = run("--base-url", served[0], *SERVED, *longer, "-o", "p.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    profile = load_profile(tmp_path / "p.json")
    assert (profile.kind, profile.model.name, profile.gpu.type) == ("measured", "llama-3.1-8b", "h100")
    assert profile.kv_cache.max_tokens == 8192
    for batch in ((0, 0, 1, 100), (0, 0, 8, 4000), (512, 512 * 256, 0, 0)):
        # Two cores share the server, this client and whatever else runs: a known machine is held to 3 % elsewhere.
        assert profile.step_time.step_s(*batch) == pytest.approx(TRUTH.step_s(*batch), rel=0.25)
    samples = read_samples(profile, tmp_path / "p.json")
    assert len(samples) == profile.provenance.n
    assert profile.requests is not None
    assert read_table(profile.requests, tmp_path / "p.json").num_rows == profile.requests.rows > 0
    assert profile.power is None
    assert not (tmp_path / "p.work").exists()
    assert "held out" in done.stdout


def journal_lines(folder: Path) -> list[str]:
    path = folder / "p.work" / "journal.jsonl"
    return [line for line in path.read_text().splitlines() if line] if path.exists() else []


def samples_in(lines: list[str]) -> list[tuple[str, int]]:
    entries = [json.loads(line) for line in lines]
    return [(e["sample"]["point"], e["sample"]["repeat"]) for e in entries if e.get("kind") == "sample"]


def killed_when(reached: Callable[[], bool], arguments: list[str], folder: Path) -> list[str]:
    """Start the command, kill it with SIGKILL once `reached`; the whole lines of its journal."""
    program = subprocess.Popen(arguments, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    while not reached():
        with pytest.raises(subprocess.TimeoutExpired):  # it must still run
            program.wait(0.05)
    program.send_signal(signal.SIGKILL)
    program.wait()
    lines = (folder / "p.work" / "journal.jsonl").read_text().splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def killed_after(samples: int, arguments: list[str], folder: Path) -> list[str]:
    """Kill the command when so many samples are on disk."""
    return killed_when(lambda: len(samples_in(journal_lines(folder)[:-1])) >= samples, arguments, folder)


@pytest.mark.slow
def test_a_measurement_that_was_killed_goes_on_and_measures_nothing_twice(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    arguments = command("--base-url", served[0], *SERVED, *SMALL, "-o", "p.json")
    first = killed_after(12, arguments, tmp_path)
    second = killed_after(len(samples_in(first)) + 8, arguments, tmp_path)
    assert second[: len(first)] == first
    keys = samples_in(second)
    assert len(set(keys)) == len(keys) >= 20


@pytest.mark.slow
def test_another_batch_limit_starts_anew_and_keeps_what_was_there(served: tuple[str, Path], tmp_path: Path) -> None:
    killed_after(3, command("--base-url", served[0], *SERVED, *SMALL, "-o", "p.json"), tmp_path)
    other = ("--max-num-seqs", "4", *SERVED[2:])
    old = tmp_path / "p.work" / "journal.jsonl.old"
    started_anew = lambda: old.exists() and bool(journal_lines(tmp_path))  # noqa: E731
    lines = killed_when(started_anew, command("--base-url", served[0], *other, *SMALL, "-o", "p.json"), tmp_path)
    assert json.loads(lines[0])["identity"]["max_num_seqs"] == 4
    assert len(samples_in(old.read_text().splitlines())) >= 3


@pytest.mark.slow
def test_validation_tells_the_error_at_points_that_no_fit_has_seen(served: tuple[str, Path], tmp_path: Path) -> None:
    done = run(
        "validate", str(served[1]), "--base-url", served[0], "--points", "5", "--budget-minutes", "0.5", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "absolute error at 5 fresh points: median" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Usage"),
        (("measure",), "no MODEL"),
        (("lama-3b",), "nearest built in: llama-3"),
        (("tiny-llama", "--layers", "2"), "must be two numbers"),
        (("tiny-llama", "--layers", "2,2"), "two different numbers"),
        (("tiny-llama", "--check-layers"), "nothing to check"),
        (("tiny-llama", "--out", "here.json"), "exists already"),
        (("tiny-llama", "--out", "profile.txt"), "a profile is a JSON file"),
        (("tiny-llama", "--out", "no/where.json"), "there is no folder no"),
        (("tiny-llama", "--gpus", "zero"), "must be numbers"),
        (("tiny-llama", "--load-format", "auto"), "use --load-format dummy"),
        (("--base-url", "http://127.0.0.1:9", "--layers", "1,2"), "choose one"),
        (("--base-url", "http://127.0.0.1:9"), "no OpenAI-compatible server"),
        (("validate", "no-such-profile"), "nearest bundled"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here.json").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["testbed", "profile", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert words in told.out + told.err
    if arguments:
        assert ended.value.code == 2
        assert len(told.err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".work"] == ["here.json"]

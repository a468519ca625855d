from pathlib import Path

import pytest

from testbed.server_log import exit_words, log_tail, telling_line


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("INFO fine\nTraceback (most recent call last):\nValueError: too big\n", "ValueError: too big"),
        (
            "(EngineCore pid=3) ERROR 11-21 11:50:56 [core.py:84] torch.OutOfMemoryError: CUDA out of memory.\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            "usage: api_server.py\napi_server.py: error: unrecognized arguments: --foo\n",
            "api_server.py: error: unrecognized arguments: --foo",
        ),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, max_model_len (9) is too large [type=value_error, input_value=1]\n    For further\n",
            "Value error, max_model_len (9) is too large",
        ),
        (
            "loading\ncannot start /nowhere/python: No such file or directory\n\n",
            "cannot start /nowhere/python: No such file or directory",
        ),
        ("", ""),
    ],
)
def test_the_cause_of_a_death_is_found_in_the_log(tmp_path: Path, log: str, told: str) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    assert telling_line(file) == told


def test_the_tail_is_the_last_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("".join(f"line {i}\n" for i in range(20_000)))
    tail = log_tail(file).splitlines()
    assert tail[-1] == "line 19999"
    assert len(tail) < 100
    assert log_tail(tmp_path / "absent") == telling_line(tmp_path / "absent") == ""


def test_an_exit_code_is_put_in_words() -> None:
    assert [exit_words(code) for code in (0, 1, -9, -64)] == [
        "exit code 0",
        "exit code 1",
        "killed by SIGKILL",
        "killed by SIGRTMAX",
    ]

"""What the documentation says of the command line, against the command line itself."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from testbed.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results" / "published").glob("*/README.md"))


def commands_in(text: str) -> Iterator[str]:
    """Every `testbed ...` in a code block or between back ticks; a command over several lines is one."""
    text = text.replace("\\\n", " ")
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"^testbed (.*?)(?: +#.*)?$", block, re.MULTILINE)
    yield from re.findall(r"`testbed ([^`]*)`", text)


def called(words: list[str]) -> Any:
    """The command that the first words call; what follows them may name a part of it, or an argument."""
    command: Any = typer.main.get_command(app)
    for word in words:
        # A table shows alternatives: show|compare|validate.
        inner = command.get_command(None, re.split(r"\\?\|", word)[0]) if hasattr(command, "get_command") else None
        if inner is None and hasattr(command, "list_commands") and "measure" in command.list_commands(None):
            inner = command.get_command(None, "measure")
        if inner is None:
            break
        command = inner
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_a_page_shows_exists(page: Path) -> None:
    for line in commands_in(page.read_text(encoding="utf-8")):
        known = {option for each in called(line.split()).params for option in (*each.opts, *each.secondary_opts)}
        shown = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", line)) - {"--help"}
        assert shown <= known, f"testbed {line}"


@pytest.mark.parametrize("group", ["", "trace", "forecast", "profile"])
def test_the_list_of_commands_tells_each_in_whole_words(group: str, testbed: Any) -> None:
    code, shown, _ = testbed(*group.split(), "--help")
    assert code == 0
    assert "Commands:" in shown
    assert not re.search(r"\.\.\.$", shown.partition("Commands:")[2], re.MULTILINE)

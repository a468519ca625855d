"""The table of faults names tests, and these are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAMED = re.compile(r"`(test_\w+\.py)::(\w+)`")


def test_each_row_of_the_table_of_faults_names_a_test_that_there_is() -> None:
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what goes wrong")]
    assert len(rows) > 30
    assert [row for row in rows if not NAMED.search(row)] == []
    there = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [f"{file}::{name}" for file, name in NAMED.findall(text) if f"def {name}(" not in there.get(file, "")]
    assert missing == []

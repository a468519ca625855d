import json
from pathlib import Path

import pytest

from profiler.journal import Journal

IDENTITY = {"gpu": "h100", "driver": "560.1", "layers": [1, 2]}


def written(path: Path, count: int = 3) -> Path:
    journal = Journal(path, IDENTITY)
    with journal.writing():
        for number in range(count):
            journal.add("sample", number=number, cost_s=0.5)
    return path


def test_what_was_added_is_there_for_the_next_run(tmp_path: Path) -> None:
    journal = Journal(written(tmp_path / "j"), IDENTITY)
    assert [entry["number"] for entry in journal.of("sample")] == [0, 1, 2]
    assert journal.spent_s == 1.5
    assert journal.discarded is None


def test_every_entry_is_on_disk_as_soon_as_it_is_added(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", IDENTITY)
    with journal.writing():
        journal.add("sample", number=7)
        assert json.loads((tmp_path / "j").read_text().splitlines()[-1])["number"] == 7


def test_a_line_that_was_cut_off_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    path.write_bytes(path.read_bytes()[:-8])
    journal = Journal(path, IDENTITY)
    with journal.writing():
        journal.add("sample", number=9)
    assert [entry["number"] for entry in Journal(path, IDENTITY).of("sample")] == [0, 1, 9]


def test_another_driver_starts_anew_says_why_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    journal = Journal(path, IDENTITY | {"driver": "570.0"})
    assert journal.entries == []
    assert journal.discarded == "driver was '560.1' and is '570.0'"
    assert len((tmp_path / "j.old").read_text().splitlines()) == 5


def test_a_file_that_is_no_journal_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"\xff\xfe not json\n")
    assert Journal(tmp_path / "j", IDENTITY).entries == []


def test_a_kill_between_two_files_loses_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    path.with_name("j.new").write_text('{"identity"')
    assert len(Journal(path, IDENTITY).entries) == 3


def test_a_journal_of_before_checksums_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = [{"identity": IDENTITY}, *({"kind": "sample", "number": number} for number in range(3))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal = Journal(path, IDENTITY)
    assert (journal.discarded, journal.damaged) == (None, 0)
    assert [entry["number"] for entry in journal.of("sample")] == [0, 1, 2]


@pytest.mark.parametrize(("damaged", "left"), [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [1, 2]), (3, [0, 2])])
def test_one_damaged_line_costs_no_other(damaged: int, left: list[int], tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    lines = path.read_text().splitlines(keepends=True)
    lines[damaged] = lines[damaged].replace("crc32", "crc33").replace('{"', '{"x', 1)
    path.write_text("".join(lines))
    journal = Journal(path, IDENTITY)
    assert (journal.discarded, journal.damaged) == (None, 1)
    assert [entry["number"] for entry in journal.of("sample")] == left


def test_entries_that_do_not_say_what_was_measured_are_kept_beside(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))
    assert Journal(path, IDENTITY).discarded == f"{path} does not say what was measured"
    assert len((tmp_path / "j.old").read_text().splitlines()) == 3

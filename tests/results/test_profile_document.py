from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from profiler import profile_parts
from profiler.profile import ServerProfile
from profiler.step_time import StepTimeModel
from workloads.file_part import FilePart

DOCUMENT = Path(__file__).parents[2] / "docs" / "profile.md"


def names_in_a_profile() -> Iterator[str]:
    parts = [part for part in vars(profile_parts).values() if isinstance(part, type) and issubclass(part, FilePart)]
    for part in (ServerProfile, *parts):
        yield from part.model_fields
    yield from (field.name for field in fields(StepTimeModel))


def test_the_document_defines_every_field_of_a_profile() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in names_in_a_profile() if name not in text] == []

"""study.html: one self-contained page on a study, workload by workload."""

from collections.abc import Sequence
from dataclasses import dataclass

from results.drawing import Drawing
from results.frontier_figure import frontier_drawing
from results.frontier_tables import headline_lines, matched_table, settings_table, standing_table
from results.pages import filled
from results.study_comparison import WorkloadComparison
from results.study_overview import overview_table
from results.text_table import TextTable


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPage:
    """What a study's page says beside its comparisons: `subtitle` and `remarks` in words, `failures` a line each."""

    title: str
    description: str
    subtitle: str
    remarks: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    name: str
    description: str
    headlines: tuple[tuple[bool | None, str], ...]
    drawing: Drawing
    matched: TextTable
    standing: TextTable
    settings: TextTable


def study_page(page: StudyPage, comparisons: Sequence[WorkloadComparison]) -> str:
    """HTML of a whole study."""
    sections = [_section(comparison) for comparison in comparisons]
    return filled("study.html.j2", page=page, overview=overview_table(comparisons), sections=sections)


def _section(comparison: WorkloadComparison) -> _Section:
    return _Section(
        name=comparison.workload,
        description=comparison.description,
        headlines=headline_lines(comparison),
        drawing=frontier_drawing(comparison),
        matched=matched_table(comparison),
        standing=standing_table(comparison),
        settings=settings_table(comparison),
    )

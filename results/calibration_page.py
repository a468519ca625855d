"""calibration.html: one self-contained page, case by case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.atomic_file import replace_text
from results.calibration import CalibrationRecord, CaseRecord
from results.calibration_figures import CaseCurves, case_drawings
from results.calibration_tables import case_tables, profiles_table
from results.drawing import Drawing
from results.pages import filled
from results.quantities import data_size, percent, signed_percent, three_figures
from results.text_table import TextTable

CALIBRATION_PAGE = "calibration.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    title: str
    note: str
    claims: tuple[tuple[bool | None, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    title: str
    remarks: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    tables: tuple[TextTable, ...]


def write_calibration_page(calibration: CalibrationRecord, curves: Sequence[CaseCurves], folder: Path) -> None:
    """Put FOLDER/calibration.html in its place; `curves` in the order of the cases."""
    replace_text(folder / CALIBRATION_PAGE, calibration_page(calibration, curves))


def calibration_page(calibration: CalibrationRecord, curves: Sequence[CaseCurves]) -> str:
    """HTML of the whole calibration."""
    host = calibration.host
    return filled(
        "calibration.html.j2",
        title=calibration.name,
        subtitle=f"{host.cores} cores, {data_size(host.ram_bytes)} of memory" if host else "",
        cards=[_Card(title=case_title(case), note=_case_note(case), claims=claims(case)) for case in calibration.cases],
        sections=[
            _section(case, drawn, number)
            for number, (case, drawn) in enumerate(zip(calibration.cases, curves, strict=True))
        ],
        profiles=profiles_table(calibration),
    )


def case_title(case: CaseRecord) -> str:
    return f"{case.name}, {case.policy}"


def claims(case: CaseRecord) -> tuple[tuple[bool | None, str], ...]:
    """What is asked of the servers alone, measure by measure: whether it holds, and the numbers in words."""
    return tuple(
        (
            one.within,
            f"{one.name} {signed_percent(one.error)}, asked for {percent(one.limit)}"
            + ("" if one.noise is None else f"; real runs differ by {percent(one.noise)}"),
        )
        for one in case.servers_alone
        if one.limit is not None and one.error is not None
    )


def _case_note(case: CaseRecord) -> str:
    runs = f"{len(case.runs)} real run{'s' if len(case.runs) > 1 else ''}"
    requests = sum(run.compared for run in case.runs)
    return f"{runs}, {requests:,} requests compared, {three_figures(case.runs[0].requests_per_s)} requests/s"


def _section(case: CaseRecord, curves: CaseCurves, number: int) -> _Section:
    return _Section(
        title=case_title(case),
        remarks=case.remarks,
        drawings=case_drawings(curves, number),
        tables=case_tables(case),
    )

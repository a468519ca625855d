"""The errors of several calibrations together."""

import pytest

from results.calibration import CalibrationRecord, CaseRecord, Measure
from results.calibration_rounds import CaseOverRounds, over_rounds, rounds_table


def calibration(**errors: float | None) -> CalibrationRecord:
    """Of one case for each name, with this error of its E2E."""
    return CalibrationRecord(
        name="c",
        profiles=(),
        host=None,
        cases=tuple(
            CaseRecord(
                name=name,
                policy="static",
                runs=(),
                servers_alone=(
                    Measure(name="E2E p50", unit="s", real=(1.0,), emulated=(1.0,), error=error, noise=None, limit=0.1),
                    Measure(name="E2E p99", unit="s", real=(1.0,), emulated=(1.0,), error=error, noise=None),
                ),
                variants=(),
                crowds=(),
            )
            for name, error in errors.items()
        ),
    )


def only(cases: tuple[CaseOverRounds, ...]) -> CaseOverRounds:
    (case,) = cases
    return case


def test_errors_of_both_signs_cancel_in_the_mean_and_show_in_its_standard_error() -> None:
    (measure,) = only(over_rounds([calibration(half=-0.2), calibration(half=0.2)])).measures
    assert measure.name == "E2E p50"
    assert measure.mean == pytest.approx(0.0)
    assert measure.standard_error == pytest.approx(0.2)
    assert measure.within is True


def test_an_error_that_is_always_there_stays() -> None:
    (measure,) = only(over_rounds([calibration(half=-0.2)] * 3)).measures
    assert measure.mean == pytest.approx(-0.2)
    assert measure.standard_error == pytest.approx(0.0)
    assert measure.within is False


def test_cases_that_share_a_name_stay_apart() -> None:
    one, other = calibration(half=0.1), calibration(half=0.3)
    both = one.model_copy(update={"cases": (*one.cases, *other.cases)})
    assert [case.measures[0].errors for case in over_rounds([both, one])] == [(0.1, 0.1), (0.3, None)]


def test_a_calibration_without_a_case_or_a_measure_has_no_error_there() -> None:
    both, other = over_rounds([calibration(half=0.05, most=0.1), calibration(half=None)])
    assert [measure.errors for measure in both.measures] == [(0.05, None)]
    assert [measure.errors for measure in other.measures] == [(0.1, None)]
    assert other.measures[0].standard_error is None
    table = rounds_table(other, ["one", "two"])
    assert table.columns == ("", "one", "two", "mean", "± of the mean", "limit")
    assert table.rows == (("E2E p50", "+10.0 %", "not measured", "+10.0 %", "not measured", "10 %: kept"),)

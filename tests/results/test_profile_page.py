"""The figures and the page of a profile, and of several."""

import re
from pathlib import Path

import pytest

from profiler.analytical import analytical_profile
from profiler.gpu_types import A100_80GB, H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile_parts import CrowdedRequest, Energy, ProfiledModel, Provenance
from results.drawing import Drawing, save_drawings
from results.profile_figures import comparison_drawings, profile_drawings
from results.profile_page import comparison_page, profile_page
from results.reference_load import ReferenceLoad

HOSTILE = '<script>alert("x")</script> $\\frac{a$ & \'"'


def names(drawings: tuple[Drawing, ...]) -> list[str]:
    return [drawing.name for drawing in drawings]


def labels(drawing: Drawing) -> list[str]:
    return [mark.label for mark in drawing.legend]


@pytest.fixture
def metered_profile(measured_profile):
    """Energy was read at one of its two load points."""
    closed, opened = measured_profile.points
    metered = opened.model_copy(update={"energy": Energy(window_s=10.0, energy_j=3000.0, mean_w=300.0)})
    return measured_profile.model_copy(update={"points": (closed, metered)})


def test_only_what_was_measured_is_drawn(measured_profile, metered_profile, step_samples) -> None:
    predicted = ["first-token", "between-tokens", "between-tokens-map"]
    assert names(profile_drawings(analytical_profile(LLAMA_3_1_8B, H100, 1))) == predicted
    assert names(profile_drawings(measured_profile)) == [*predicted, "load"]
    unanswered = measured_profile.points[0].model_copy(update={"ttft_s": None, "tpot_s": None, "e2e_s": None})
    assert names(profile_drawings(measured_profile.model_copy(update={"points": (unanswered,)}))) == predicted
    assert names(profile_drawings(metered_profile, step_samples)) == [*predicted, "residuals", "load", "energy"]


def test_requests_among_others_are_drawn_where_they_were_measured(measured_profile) -> None:
    points = (
        CrowdedRequest(decode_seqs=8, overhead_s=9e-3, n=36),
        CrowdedRequest(decode_seqs=63, overhead_s=0.04, n=33),
    )
    crowded = measured_profile.model_copy(update={"crowded_requests": points})
    (drawing,) = [one for one in profile_drawings(crowded) if one.name == "requests-among-others"]
    assert "33 or more" in drawing.caption
    assert drawing.svg().count("sequences that decode") == 1


def test_legends_tell_fitted_points_from_those_held_out_and_name_the_domain(measured_profile, step_samples) -> None:
    told = labels(profile_drawings(measured_profile, step_samples)[0])
    assert told == ["model", "beyond the domain", "measured", "measured, held out of the fit"]
    fitted = [sample for sample in step_samples if not sample.held_out]
    assert "measured, held out of the fit" not in labels(profile_drawings(measured_profile, fitted)[0])
    assert labels(profile_drawings(analytical_profile(LLAMA_3_1_8B, H100, 1))[0]) == ["model"]


def test_held_out_points_are_hollow(measured_profile, step_samples) -> None:
    fitted = [sample.model_copy(update={"held_out": False}) for sample in step_samples]
    hollow = [
        profile_drawings(measured_profile, samples)[0].svg().count("fill-opacity: 0")
        for samples in (step_samples, fitted)
    ]
    assert hollow[0] > hollow[1]


def test_load_shows_both_loops_the_slo_and_theta(measured_profile) -> None:
    drawing = profile_drawings(measured_profile)[-1]
    assert labels(drawing) == [
        "512 + 128 tokens, closed loop",
        "512 + 128 tokens, open loop",
        "SLO",
        "theta, measured",
        "theta, predicted",
    ]
    assert "37 to 37 requests" in drawing.caption


def test_figures_take_their_ink_from_the_page(metered_profile, step_samples) -> None:
    for drawing in profile_drawings(metered_profile, step_samples):
        svg = drawing.svg()
        assert svg.startswith('<svg role="img" aria-label=')
        assert "currentColor" in svg
        assert "#000000" not in svg


@pytest.mark.parametrize(("file_format", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_figure_in_a_file_is_the_same_every_time(
    file_format: str, begin: bytes, measured_profile, step_samples, tmp_path: Path
) -> None:
    drawings = profile_drawings(measured_profile, step_samples)[:1]
    (one,) = save_drawings(drawings, tmp_path / "deep" / "one", file_format)
    (two,) = save_drawings(drawings, tmp_path / "two", file_format)
    assert one.name == f"first-token.{file_format}"
    assert one.read_bytes().startswith(begin)
    assert one.read_bytes() == two.read_bytes()


def test_profiles_lie_over_each_other_in_a_colour_each(measured_profile, metered_profile) -> None:
    pair = {"a": measured_profile, "b": metered_profile}
    drawings = comparison_drawings(pair)
    assert names(drawings) == ["first-token", "between-tokens", "load", "energy"]
    assert labels(drawings[0])[:2] == ["a", "b"]
    assert len({mark.colour for mark in drawings[0].legend[:2]}) == 2
    assert labels(drawings[3]) == ["b, 512 + 128 tokens, open loop"]


def test_a_page_needs_nothing_from_elsewhere(metered_profile, step_samples) -> None:
    for page in (
        profile_page(metered_profile, step_samples),
        comparison_page((metered_profile, analytical_profile(LLAMA_3_1_8B, A100_80GB, 1)), ReferenceLoad()),
    ):
        assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
        assert "<link" not in page and "@import" not in page and "<script" not in page
        assert "prefers-color-scheme: dark" in page


def test_whatever_a_profile_says_is_text(measured_profile, step_samples) -> None:
    hostile = measured_profile.model_copy(
        update={
            "name": HOSTILE,
            "model": ProfiledModel(name=HOSTILE),
            "provenance": Provenance(source=HOSTILE, notes=(HOSTILE,), assumptions=(HOSTILE,)),
        }
    )
    for page in (
        profile_page(hostile, step_samples, remark=HOSTILE),
        comparison_page((hostile, measured_profile), ReferenceLoad()),
    ):
        assert "<script" not in page
        assert page.count("&lt;script&gt;") >= 5


def test_a_page_shows_the_numbers_and_says_at_the_top_when_nothing_was_measured(measured_profile) -> None:
    page = profile_page(measured_profile)
    for told in ("6,400", "An iteration costs 7.00 ms", "not measured", "does not fit", "closed 8", "71.0"):
        assert told in page
    assert '<p class="banner">' not in page
    assert '<p class="banner">Analytical: a roofline' in profile_page(analytical_profile(LLAMA_3_1_8B, H100, 1))

"""Presets: every one makes a trace, and a file of one's own may build on one."""

import pytest

from workloads.preset import PresetError, bundled_presets, read_values, summary
from workloads.synthesis import SyntheticWorkload, synthesise


@pytest.mark.parametrize("name", bundled_presets())
def test_every_preset_is_a_workload_that_makes_a_trace_and_says_what_it_is(name):
    path = bundled_presets()[name]
    workload = SyntheticWorkload.model_validate(read_values(path))
    assert len(synthesise(workload, 1, to_h=0.2)) > 0
    assert len(summary(path)) > 40


def test_the_presets_are_the_ones_that_the_manual_names():
    assert set(bundled_presets()) == {"sageserve-day", "sageserve-week", "azure-office", "chat", "burst"}


def test_a_file_may_change_a_part_of_a_preset(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: sageserve-day\nmean_requests_per_s: 2\nmodels: {bloom-176b: {share: 9}}\n")
    changed = SyntheticWorkload.model_validate(read_values(path))
    original = SyntheticWorkload.model_validate(read_values(bundled_presets()["sageserve-day"]))
    assert (changed.mean_requests_per_s, changed.models["bloom-176b"].share) == (2, 9)
    assert changed.models["bloom-176b"].prompt_tokens == original.models["bloom-176b"].prompt_tokens
    assert changed.interactive == original.interactive


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: tuesday\n", "base 'tuesday' is no preset; there are azure-office, burst"),
        ("- 1\n", "holds list, wanted a mapping"),
        ("a: [", "not a readable YAML file"),
    ],
)
def test_a_file_that_is_no_workload_is_refused(text, told, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PresetError, match=told):
        read_values(path)

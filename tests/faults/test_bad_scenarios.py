"""Scenario and study files that are damaged: they are read, or one line says which file, key and value is wrong."""

import os
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import DAMAGED_BYTES, WRONG_VALUES, damage, places, renamed, told_by, with_value, without
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.bad_input import BadInput
from testbed.bundled_yaml import bundled_files
from testbed.run import prepare
from testbed.scenario_file import load_scenario
from testbed.study import load_study
from workloads.preset import PresetError, read_values

SCENARIO: dict[str, Any] = {
    "name": "small",
    "description": "of one model",
    "mode": "virtual",
    "seed": 1,
    "models": {"a": {"profiles": {"h100": "llama-3.1-8b-h100"}, "max_num_seqs": 8, "start_s": 5.0}},
    "regions": {"west": {"gpus": {"h100": 4}, "prefer": ["west", "east"], "rtt_s": {"east": 0.1}},
                "east": {"gpus": {"h100": 4}}},
    "gpu_types": {"h100": {"usd_per_gpu_h": 10}},
    "initial_servers": {"a": {"west": 1}},
    "min_servers": 1,
    "workload": {
        "history_h": 0,
        "synthetic": {
            "day_s": 100, "horizon_h": 6, "mean_requests_per_s": 1.0, "shares_of": "requests", "tenants": 1,
            "models": {"a": {"share": 1.0, "max_model_len": 2048, "prompt_tokens": [[0.0, 20], [1.0, 150]],
                             "output_tokens": [[0.0, 2], [1.0, 20]]}},
            "regions": {"west": {"share": 0.6, "phase_offset_h": 1}, "east": {}},
            "level_steps": [{"model": "a", "at_h": 3, "factor": 2}],
            "interactive": {"bursts_per_day": 1, "by_hour": [1] * 24},
        },
    },
    "tiers": {"IW-F": {"ttft_s": 3.0}},
    "router": {"region_threshold": 0.7},
    "niw": {"promote_after_s": 120},
    "demand_bin_s": 5,
    "gauge_every_s": 10,
    "drain_s": 20,
    "grace_s": 60,
    "policies": {"reactive": {"interval_s": 5}},
    "ports": {},
}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "study",
    "scenario": {key: value for key, value in SCENARIO.items() if key not in ("policies", "seed", "name")},
    "seeds": [1],
    "attainment": 0.95,
    "workloads": {"day": {"set": {"min_servers": 0}}},
    "policies": {"reactive": {"knob": "up_above", "values": [0.5, 0.7]}},
    "headline": {"policy": "reactive", "against": "reactive"},
}
NUMBERS = [place for place in places(SCENARIO) if isinstance(reduce(getitem, place, SCENARIO), int | float)]


def _name(place: tuple[Any, ...]) -> str:
    return ".".join(map(str, place))


def _write(folder: Path, values: Any, name: str = "small.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _prepared(path: Path) -> None:
    """As far as a run goes before its first server."""
    prepare(*load_scenario(str(path)), [])


def test_the_undamaged_files_are_read(tmp_path: Path) -> None:
    assert told_by(lambda: _prepared(_write(tmp_path, SCENARIO)), BadInput) == ""
    assert told_by(lambda: load_study(str(_write(tmp_path, STUDY))), BadInput) == ""


@pytest.mark.parametrize("place", list(places(SCENARIO)), ids=_name)
def test_a_wrong_value_anywhere_in_a_scenario_is_read_or_refused_by_file_and_key(
    place: tuple[Any, ...], tmp_path: Path
) -> None:
    path = tmp_path / "small.yaml"
    for what, value in WRONG_VALUES.items():
        if what == "half a character":  # YAML has no way to write it
            continue
        _write(tmp_path, with_value(SCENARIO, place, value))
        line = told_by(lambda: load_scenario(str(path)), BadInput)
        assert not line or path.name in line
    for changed in (without(SCENARIO, place), renamed(SCENARIO, place)):
        _write(tmp_path, changed)
        told_by(lambda: load_scenario(str(path)), BadInput, *([path.name] if len(place) == 1 else []))


@pytest.mark.slow
@pytest.mark.parametrize("place", list(places(SCENARIO)), ids=_name)
def test_a_wrong_value_anywhere_in_a_scenario_can_be_run_or_is_refused(place: tuple[Any, ...], tmp_path: Path) -> None:
    for value in WRONG_VALUES.values():
        if value != "\ud800":
            _write(tmp_path, with_value(SCENARIO, place, value))
            told_by(lambda: _prepared(tmp_path / "small.yaml"), BadInput)


@pytest.mark.parametrize("place", NUMBERS, ids=_name)
def test_no_flag_stands_for_a_number(place: tuple[Any, ...], tmp_path: Path) -> None:
    path = _write(tmp_path, with_value(SCENARIO, place, True))
    assert "wanted neither true nor false" in told_by(lambda: _prepared(path), BadInput)


@pytest.mark.parametrize("place", list(places(STUDY)), ids=_name)
def test_a_wrong_value_anywhere_in_a_study_is_read_or_refused_by_file_and_key(
    place: tuple[Any, ...], tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    for what, value in WRONG_VALUES.items():
        if what != "half a character":
            _write(tmp_path, with_value(STUDY, place, value), path.name)
            told_by(lambda: load_study(str(path)), BadInput, path.name)


@pytest.mark.parametrize("how", DAMAGED_BYTES)
def test_damaged_bytes_are_read_or_refused_by_name(how: str, tmp_path: Path) -> None:
    for seed in range(12):
        path = damage(_write(tmp_path, SCENARIO), how, seed)
        told_by(lambda path=path: load_scenario(str(path)), BadInput, path.name)
        path = damage(_write(tmp_path, STUDY, "study.yaml"), how, seed)
        told_by(lambda path=path: load_study(str(path)), BadInput, path.name)
        path = damage(_write(tmp_path, SCENARIO["workload"]["synthetic"], "workload.yaml"), how, seed)
        told_by(lambda path=path: read_values(path), PresetError, path.name)


NO_PLAIN_YAML = {
    "a key twice": ("seed: 1\nseed: 2\n", "key 'seed' stands twice"),
    "a key twice below": ("models: {a: {start_s: 1, start_s: 2}}\n", "key 'start_s' stands twice"),
    "a bomb of aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(12)),
        "more than 200,000 values",
    ),
    "a mapping in itself": ("a: &a {b: *a}\n", "without an end"),
    "too deep": ("a: " + "[" * 5000 + "]" * 5000, "too deep"),
    "much too deep": ("[" * 100_000, "too deep"),
    "deep by lines": ("".join("  " * i + "- \n" for i in range(2000)), ""),
    "an object": ("seed: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
    "a name": ("seed: !!python/name:os.system\n", "could not determine a constructor"),
    "a day that is none": ("seed: 2024-13-45\n", "cannot be"),
    "a moment beyond time": ("seed: 9999-12-31 23:59:59 -23:00\n", ""),
    "a number that is none": ("seed: !!int x\n", "cannot be"),
    "a number of no digits": ('seed: !!int ""\n', "cannot be"),
    "a date that is none": ("seed: !!timestamp x\n", "cannot be"),
    "a truth that is none": ("seed: !!bool x\n", "cannot be"),
    "a number of 5000 digits": ("seed: " + "9" * 5000 + "\n", "cannot be"),
    "a list as a key": ("? [1, 2]\n: 3\n", ""),
    "a mapping as a key": ("? {a: 1}\n: 3\n", ""),
    "two documents": ("seed: 1\n---\nseed: 2\n", "expected a single document"),
    "no mapping": ("- 1\n", "wanted a mapping"),
    "a number": ("1\n", "wanted a mapping"),
    "a tab": ("a:\n\t- 1\n", "'\\t'"),
    "two megabytes": ("# " + "x" * (2 << 20), "at most 1,048,576"),
}


@pytest.mark.parametrize(("text", "told"), NO_PLAIN_YAML.values(), ids=NO_PLAIN_YAML)
def test_yaml_that_is_no_plain_data_is_refused_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (load_scenario, load_study):
        assert told in told_by(lambda read=read: read(str(path)), BadInput, path.name)


def test_a_date_where_text_belongs_is_refused_by_its_key(tmp_path: Path) -> None:
    path = _write(tmp_path, SCENARIO)
    path.write_text(path.read_text().replace("of one model", "2024-05-10").replace("'2024", "2024"))
    assert "description" in told_by(lambda: load_scenario(str(path)), BadInput, path.name)


def test_merge_keys_and_aliases_are_read_as_yaml_has_them(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    values = deepcopy(SCENARIO)
    del values["regions"]
    regions = "regions:\n  west: &west {gpus: {h100: 4}}\n  east: {<<: *west, rtt_s: {west: 0.1}}\n"
    path.write_text(yaml.safe_dump(values) + regions, encoding="utf-8")
    scenario, _ = load_scenario(str(path))
    assert scenario.regions["east"].gpus == {"h100": 4}


SETS = [
    "seed=!!python/name:os.system", "seed=[", "seed=2024-13-45", "seed=.nan", "seed=.inf", "a.b.c.d=1", "=1", ".=1",
    "..=1", "seed", "seed.x=1", "models.a.start_s=-1", "models.a.start_s=.inf", "models=1", "models.a=null",
    "workload.trace=1", 'models."a.b".start_s=1', 'models."=1', "policies.../x={}", "seed=" + "9" * 5000, "name=../x",
    "name=" + "[" * 3000, "workload.synthetic.mean_requests_per_s=1e300", "workload.synthetic.horizon_h=1e300",
    "initial_servers=1000000000000",
]  # fmt: skip


@pytest.mark.parametrize("text", SETS, ids=lambda text: text[:40])
def test_an_override_of_anything_is_one_line_that_names_it(text: str, tmp_path: Path) -> None:
    path = str(_write(tmp_path, SCENARIO))
    told_by(lambda: load_scenario(path, (text,)), BadInput)


def test_a_model_with_dots_in_its_name_is_overridden_by_its_name(tmp_path: Path) -> None:
    values = deepcopy(SCENARIO)
    values["models"]["x-1.5.b"] = values["models"].pop("a")
    values["workload"]["synthetic"]["models"] = {"x-1.5.b": values["workload"]["synthetic"]["models"].pop("a")}
    values["workload"]["synthetic"]["level_steps"] = []
    values["initial_servers"] = 1
    path = str(_write(tmp_path, values))
    for name in ("models.x-1.5.b.start_s=9", 'models."x-1.5.b".start_s=9', "models.'x-1.5.b'.start_s=9"):
        scenario, _ = load_scenario(path, (name,))
        assert scenario.models["x-1.5.b"].start_s == 9


@pytest.mark.parametrize("base", ["../x.yaml", "a/../../x.yaml", "/etc/passwd", "~/x", "a\0b", "x" * 5000, "", "."])
def test_a_base_lies_beside_its_file_or_is_bundled(base: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    _write(tmp_path, SCENARIO, "x.yaml")
    path = _write(folder, {"base": base})
    assert told_by(lambda: load_scenario(str(path)), BadInput)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".hidden", "", "a\0b", "x" * 300, "a\nb"])
def test_a_name_that_would_be_a_folder_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path, {**SCENARIO, "name": name})
    assert "name" in told_by(lambda: load_scenario(str(path)), BadInput, path.name)
    path = _write(tmp_path, {**STUDY, "name": name}, "study.yaml")
    assert "name" in told_by(lambda: load_study(str(path)), BadInput, path.name)
    for key in ("workloads", "policies"):
        path = _write(tmp_path, {**STUDY, key: {name: {}}}, "study.yaml")
        assert told_by(lambda path=path: load_study(str(path)), BadInput, path.name)
    path = _write(tmp_path, {**SCENARIO, "policies": {name: {}}})
    assert told_by(lambda: _prepared(path), BadInput)


def test_a_trace_or_profile_that_a_scenario_names_and_that_is_none_is_told_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing more")
    for trace in ("t.parquet", "none.parquet", ".", "a\0b", "x" * 5000):
        path = _write(tmp_path, {**SCENARIO, "workload": {"trace": trace}})
        assert told_by(lambda path=path: _prepared(path), BadInput, "workload.trace")
    for profile in ("none", "../x", str(tmp_path), str(tmp_path / "small.yaml"), "a\0b", "x" * 5000, ""):
        values = with_value(SCENARIO, ("models", "a", "profiles", "h100"), profile)
        path = _write(tmp_path, values)
        assert told_by(lambda path=path: _prepared(path), BadInput, "models.a.profiles.h100")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused_by_name(tmp_path: Path) -> None:
    path = _write(tmp_path, SCENARIO)
    path.chmod(0)
    assert "ermission" in told_by(lambda: load_scenario(str(path)), BadInput, str(path))


def test_the_bundled_files_keep_the_rules(tmp_path: Path) -> None:
    for name in bundled_files("scenarios"):
        assert load_scenario(name)
    for name in bundled_files("studies"):
        assert load_study(name)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.dictionaries(st.sampled_from([*SCENARIO, *STUDY, "base"]) | st.text(max_size=6), VALUES, max_size=6))
def test_a_mapping_of_anything_is_read_or_refused(values: dict[str, Any], tmp_path: Path) -> None:
    path = _write(tmp_path, {**SCENARIO, **values})
    told_by(lambda: load_scenario(str(path)), BadInput)
    path = _write(tmp_path, {**STUDY, **values})
    told_by(lambda: load_study(str(path)), BadInput, path.name)


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(alphabet=st.sampled_from(list("ab:{}[]&*!?|>-#%@,\"' \n\t<0.~")), max_size=40))
def test_text_of_anything_is_read_or_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    told_by(lambda: load_scenario(str(path)), BadInput, path.name)

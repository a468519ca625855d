"""A scenario that cannot be run says so in one line before anything starts; every bundled one can."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.run import prepare
from testbed.scenario import Scenario, ScenarioError
from testbed.scenario_file import bundled_scenarios, load_scenario, override
from workloads.request import Tier


def fault(act: Callable[[], object]) -> str:
    """The one line that `act` ends with."""
    with pytest.raises(ScenarioError) as raised:
        act()
    text = str(raised.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", bundled_scenarios())
def test_every_bundled_scenario_loads_and_can_be_prepared_for_virtual_time(name: str) -> None:
    scenario, path = load_scenario(name)
    assert scenario.name == name
    assert path.stem == name
    # A day of a quarter of the load, and no more history than that, is prepared in a moment.
    loaded, path = load_scenario(
        name, ("mode=virtual", "workload.synthetic.mean_requests_per_s=0.5", "workload.history_h=24")
    )
    experiment = prepare(loaded, path, [])
    assert tuple(experiment.policies) == tuple(scenario.policies)
    assert len(experiment.setting.load.trace) > 10
    assert {model for model, _ in experiment.setting.limits.capacity} == set(scenario.models)
    assert all(capacity.theta_tokens_per_s > 0 for capacity in experiment.setting.limits.capacity.values())


def test_the_help_names_every_bundled_scenario(testbed: Callable[..., tuple[int, str, str]]) -> None:
    _, told, _ = testbed("run", "--help")
    assert [name for name in bundled_scenarios() if name not in told] == []


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"sed": 3}, ["unknown key 'sed'", "did you mean 'seed'"]),
    ({"name": "a/b"}, ["name", "it names a folder", "given: 'a/b'"]),
    ({"policies": {}}, ["policies"]),
    ({"seed": -1}, ["seed", "given: -1"]),
    ({"min_servers": "many"}, ["min_servers", "given: 'many'"]),
    ({"drain_s": float("inf")}, ["drain_s", "finite"]),
    ({"router": {"utilisation": "gpu"}}, ["router.utilisation", "kv_cache", "given: 'gpu'"]),
    ({"router": {"threshold": 0.7}}, ["router", "unknown key 'threshold'", "did you mean 'region_threshold'"]),
    ({"tiers": {"IW": {"ttft_s": 1}}}, ["tiers.IW", "IW-F"]),
    ({"niw": {"take_one_below": 1.5}}, ["niw.take_one_below", "given: 1.5"]),
    ({"niw": {"take_two_below": 0.65}}, ["niw", "take_two_below 0.65 lies above take_one_below 0.6", "swap"]),
    ({"niw": {"rule": "edf"}}, ["niw.rule", "'age' or 'deadline'", "given: 'edf'"]),
    ({"initial_servers": 4}, ["4 GPUs", "region east, which has 3", "start fewer servers"]),
    ({"initial_servers": -1}, ["initial_servers: -1 of a in region west", "wanted 0 or more"]),
    ({"initial_servers": {"b": 1}}, ["initial_servers: no model 'b'", "valid are a"]),
    ({"initial_servers": {"a": {"wset": 1}}}, ["initial_servers.a: no region 'wset'", "did you mean 'west'"]),
    ({"regions": {"west": {"gpus": {"h100": 4}, "prefer": ["eats"]}, "east": {"gpus": {"h100": 4}}}}, ["mean 'east'"]),
    ({"regions": {"west": {"gpus": {"a100": 4}}, "east": {"gpus": {"a100": 4}}}}, ["models.a.profiles", "a100"]),
    (
        {"regions": {"west": {"gpus": {"h100": 4}}, "east": {"gpus": {"a100": 3}}}},
        ["1 of a in region east", "region: a100; model: h100"],
    ),
    ({"workload": {}}, ["workload", "exactly one of synthetic and trace"]),
    ({"ports": {"first": 9000, "last": 8000}}, ["ports", "swap"]),
]


@pytest.mark.parametrize(("changes", "told"), BAD, ids=[next(iter(changes)) for changes, _ in BAD])
def test_a_scenario_with_a_fault_says_where_it_is_and_what_was_wanted(
    changes: dict[str, Any], told: list[str], small_scenario: Any
) -> None:
    path = small_scenario.write(small_scenario.values(**changes))
    text = fault(lambda: load_scenario(str(path)))
    assert text.startswith("small.yaml: ")
    for part in told:
        assert part in text


def test_a_scenario_without_a_seed_is_refused(small_scenario: Any) -> None:
    values = small_scenario.values()
    del values["seed"]
    text = fault(lambda: load_scenario(str(small_scenario.write(values))))
    assert "seed: Field required" in text


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("workload.synthetic.horizn_h", ["workload.synthetic: ", "'horizn_h'", "did you mean 'horizon_h'"]),
        ("workload.synthetic.models.a.shar", ["workload.synthetic.models.a: ", "did you mean 'share'"]),
        ("workload.synthetic.niw.peak_to_trogh", ["workload.synthetic.niw: ", "did you mean 'peak_to_trough'"]),
        ("models.a.vllm.dtpye", ["models.a.vllm: ", "'dtpye'", "did you mean 'dtype'"]),
    ],
)
def test_an_unknown_key_at_any_depth_is_named_with_the_nearest_known_one(
    key: str, told: list[str], small_scenario: Any
) -> None:
    text = fault(lambda: load_scenario(str(small_scenario.write()), (f"{key}=1",)))
    for part in ["unknown key", *told]:
        assert part in text


def test_a_scenario_that_is_nowhere_or_no_yaml_or_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "did you mean 'quickstart'" in fault(lambda: load_scenario("quickstrat"))
    assert "neither a file nor a bundled name" in fault(lambda: load_scenario("x" * 300))
    path = tmp_path / "x.yaml"
    for content, told in ((b"a: [1", "not a readable YAML"), (b"- 1\n", "holds list"), (b"\xff\xfe\x00", "readable")):
        path.write_bytes(content)
        assert told in fault(lambda: load_scenario(str(path)))


@pytest.mark.parametrize("given", ["seed", "=3", "seed.x=3", "seed.=3", "seed=[1", "description=2024-13-45"])
def test_an_override_that_is_none_is_refused_and_quoted(given: str, small_scenario: Any) -> None:
    text = fault(lambda: load_scenario(str(small_scenario.write()), (given,)))
    assert repr(given) in text


def test_an_override_reaches_a_name_with_a_dot_in_it() -> None:
    values: dict[str, Any] = {"models": {"llama-3": {}, "llama-3.1-8b": {"start_s": 1}}}
    override(values, "models.llama-3.1-8b.start_s=9")
    override(values, "models.llama-3.stop_s=2")
    override(values, "models.'x-1.5'.start_s=3")
    override(values, 'models."y.2"={a: 1}')
    assert values == {
        "models": {"llama-3": {"stop_s": 2}, "llama-3.1-8b": {"start_s": 9}, "x-1.5": {"start_s": 3}, "y.2": {"a": 1}}
    }


def test_an_override_reaches_a_key_that_is_a_number() -> None:
    values: dict[Any, Any] = {3: {"a": 1}}
    override(values, "3.a=2")
    assert values == {3: {"a": 2}}


def test_an_override_that_is_none_tells_how_a_name_with_a_dot_is_written() -> None:
    assert 'models."x-1.5".start_s=9' in fault(lambda: override({}, "models.x"))


def test_a_scenario_is_laid_over_its_base_mapping_by_mapping(small_scenario: Any) -> None:
    small_scenario.write()
    path = Path(small_scenario.folder) / "over.yaml"
    path.write_text("name: over\nbase: small.yaml\ntiers: {IW-F: null}\nrouter: {region_threshold: 0.5}\n")
    scenario, _ = load_scenario(str(path))
    below, _ = load_scenario(str(Path(small_scenario.folder) / "small.yaml"))
    assert (scenario.name, scenario.router.region_threshold) == ("over", 0.5)
    assert Tier.IW_F in below.tiers and Tier.IW_F not in scenario.tiers
    assert scenario.models == below.models


def test_a_null_adds_a_bare_policy_that_the_base_lacks_and_takes_one_away_that_it_has(small_scenario: Any) -> None:
    small_scenario.write()
    path = Path(small_scenario.folder) / "over.yaml"
    path.write_text("base: small.yaml\npolicies: {chiron: , reactive: }\n")
    below, _ = load_scenario(str(Path(small_scenario.folder) / "small.yaml"))
    assert set(load_scenario(str(path))[0].policies) == {*below.policies, "chiron"} - {"reactive"}
    assert "reactive" in below.policies


def test_a_base_that_comes_back_by_another_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "over.yaml").write_text("base: inner/../other.yaml\n")
    (tmp_path / "other.yaml").write_text("base: inner/../over.yaml\n")
    assert "builds on itself" in fault(lambda: load_scenario(str(tmp_path / "over.yaml")))


@pytest.mark.parametrize(
    ("base", "told"), [("over.yaml", "builds on itself"), ("[1]", "base [1]"), ("nowhere", "no scenario 'nowhere'")]
)
def test_a_base_that_is_none_is_refused(base: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "over.yaml"
    path.write_text(f"base: {base}\n")
    assert told in fault(lambda: load_scenario(str(path)))


def test_overrides_are_read_as_yaml_and_reach_any_depth() -> None:
    values: dict[str, Any] = {"policies": {"reactive": None}}
    for given in ("policies.reactive.interval_s=5", "initial_servers={a: 2}", "tiers.IW-F.ttft_s=0.5", "description="):
        override(values, given)
    assert values == {
        "policies": {"reactive": {"interval_s": 5}},
        "initial_servers": {"a": 2},
        "tiers": {"IW-F": {"ttft_s": 0.5}},
        "description": None,
    }


UNFIT = [
    ("policies.reactiv=", ["unknown policy 'reactiv'", "did you mean 'reactive'"]),
    ("policies.reactive.intervall_s=5", ["policy reactive", "'intervall_s'", "did you mean 'interval_s'"]),
    ("policies.lt-ua.period_s=-1", ["policy lt-ua", "period_s"]),
    ("policies.lt-ua.forecast.step_s=12.5", ["policies.lt-ua.forecast.step_s 12.5", "demand_bin_s 5"]),
    ("policies.static.counts={a@wset/h100: 1}", ["policies.static.counts", "'a@wset/h100'", "mean 'a@west/h100'"]),
    ("models.a.profiles.h100=llama-3.1-8b-h101", ["models.a.profiles.h100", "nearest bundled: llama-3.1-8b-h100"]),
    ("tiers.IW-F.ttft_s=0.001", ["models.a.profiles.h100", "loosen the SLO"]),
    ("min_servers=5", ["min_servers=5", "a@west", "lower min_servers"]),
    ("demand_bin_s=7", ["workload.history_h covers 200 s", "demand_bin_s 7"]),
    ("workload={trace: nowhere.parquet}", ["workload.trace: no file ", "nowhere.parquet", "testbed trace make"]),
    ("workload={trace: small.yaml}", ["workload.trace: ", "small.yaml: not a readable Parquet file"]),
]


@pytest.mark.parametrize(("given", "told"), UNFIT, ids=[given.partition("=")[0] for given, _ in UNFIT])
def test_what_does_not_fit_together_is_said_before_anything_starts(
    given: str, told: list[str], small_scenario: Any
) -> None:
    text = fault(lambda: small_scenario.experiment(given))
    for part in told:
        assert part in text


def test_a_trace_of_models_that_the_scenario_does_not_have_is_refused(small_scenario: Any) -> None:
    small_scenario.experiment().setting.load.trace.write(small_scenario.folder / "t.parquet")
    values = small_scenario.values(workload={"trace": "t.parquet"})
    values["models"] = {"b": values["models"]["a"]}
    text = fault(lambda: small_scenario.experiment(values=values))
    assert text.endswith("t.parquet: no model 'a' here; valid are b")


def test_a_trace_from_a_file_is_replayed_as_it_is(small_scenario: Any) -> None:
    trace = small_scenario.experiment().setting.load.trace
    trace.write(small_scenario.folder / "t.parquet")
    values = small_scenario.values(workload={"trace": "t.parquet"})
    load = small_scenario.experiment(values=values).setting.load
    assert load.trace.digest() == trace.digest()
    assert load.interactive_before == {}


def test_requests_try_their_own_region_first_unless_told_otherwise(small_scenario: Any) -> None:
    values = small_scenario.values(
        regions={
            "west": {"gpus": {"h100": 1}},
            "east": {"gpus": {"h100": 1}, "prefer": ["north", "east"]},
            "north": {"gpus": {"h100": 1}},
        }
    )
    scenario = Scenario.model_validate(values)
    assert scenario.preferred_regions("west") == ("west", "east", "north")
    assert scenario.preferred_regions("east") == ("north", "east", "west")


def test_slos_left_out_are_the_papers(small_scenario: Any) -> None:
    slos = Scenario.model_validate(small_scenario.values()).slos()
    assert slos[Tier.IW_F].ttft_s == 3.0
    assert slos[Tier.IW_N].ttft_s == 60.0
    assert slos[Tier.NIW].deadline_s == 86_400.0


def test_initial_servers_stand_on_the_first_gpu_type_that_has_a_profile(small_scenario: Any) -> None:
    values = small_scenario.values(
        regions={"west": {"gpus": {"a100": 4, "h100": 4}}, "east": {"gpus": {"h100": 4}}},
        initial_servers={"a": {"west": 2}},
    )
    scenario = Scenario.model_validate(values)
    assert scenario.initial_counts() == {("a", "west", "h100"): 2}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sleep_level": 3}, ["models.a.sleep_level", "1 or 2", "given: 3"]),
        ({"wake_s": 3.0}, ["models.a", "wake_s without sleep_level", "give sleep_level 1 or 2"]),
        ({"sleep_level": 1, "profiles": {"cpu": "x.json"}}, ["models.a.sleep_level 1", "CPU build cannot sleep"]),
    ],
)
def test_a_model_that_cannot_sleep_is_told_before_anything_starts(
    keys: dict[str, Any], told: list[str], small_scenario: Any
) -> None:
    values = small_scenario.values(mode="vllm", regions={"west": {"gpus": {"h100": 4, "cpu": 4}}}, initial_servers=0)
    values["workload"]["synthetic"]["regions"] = {"west": {"share": 1.0}}
    values["models"]["a"] |= keys
    text = fault(lambda: load_scenario(str(small_scenario.write(values))))
    for word in told:
        assert word in text

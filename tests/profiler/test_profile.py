import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from profiler.analytical import analytical_profile
from profiler.gpu_types import H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile import OutsideDomainError, ServerProfile, bundled_profiles, load_profile
from profiler.profile_parts import Domain, EngineArgs, schedules_asynchronously


def a_profile() -> ServerProfile:
    return analytical_profile(LLAMA_3_1_8B, H100, 1)


def test_a_saved_profile_loads_as_it_was(tmp_path: Path) -> None:
    profile = a_profile()
    path = tmp_path / "deeper" / "mine.json"
    profile.save(path)
    assert load_profile(path) == profile
    assert load_profile(str(path)) == profile


def test_every_bundled_profile_loads_under_its_own_name() -> None:
    names = bundled_profiles()
    assert {"llama-2-70b-h100-tp4", "bloom-176b-a100-80gb-tp8", "llama-3.1-8b-h100", "tiny-llama-cpu"} <= set(names)
    assert [load_profile(name).name for name in names] == list(names)


def test_what_nobody_knows_is_null_in_the_file_and_not_zero(tmp_path: Path) -> None:
    a_profile().save(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["lifecycle"]["drain_s"] is None
    assert content["request_overhead_s"] is None
    assert content["provenance"]["date"] is None


def test_a_file_of_before_requests_were_measured_among_others_loads_and_adds_nothing(tmp_path: Path) -> None:
    a_profile().model_copy(update={"request_overhead_s": 0.002}).save(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    del content["crowded_requests"]
    (tmp_path / "p.json").write_text(json.dumps(content))
    profile = load_profile(tmp_path / "p.json")
    assert profile.crowded_requests == ()
    assert profile.request_overhead_among_s(40) == 0.002


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), True),
        (("--seed", "1", "--no-async-scheduling"), False),
        (("--no-async-scheduling", "--async-scheduling"), True),
    ],
)
def test_a_server_schedules_asynchronously_unless_its_arguments_say_otherwise_and_never_on_the_cpu(
    arguments: tuple[str, ...], expected: bool
) -> None:
    told = EngineArgs(extra_args=arguments).async_scheduling
    assert schedules_asynchronously(told, "h100") is expected
    assert not schedules_asynchronously(told, "cpu")


def test_an_unknown_name_gets_the_nearest_bundled_ones() -> None:
    with pytest.raises(ValueError, match="llama-2-70b-h100-tp4"):
        load_profile("llama-2-70b-h100")


def test_a_file_with_an_unknown_key_is_refused_with_its_place(tmp_path: Path) -> None:
    a_profile().save(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    content["step_time"]["warp_factor"] = 9
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"p\.json is no server profile: step_time\.warp_factor"):
        load_profile(tmp_path / "p.json")


def test_a_file_with_a_negative_coefficient_is_refused(tmp_path: Path) -> None:
    a_profile().save(tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    content["step_time"]["overhead_s"] = -1
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="overhead_s=-1"):
        load_profile(tmp_path / "p.json")


def test_a_profile_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError):
        a_profile().name = "other"  # type: ignore[misc]


def test_a_measured_profile_fails_closed_beyond_what_it_has_seen() -> None:
    domain = Domain(prefill_tokens=(0, 2048), prefill_pairs=(0, 2e6), decode_seqs=(0, 64), kv_tokens=(0, 50_000))
    profile = a_profile().model_copy(update={"domain": domain})
    profile.require_within_domain(prefill_tokens=2048, decode_seqs=64, kv_tokens=50_000)
    with pytest.raises(OutsideDomainError, match=r"decode_seqs=65 .* up to 64"):
        profile.require_within_domain(decode_seqs=65)
    a_profile().require_within_domain(decode_seqs=10_000)


def test_a_profile_of_before_whose_name_is_a_path_is_read_under_a_name_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    a_profile().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "org/model-h100"}))
    assert load_profile(path).name == "org--model-h100"

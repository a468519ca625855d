import pytest

from profiler.idle_latency import batch_is_beyond, first_token_s, inter_token_s, prompt_is_beyond
from profiler.profile import ServerProfile
from profiler.profile_parts import Domain, EngineArgs, KvCache, ProfiledGpu, ProfiledModel, Provenance
from profiler.step_time import StepTimeModel, prefill_pairs

PROFILE = ServerProfile(
    name="m-g",
    kind="measured",
    model=ProfiledModel(name="m"),
    gpu=ProfiledGpu(type="g", count=1),
    engine=EngineArgs(max_num_seqs=64, max_num_batched_tokens=1000, max_model_len=8000),
    kv_cache=KvCache(num_gpu_blocks=6250, block_size=16, max_tokens=100_000),
    step_time=StepTimeModel(
        overhead_s=7e-3, slopes=((200.0, 3e-5),), per_sequence_s=1e-5, per_kv_token_s=5e-8, per_prefill_pair_s=1e-9
    ),
    request_overhead_s=4e-3,
    domain=Domain(prefill_tokens=(0, 1000), prefill_pairs=(0, 2e6), decode_seqs=(0, 32), kv_tokens=(0, 60_000)),
    provenance=Provenance(source="here"),
)


def test_a_short_prompt_takes_one_iteration_and_its_requests_overhead() -> None:
    # 7 ms, 300 tokens beyond 200, 500^2 / 2 pairs, 4 ms of the request.
    assert first_token_s(PROFILE, 500) == pytest.approx(7e-3 + 300 * 3e-5 + 125_000e-9 + 4e-3)


def test_a_prompt_beyond_the_budget_takes_the_chunks_that_a_server_cuts() -> None:
    chunks = ((1000, 0), (1000, 1000), (1000, 2000))
    step = PROFILE.step_time
    walked_s = sum(step.step_s(chunk, prefill_pairs(chunk, before), 0, 0) for chunk, before in chunks)
    assert first_token_s(PROFILE, 3000) == pytest.approx(walked_s + 4e-3)


def test_a_request_overhead_that_nobody_measured_is_left_out() -> None:
    unknown = PROFILE.model_copy(update={"request_overhead_s": None})
    assert first_token_s(PROFILE, 500) - first_token_s(unknown, 500) == pytest.approx(4e-3)


def test_the_gap_between_tokens_grows_with_every_sequence_and_its_context() -> None:
    assert inter_token_s(PROFILE, 10, 1000) == pytest.approx(7e-3 + 10 * 1e-5 + 10_000 * 5e-8)


def test_what_was_never_measured_is_beyond_the_domain() -> None:
    assert prompt_is_beyond(PROFILE, 2000) is None
    assert prompt_is_beyond(PROFILE, 6000) == "domain"  # 6000^2 / 2 pairs over 6 iterations
    assert batch_is_beyond(PROFILE, 32, 1000) is None
    assert batch_is_beyond(PROFILE, 33, 1000) == "domain"
    assert batch_is_beyond(PROFILE, 32, 2000) == "domain"


def test_what_does_not_fit_is_beyond_the_server_whatever_was_measured() -> None:
    anywhere = PROFILE.model_copy(update={"domain": None})
    assert prompt_is_beyond(anywhere, 7999) is None
    assert prompt_is_beyond(anywhere, 8000) == "server"
    assert batch_is_beyond(anywhere, 64, 1500) is None
    assert batch_is_beyond(anywhere, 65, 10) == "server"
    assert batch_is_beyond(anywhere, 64, 1600) == "server"
    assert batch_is_beyond(anywhere, 1, 8001) == "server"

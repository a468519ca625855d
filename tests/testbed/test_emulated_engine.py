"""Continuous batching without a GPU: conservation, latencies, blocks, preemption, jumps against single steps."""

from dataclasses import fields
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.step_time import StepTimeModel, prefill_pairs
from testbed.emulated_engine import EmulatedEngine
from testbed.engine_parts import EngineLimits, Phase, Sequence
from testbed.step_noise import StepNoise

STEP = StepTimeModel.roofline(
    overhead_s=0.002,
    weights_s=0.01,
    per_token_s=2e-5,
    per_sequence_s=1e-5,
    per_kv_token_s=1e-8,
    per_prefill_pair_s=1e-10,
)
ROOMY = EngineLimits(
    max_num_seqs=256, max_num_batched_tokens=8192, max_model_len=32768, num_gpu_blocks=20_000, block_size=16
)


def limits(**changes: int) -> EngineLimits:
    values = {field.name: getattr(ROOMY, field.name) for field in fields(EngineLimits)}
    return EngineLimits(**{**values, **changes})


def run(engine: EmulatedEngine[Sequence], arrivals: list[tuple[float, Sequence]]) -> dict[Sequence, float]:
    """Submit at the given times and run to the end; returns when each sequence finished."""
    ended: dict[Sequence, float] = {}
    arrivals = sorted(arrivals, key=lambda pair: pair[0])
    while arrivals or engine.wake_s is not None:
        wake_s = engine.wake_s
        if arrivals and (wake_s is None or arrivals[0][0] < wake_s):
            at_s, sequence = arrivals.pop(0)
            engine.submit(sequence, at_s)
        else:
            assert wake_s is not None
            for sequence in engine.advance(wake_s):
                assert sequence.ended_s == pytest.approx(wake_s, abs=1e-9), "woken as soon as it has ended"
                ended[sequence] = sequence.ended_s
            assert engine.wake_s is None or engine.wake_s > wake_s
        assert 0.0 <= engine.kv_cache_usage <= 1.0
        assert engine.num_requests_running <= engine.limits.max_num_seqs
    return ended


def test_a_request_alone_takes_exactly_what_the_profile_says() -> None:
    sequence = Sequence(prompt_tokens=1000, output_tokens=50)
    ended = run(EmulatedEngine(STEP, ROOMY), [(3.0, sequence)])
    prefill_s = STEP.step_s(1000, prefill_pairs(1000), 0, 0)
    assert sequence.first_token_s == pytest.approx(3.0 + prefill_s)
    assert ended[sequence] == pytest.approx(3.0 + prefill_s + STEP.decode_run_s(1, 1001, 49))


def test_a_long_prompt_is_cut_into_chunks_of_the_token_budget() -> None:
    sequence = Sequence(prompt_tokens=10_000, output_tokens=1)
    ended = run(EmulatedEngine(STEP, limits(max_num_batched_tokens=4096)), [(0.0, sequence)])
    chunks = [(4096, 0), (4096, 4096), (1808, 8192)]
    assert ended[sequence] == pytest.approx(sum(STEP.step_s(c, prefill_pairs(c, before), 0, 0) for c, before in chunks))


def test_an_arrival_joins_at_the_next_iteration_boundary() -> None:
    first, second = Sequence(100, 1000), Sequence(100, 10)
    run(EmulatedEngine(STEP, ROOMY), [(0.0, first), (5.0, second)])
    assert second.first_token_s is not None
    wait_s = second.first_token_s - 5.0
    own_s = STEP.step_s(100, prefill_pairs(100), 1, 600)
    assert own_s * 0.99 < wait_s < own_s + STEP.decode_run_s(1, 600, 1) * 1.01


def test_with_asynchronous_scheduling_an_arrival_misses_the_iteration_that_was_put_together_before_it() -> None:
    def first_token_s(at_s: float, *, async_scheduling: bool) -> float:
        first, second = Sequence(100, 1000), Sequence(100, 10)
        engine: EmulatedEngine[Sequence] = EmulatedEngine(STEP, ROOMY, async_scheduling=async_scheduling)
        run(engine, [(0.0, first), (at_s, second)])
        assert second.first_token_s is not None
        return second.first_token_s

    in_a_run = first_token_s(5.0, async_scheduling=True) - first_token_s(5.0, async_scheduling=False)
    assert in_a_run == pytest.approx(STEP.decode_run_s(1, 600, 1), rel=0.01)
    # The first one's prompt takes longer than the moment after which the second comes.
    in_a_prompt = first_token_s(0.001, async_scheduling=True) - first_token_s(0.001, async_scheduling=False)
    assert in_a_prompt == pytest.approx(STEP.decode_run_s(1, 101, 1), rel=0.01)


def test_with_asynchronous_scheduling_nobody_waits_for_the_more_urgent_who_came_later() -> None:
    engine: EmulatedEngine[Sequence] = EmulatedEngine(STEP, ROOMY, async_scheduling=True)
    patient = Sequence(100, 10, priority=5)
    urgent = [(0.008 * number, Sequence(100, 5)) for number in range(500)]
    run(engine, [*urgent, (1.0, patient)])
    assert patient.first_token_s is not None
    assert patient.first_token_s < 1.2


def test_with_asynchronous_scheduling_who_finds_nothing_else_to_do_is_served_at_once() -> None:
    first, second = Sequence(100, 1), Sequence(100, 10)
    engine: EmulatedEngine[Sequence] = EmulatedEngine(STEP, ROOMY, async_scheduling=True)
    ended = run(engine, [(0.0, first), (0.001, second)])
    assert second.first_token_s == pytest.approx(ended[first] + STEP.step_s(100, prefill_pairs(100), 0, 0))


def test_no_more_than_max_num_seqs_run_at_once() -> None:
    one_by_one = EmulatedEngine(STEP, limits(max_num_seqs=1))
    a, b = Sequence(100, 20), Sequence(100, 20)
    ended = run(one_by_one, [(0.0, a), (0.0, b)])
    assert b.first_token_s is not None
    assert b.first_token_s > ended[a]


def test_a_lower_priority_number_is_served_sooner() -> None:
    engine = EmulatedEngine(STEP, limits(max_num_seqs=1))
    running, late, urgent = Sequence(100, 20), Sequence(100, 20, priority=5), Sequence(100, 20, priority=1)
    ended = run(engine, [(0.0, running), (0.001, late), (0.002, urgent)])
    assert ended[running] < ended[urgent] < ended[late]


def test_when_blocks_run_out_the_last_is_preempted_and_still_gets_all_its_tokens() -> None:
    engine = EmulatedEngine(STEP, limits(num_gpu_blocks=20))
    sequences = [Sequence(100, 150), Sequence(100, 150)]
    ended = run(engine, [(0.0, s) for s in sequences])
    assert engine.preemptions > 0
    assert ended[sequences[0]] < ended[sequences[1]]
    assert all(engine.tokens_made(s) == 150 for s in sequences)


def test_a_request_that_can_never_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="400 tokens are over the KV cache of 320 tokens"):
        EmulatedEngine(STEP, limits(num_gpu_blocks=20)).submit(Sequence(300, 100), 0.0)
    with pytest.raises(ValueError, match=r"40000 tokens .* over max_model_len 32768"):
        EmulatedEngine(STEP, ROOMY).submit(Sequence(39_000, 1000), 0.0)


def test_an_aborted_request_frees_its_blocks_at_once() -> None:
    engine = EmulatedEngine(STEP, ROOMY)
    stays, leaves = Sequence(1000, 500), Sequence(1000, 500)
    engine.submit(stays, 0.0)
    engine.submit(leaves, 0.0)
    engine.catch_up(2.0)
    both = engine.kv_cache_usage
    engine.abort(leaves, 2.0)
    assert both / 2 <= engine.kv_cache_usage < both * 0.75, "what stays has had tokens meanwhile"
    while engine.wake_s is not None:
        engine.advance(engine.wake_s)
    assert stays.phase is Phase.ENDED
    assert engine.kv_cache_usage == 0.0


requests = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 400), st.integers(1, 200)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 8), st.integers(40, 200), st.sampled_from([64, 512]), st.booleans())
def test_jumping_over_iterations_changes_nothing(
    asked: list[tuple[float, int, int]], max_num_seqs: int, blocks: int, budget: int, async_scheduling: bool
) -> None:
    tight = limits(max_num_seqs=max_num_seqs, num_gpu_blocks=blocks, max_num_batched_tokens=budget)
    results = []
    for step_by_step in (False, True):
        sequences = [Sequence(p, o) for _, p, o in asked]
        engine = EmulatedEngine(STEP, tight, step_by_step=step_by_step, async_scheduling=async_scheduling)
        ended = run(engine, [(at_s, s) for (at_s, _, _), s in zip(asked, sequences, strict=True)])
        assert len(ended) == len(sequences)
        assert engine.kv_cache_usage == pytest.approx(0.0)
        assert all(engine.tokens_made(s) == s.output_tokens for s in sequences)
        assert all(s.first_token_s is not None and s.first_token_s <= ended[s] for s in sequences)
        results.append([(s.first_token_s, ended[s]) for s in sequences])
    for jumped, stepped in zip(*results, strict=True):
        assert jumped == pytest.approx(stepped, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(requests, st.booleans())
def test_a_server_with_work_and_room_never_idles(asked: list[tuple[float, int, int]], async_scheduling: bool) -> None:
    engine = EmulatedEngine(STEP, limits(max_num_seqs=4, num_gpu_blocks=60), async_scheduling=async_scheduling)
    pending = sorted(asked)
    while pending or engine.wake_s is not None:
        if pending and (engine.wake_s is None or pending[0][0] < engine.wake_s):
            at_s, prompt, output = pending.pop(0)
            engine.submit(Sequence(prompt, output), at_s)
        else:
            assert engine.wake_s is not None
            engine.advance(engine.wake_s)
        assert engine.idle == (engine.wake_s is None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(1, 400), st.integers(1, 200), st.integers(0, 2), st.floats(0, 8)),
        min_size=1,
        max_size=25,
    ),
    st.integers(1, 8),
    st.integers(40, 200),
    st.booleans(),
)
def test_nobody_ends_before_the_engine_wants_to_be_woken(
    asked: list[tuple[float, int, int, int, float]], max_num_seqs: int, blocks: int, async_scheduling: bool
) -> None:
    """Whatever priorities, preemptions and clients that go away do; `run` checks it as long as nobody goes away."""
    tight = limits(max_num_seqs=max_num_seqs, num_gpu_blocks=blocks, max_num_batched_tokens=512)
    ends, made = [], []
    for step_by_step in (False, True):
        engine: EmulatedEngine[Sequence] = EmulatedEngine(
            STEP, tight, step_by_step=step_by_step, async_scheduling=async_scheduling
        )
        sequences = [Sequence(prompt, output, priority) for _, prompt, output, priority, _ in asked]
        todo = [(at_s, 0, i) for i, (at_s, *_) in enumerate(asked)]
        todo += [(at_s + stay_s, 1, i) for i, (at_s, _, _, _, stay_s) in enumerate(asked) if i % 3 == 0]
        todo.sort()
        while todo or engine.wake_s is not None:
            if todo and (engine.wake_s is None or todo[0][0] < engine.wake_s):
                at_s, leaves, number = todo.pop(0)
                if leaves:
                    engine.abort(sequences[number], at_s)
                else:
                    engine.submit(sequences[number], at_s)
            else:
                assert engine.wake_s is not None
                woken_s = engine.wake_s
                for sequence in engine.advance(woken_s):
                    assert sequence.ended_s == pytest.approx(woken_s, abs=1e-9)
        assert engine.kv_cache_usage == pytest.approx(0.0)
        ends.append([sequence.ended_s for sequence in sequences])
        made.append([engine.tokens_made(sequence) for sequence in sequences])
    for jumped, stepped in zip(*ends, strict=True):
        assert (jumped is None) == (stepped is None)
        assert jumped == pytest.approx(stepped, abs=1e-6)
    # Who goes away at the very end of an iteration has its token or not.
    assert made[0] == pytest.approx(made[1], abs=1)


@settings(max_examples=40, deadline=None)
@given(requests, st.floats(0.01, 1.0), st.integers(0, 5))
def test_noise_loses_no_token_and_the_same_seed_gives_the_same_times(
    asked: list[tuple[float, int, int]], cv: float, seed: int
) -> None:
    tight = limits(max_num_seqs=4, num_gpu_blocks=60)
    times = []
    for _ in range(2):
        engine: EmulatedEngine[Sequence] = EmulatedEngine(STEP, tight, noise=StepNoise(cv, seed, "s"))
        sequences = [Sequence(p, o) for _, p, o in asked]
        run(engine, [(at_s, s) for (at_s, _, _), s in zip(asked, sequences, strict=True)])
        assert all(engine.tokens_made(s) == s.output_tokens for s in sequences)
        times.append([s.ended_s for s in sequences])
    assert times[0] == times[1]


def test_noise_spreads_the_times_around_those_of_the_profile() -> None:
    def takes_s(noise: StepNoise | None) -> float:
        alone = Sequence(100, 50)
        return run(EmulatedEngine(STEP, ROOMY, noise=noise), [(0.0, alone)])[alone]

    noise = StepNoise(0.3, 1, "s")
    taken = [takes_s(noise) for _ in range(400)]
    assert fmean(taken) == pytest.approx(takes_s(None), rel=0.01)
    assert 0.3 / 50**0.5 * 0.8 < stdev(taken) / fmean(taken) < 0.3 / 50**0.5 * 1.3


def test_arrivals_leave_the_noise_as_it_is() -> None:
    noise = StepNoise(0.3, 1, "s")
    taken = []
    for _ in range(400):
        long = Sequence(100, 100)
        passing = [(0.03 + 0.06 * number, Sequence(1, 1)) for number in range(20)]
        taken.append(run(EmulatedEngine(STEP, ROOMY, noise=noise), [(0.0, long), *passing])[long])
    assert 0.3 / 100**0.5 * 0.8 < stdev(taken) / fmean(taken) < 0.3 / 100**0.5 * 1.3

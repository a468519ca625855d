"""The load generator knows when it is itself the bottleneck."""

import asyncio
from dataclasses import replace

import pytest

from workloads.clock import RunClock
from workloads.real_time_loop import real_time_loop
from workloads.samples import Quantiles, Samples
from workloads.self_watch import ClientHealth, SelfWatch

FINE = Quantiles(n=100, p50=0.0001, p99=0.001, max=0.2)
HEALTHY = ClientHealth(lateness_s=FINE, lag_s=FINE, cpu_s=10.0, cpu_share=0.4, cpu_share_max=0.89)


def watched(hold_up_s: float) -> ClientHealth:
    """Half a second in which the loop is held up once."""

    async def run() -> ClientHealth:
        loop = asyncio.get_running_loop()
        watch = SelfWatch(RunClock())
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(watch.beat())
            await asyncio.sleep(0.1)
            until_s = loop.time() + hold_up_s
            while loop.time() < until_s:
                pass
            await asyncio.sleep(0.2)
            beat.cancel()
        return watch.health(FINE)

    with asyncio.Runner(loop_factory=real_time_loop) as runner:
        return runner.run(run())


def test_a_loop_that_was_held_up_shows_all_the_beats_that_it_missed() -> None:
    health = watched(hold_up_s=0.2)
    assert health.lag_s.max > 0.15
    assert health.lag_s.n >= 24, "one every 20 ms of half a second, those within the 200 ms too"
    assert health.cpu_s > 0.01
    assert health.bottleneck.startswith("p99 lag of the event loop in s 0.")


def test_an_idle_loop_takes_little_and_is_not_blamed_for_load() -> None:
    health = watched(hold_up_s=0.0)
    assert health.lag_s.n >= 14
    assert health.cpu_share_max < 0.5


def test_a_healthy_client_is_trusted() -> None:
    assert HEALTHY.bottleneck == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"lateness_s": replace(FINE, p99=0.0101)}, "p99 lateness in s 0.010, over 0.010"),
        ({"lag_s": replace(FINE, p99=0.5)}, "p99 lag of the event loop in s 0.500, over 0.010"),
        ({"cpu_share_max": 0.97}, "CPU of the client in its busiest 5 s 97%, over 90%"),
    ],
)
def test_a_client_beyond_a_limit_says_which(changed: dict[str, object], why: str) -> None:
    assert replace(HEALTHY, **changed).bottleneck == why  # type: ignore[arg-type]


def test_samples_of_several_processes_are_one_distribution() -> None:
    low, high = Samples(), Samples()
    for value in range(50):
        low.add(value)
        high.add(100 + value)
    low.extend(high)
    found = low.quantiles()
    assert (found.n, found.max) == (100, 149.0)
    assert 49 < found.p50 < 100
    assert Samples().quantiles() == Quantiles(n=0, p50=0.0, p99=0.0, max=0.0)

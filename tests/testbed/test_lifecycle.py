from itertools import pairwise

import pytest

from testbed.lifecycle import LEGAL, Lifecycle
from testbed.server import ServerState


def test_a_whole_life_is_told_in_order_with_reasons() -> None:
    told: list[tuple[str, ServerState, str]] = []
    lifecycle = Lifecycle("s1", lambda *change: told.append(change))
    assert lifecycle.state is ServerState.STARTING
    asleep = (ServerState.DRAINING, ServerState.SLEEPING, ServerState.STARTING, ServerState.READY)
    for state in (ServerState.READY, *asleep, ServerState.DRAINING, ServerState.STOPPING, ServerState.STOPPED):
        assert not lifecycle.ended
        lifecycle.to(state, f"now {state}")
    assert lifecycle.ended
    assert told[0] == ("s1", ServerState.READY, "now READY")
    assert all(after[1] in LEGAL[before[1]] for before, after in pairwise(told))


@pytest.mark.parametrize("end", [ServerState.STOPPED, ServerState.FAILED])
def test_nothing_follows_the_end(end: ServerState) -> None:
    lifecycle = Lifecycle("s1", lambda *_: None)
    if end is ServerState.STOPPED:
        lifecycle.to(ServerState.STOPPING)
    lifecycle.to(end)
    for state in ServerState:
        with pytest.raises(ValueError, match=f"server s1: {end} cannot become {state}; allowed: nothing"):
            lifecycle.to(state)


def test_an_illegal_change_leaves_the_state_and_tells_nobody() -> None:
    told: list[ServerState] = []
    lifecycle = Lifecycle("s1", lambda _, state, __: told.append(state))
    with pytest.raises(ValueError, match="STARTING cannot become STOPPED; allowed: FAILED, READY, STOPPING"):
        lifecycle.to(ServerState.STOPPED)
    assert lifecycle.state is ServerState.STARTING
    assert told == []

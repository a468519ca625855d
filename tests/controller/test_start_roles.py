"""Every policy starts with as many servers; a policy with roles deals them out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.rules.roles import START_SHARES, deal_start_state, deal_to_roles
from controller.types import Placement, Role

SILOED = (Role.INTERACTIVE, Role.BATCH)
CHIRON = (Role.INTERACTIVE, Role.MIXED, Role.BATCH)


@pytest.mark.parametrize(
    ("roles", "servers", "dealt"),
    [
        ((Role.SHARED,), 7, [7]),
        (SILOED, 20, [16, 4]),
        (CHIRON, 40, [20, 10, 10]),
        (SILOED, 2, [1, 1]),
        (SILOED, 7, [6, 1]),
        (SILOED, 8, [6, 2]),
        (SILOED, 1, [1, 0]),
        (CHIRON, 3, [1, 1, 1]),
        (CHIRON, 2, [1, 1, 0]),
        (CHIRON, 0, [0, 0, 0]),
    ],
)
def test_servers_are_dealt_as_in_the_papers_runs_and_interactive_ones_first(roles, servers, dealt):
    assert list(deal_to_roles(servers, roles).values()) == dealt


@given(servers=st.integers(0, 500), roles=st.sampled_from(list(START_SHARES)))
def test_all_servers_are_dealt_within_one_of_the_shares_and_nobody_goes_without(servers, roles):
    dealt = deal_to_roles(servers, roles)
    assert tuple(dealt) == roles
    assert sum(dealt.values()) == servers
    assert sum(count > 0 for count in dealt.values()) == min(servers, len(roles))
    for share, count in zip(START_SHARES[roles], dealt.values(), strict=True):
        assert abs(count - share * servers) <= 1


def test_roles_that_nobody_has_set_shares_for_are_refused():
    with pytest.raises(ValueError, match="no start state for servers in roles batch, mixed; known are: shared; inter"):
        deal_to_roles(3, (Role.BATCH, Role.MIXED))


def test_a_start_state_is_dealt_pool_by_pool_on_the_gpus_it_was_given_for():
    counts = {("m", "west", "h100"): 5, ("m", "east", "a100"): 1}
    assert deal_start_state(counts, SILOED) == {
        Placement("m", "west", "h100", Role.INTERACTIVE): 4,
        Placement("m", "west", "h100", Role.BATCH): 1,
        Placement("m", "east", "a100", Role.INTERACTIVE): 1,
    }
    assert deal_start_state(counts, (Role.SHARED,)) == {Placement(*key): count for key, count in counts.items()}

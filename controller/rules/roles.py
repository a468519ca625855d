"""How the servers that a run starts with are dealt to the roles of a policy."""

from collections.abc import Mapping
from types import MappingProxyType

from controller.types import Placement, Role

# Parts of a pool's servers: one role has them all; SageServe's siloed baseline stands at 16 + 4 of 20, its Chiron
# baseline at 20 / 10 / 10 of 40 (arXiv 2502.14617).
START_SHARES: Mapping[tuple[Role, ...], tuple[float, ...]] = MappingProxyType(
    {
        (Role.SHARED,): (1.0,),
        (Role.INTERACTIVE, Role.BATCH): (0.8, 0.2),
        (Role.INTERACTIVE, Role.MIXED, Role.BATCH): (0.5, 0.25, 0.25),
    }
)


def deal_to_roles(servers: int, roles: tuple[Role, ...]) -> dict[Role, int]:
    """How many of a pool's first `servers` each role gets; they sum to `servers`, so every policy starts with as many.

    By START_SHARES and largest remainders, of equals the earlier role, but no role gets none while another has two.
    With fewer servers than roles the first ones get one each: interactive, then mixed, then batch.
    Raises ValueError for roles that have no shares.
    """
    if roles not in START_SHARES:
        known = "; ".join(", ".join(each) for each in START_SHARES)
        raise ValueError(f"no start state for servers in roles {', '.join(roles)}; known are: {known}")
    exact = [servers * share for share in START_SHARES[roles]]
    # A product such as 5 x 0.8 may lie a hair below its whole number.
    dealt = [int(part + 1e-9) for part in exact]
    by_remainder = sorted(range(len(roles)), key=lambda i: (round(dealt[i] - exact[i], 9), i))
    for index in by_remainder[: servers - sum(dealt)]:
        dealt[index] += 1
    for index, count in enumerate(dealt):
        largest = max(range(len(roles)), key=dealt.__getitem__)
        if count == 0 and dealt[largest] > 1:
            dealt[largest] -= 1
            dealt[index] += 1
    return dict(zip(roles, dealt, strict=True))


def deal_start_state(counts: Mapping[tuple[str, str, str], int], roles: tuple[Role, ...]) -> dict[Placement, int]:
    """First servers by (model, region, GPU type) as those of a policy with these roles; none are left out."""
    return {
        Placement(*key, role): count
        for key, servers in counts.items()
        for role, count in deal_to_roles(servers, roles).items()
        if count
    }

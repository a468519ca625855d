"""What a policy sees of the servers of one placement."""

from collections.abc import Iterable

from controller.types import PlacementState
from testbed.member import Member
from testbed.pool_seats import Seat
from testbed.server import ServerState


def placement_state(
    members: Iterable[Member], seats: Iterable[Seat], at_s: float, coming_s: Iterable[float] = ()
) -> PlacementState:
    """Servers by state and their load; `seats` are those that the members have in the router. `coming_s`: when those
    that failed are expected to be READY again, which count as starting.

    Whatever holds GPUs and neither serves nor starts counts as draining: what is on its way to sleep too, and what has
    failed and is being cleared away. A sleeper that is being stopped holds none and is not counted.
    """
    tokens, capacity = 0, 0.0
    for seat in seats:
        tokens += seat.outstanding_tokens
        capacity += seat.capacity_tokens
    ready = draining = sleeping = 0
    ready_at_s = list(coming_s)
    for member in members:
        if member.serves and member.server.state is ServerState.READY:
            ready += 1
        elif member.serves or member.comes_back:
            ready_at_s.append(max(at_s, member.ready_at_s))  # who is late is expected at any moment
        elif member.holds_gpus:
            draining += 1
        elif member.sleeps:
            sleeping += 1
    return PlacementState(
        starting=len(ready_at_s),
        ready=ready,
        draining=draining,
        sleeping=sleeping,
        utilisation=tokens / capacity if capacity else 0.0,
        outstanding_tokens=tokens,
        ready_at_s=tuple(sorted(ready_at_s)),
    )

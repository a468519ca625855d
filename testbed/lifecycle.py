"""The state of a server over its life: which changes are legal, and who is told."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from testbed.server import ServerState

StateListener = Callable[[str, ServerState, str], None]
"""Called with (server_id, new state, reason) after every change."""

LEGAL: Mapping[ServerState, frozenset[ServerState]] = MappingProxyType(
    {
        ServerState.STARTING: frozenset({ServerState.READY, ServerState.STOPPING, ServerState.FAILED}),
        ServerState.READY: frozenset({ServerState.DRAINING, ServerState.STOPPING, ServerState.FAILED}),
        # A server drains before it stops, and before it sleeps; one that wakes up is STARTING again.
        ServerState.DRAINING: frozenset({ServerState.SLEEPING, ServerState.STOPPING, ServerState.FAILED}),
        ServerState.SLEEPING: frozenset({ServerState.STARTING, ServerState.STOPPING, ServerState.FAILED}),
        ServerState.STOPPING: frozenset({ServerState.STOPPED, ServerState.FAILED}),
        ServerState.STOPPED: frozenset(),
        ServerState.FAILED: frozenset(),
    }
)


class Lifecycle:
    """Holds the state of one server, STARTING at first, and tells `on_change` of every change."""

    def __init__(self, server_id: str, on_change: StateListener) -> None:
        self._server_id = server_id
        self._on_change = on_change
        self._state = ServerState.STARTING

    @property
    def state(self) -> ServerState:
        return self._state

    @property
    def ended(self) -> bool:
        """STOPPED or FAILED: nothing follows."""
        return not LEGAL[self._state]

    def to(self, state: ServerState, reason: str = "") -> None:
        """Change to `state`. Raises ValueError for a change that LEGAL does not allow, one to the same state too."""
        if state not in LEGAL[self._state]:
            allowed = ", ".join(sorted(LEGAL[self._state])) or "nothing"
            raise ValueError(f"server {self._server_id}: {self._state} cannot become {state}; allowed: {allowed}")
        self._state = state
        self._on_change(self._server_id, state, reason)

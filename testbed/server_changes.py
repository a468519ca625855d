"""Every change of a server's state, with the GPUs that it holds from then on."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from controller.types import Placement
from results.recorder import RunRecorder
from testbed.live_events import Listener, ServerChange
from testbed.server import ServerState
from workloads.clock import RunClock


class ServerChanges:
    """Records changes, and tells `listener` (where there is one) of each as it happens.

    `gpus_of`: the GPUs of a server of a placement. Until `begin` changes are kept: the run's time 0 is not yet known.
    """

    def __init__(
        self,
        recorder: RunRecorder,
        clock: RunClock,
        gpus_of: Callable[[Placement], float],
        listener: Listener | None,
    ) -> None:
        self._recorder = recorder
        self._clock = clock
        self._gpus_of = gpus_of
        self._listener = listener
        self._placement_of: dict[str, Placement] = {}
        self._asleep: set[str] = set()
        self._kept: list[ServerChange] | None = []

    def made(self, server_id: str, placement: Placement) -> None:
        """A new server, before its first state."""
        self._placement_of[server_id] = placement

    def entered(self, server_id: str, state: ServerState, reason: str) -> None:
        """A server that was `made` is in `state` now."""
        placement = self._placement_of[server_id]
        # From SLEEPING on it holds no GPU, also when it is stopped or dies, until it is STARTING again.
        if state is ServerState.SLEEPING:
            self._asleep.add(server_id)
        elif state is ServerState.STARTING:
            self._asleep.discard(server_id)
        change = ServerChange(
            at_s=self._clock.now_s(),
            server_id=server_id,
            placement=placement,
            gpus=0.0 if server_id in self._asleep else self._gpus_of(placement),
            state=state,
            reason=reason,
        )
        if self._kept is None:
            self._record(change)
        else:
            self._kept.append(change)
        if self._listener is not None:
            self._listener(change)

    def begin(self, before_s: float, from_s: float, lost: Iterable[ServerChange]) -> None:
        """The run's time `from_s` was `before_s` after what the clock said until now; `lost` changes came before it.

        What happened until then lies before 0 in a run that begins, at `from_s` in one that goes on.
        """
        kept, self._kept = self._kept or [], None
        for change in lost:
            self._record(change)
        for change in kept:
            at_s = change.at_s - before_s
            self._record(replace(change, at_s=max(at_s, from_s) if from_s else at_s))

    def _record(self, change: ServerChange) -> None:
        placement = change.placement
        self._recorder.server_state(
            at_s=change.at_s,
            server_id=change.server_id,
            model=placement.model,
            region=placement.region,
            gpu_type=placement.gpu_type,
            role=placement.role,
            gpus=change.gpus,
            state=change.state,
            reason=change.reason,
        )

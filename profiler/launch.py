"""What the profiler needs of the one server that it measures: to start and stop it, and to put it to sleep."""

from pathlib import Path
from typing import Literal, Protocol

from profiler.profile_parts import MemoryHeld

State = Literal["ready", "sleeping level 1", "sleeping level 2", "stopped"]
Level = Literal[1, 2]


class Launched(Protocol):
    """A server on a machine of ours. Every duration is in seconds of the running event loop's clock.

    Methods raise a one-line error of the implementation's own when the server does not do what it is told.
    """

    @property
    def base_url(self) -> str:
        """Where it listens, without /v1; another one after each start."""
        ...

    @property
    def can_sleep(self) -> bool:
        """Whether `sleep` and `wake` work; known for sure once it has started."""
        ...

    @property
    def log_folder(self) -> Path: ...

    async def start(self, *, empty_cache: bool) -> float:
        """From the command to READY; `empty_cache` removes first what an earlier start compiled."""
        ...

    async def stop(self) -> float:
        """From the signal, with nothing in flight, until its processes are gone and its GPUs' memory is back."""
        ...

    async def sleep(self, level: Level) -> float:
        """Until it sleeps. Level 1 keeps the weights in host memory, level 2 drops them."""
        ...

    async def wake(self) -> float:
        """Until it can serve again, weights read again included where they were dropped."""
        ...

    def memory(self, state: State) -> MemoryHeld:
        """What it holds now; `state` says what it is doing."""
        ...

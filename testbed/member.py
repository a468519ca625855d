"""One server of a fleet: what it was told, what GPUs it holds, and its life from start to stop."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from controller.types import Placement
from testbed.gpu_slots import GpuSlots
from testbed.server import Server, ServerError, ServerState


class Order(StrEnum):
    """What a server was told last. STOP is final."""

    SERVE = "serve"
    SLEEP = "sleep"
    STOP = "stop"


class Member:
    """One server, from the command to start it until nothing of it is left; `gpu_indices` were taken from `slots`.

    `ready_at_s`: when it is, or was, expected to be READY. `holds_gpus` is false while it sleeps. `settled`: its start
    has come to an end, good or bad. `loaded`: it has been READY, so there is something to sleep with. `failures`: of
    servers in a row on these GPUs, before this one; `ready_s`: when it first was READY. `comes_back`: it has failed,
    and is to be started again on its GPUs.
    """

    __slots__ = (
        *("_broken_off", "_in_transit", "_ordered", "comes_back", "failures", "gpu_indices", "holds_gpus", "loaded"),
        *("order", "placement", "ready_at_s", "ready_s", "server", "settled", "slots", "task"),
    )

    def __init__(
        self,
        placement: Placement,
        server: Server,
        *,
        slots: GpuSlots,
        gpu_indices: tuple[int, ...],
        ready_at_s: float,
        failures: int = 0,
    ) -> None:
        self.placement = placement
        self.server = server
        self.slots = slots
        self.gpu_indices = gpu_indices
        self.ready_at_s = ready_at_s
        self.holds_gpus = True
        self.order = Order.SERVE
        self.settled = False
        self.loaded = False
        self.failures = failures
        self.ready_s: float | None = None
        self.comes_back = False
        self.task: asyncio.Task[None] | None = None
        self._in_transit = False
        self._broken_off = False
        self._ordered = asyncio.Event()

    # What it is.

    @property
    def serves(self) -> bool:
        """Whether it counts as a server that serves now or soon."""
        # A sleeping one that has just been told to serve is STARTING as soon as its task has its turn.
        soon = (ServerState.STARTING, ServerState.READY, ServerState.SLEEPING)
        return self.order is Order.SERVE and self.server.state in soon

    @property
    def sleeps(self) -> bool:
        """Whether it sleeps, or will."""
        return self.order is Order.SLEEP and self.server.state not in (ServerState.STOPPING, ServerState.FAILED)

    @property
    def can_wake(self) -> bool:
        """Whether it would find its GPUs free, or has them still."""
        return self.holds_gpus or self.slots.can_wake(self.gpu_indices, self.server.spec.gpus)

    # What it is told.

    def tell(self, order: Order) -> None:
        """A server told to stop while it starts, wakes up or is on its way to sleep breaks that off."""
        if self.order is Order.STOP:
            return
        self.order = order
        self._ordered.set()
        if order is Order.SLEEP and self.server.state is ServerState.SLEEPING and self.holds_gpus:
            # Told to wake and to sleep again before it had its turn: it never stirred.
            self._lay_down()
        # A server that dies while it starts is told so by its own task: that one ends by what it raises.
        if order is Order.STOP and self._in_transit and self.task not in (None, asyncio.current_task()):
            self._broken_off = True
            self.task.cancel()

    def wake(self, ready_at_s: float) -> bool:
        """Tell a server that sleeps to serve again; False, and nothing is done, while its GPUs are taken."""
        if self.holds_gpus or not self.slots.wake(self.gpu_indices, self.server.spec.gpus):
            return False
        self.holds_gpus = True
        self.ready_at_s = ready_at_s
        self.tell(Order.SERVE)
        return True

    # Its life.

    async def live(self, *, drain_s: float, join: Callable[[], None], on_asleep: Callable[[], None]) -> None:
        """Start, serve, sleep and wake as told; returns when the server is to be stopped.

        `join` is called when it is READY to serve, `on_asleep` when it has given its GPUs back. Raises ServerError
        when it cannot start or wake.
        """
        if self.order is Order.STOP:
            return
        try:
            with self._transit():
                await self.server.start()
            self.loaded = True
            while True:
                if self.order is Order.SERVE:
                    join()
                if await self._told_other_than(Order.SERVE) is Order.STOP:
                    return
                if not await self._fall_asleep(drain_s):
                    return
                on_asleep()
                if await self._told_other_than(Order.SLEEP) is Order.STOP:
                    return
                with self._transit():
                    await self.server.wake()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._broken_off or task is None:
                raise
            task.uncancel()

    async def _fall_asleep(self, drain_s: float) -> bool:
        """False when it cannot; the server has put on record why."""
        try:
            with self._transit():
                await self.server.sleep(drain_s)
        except ServerError:
            return False
        self._lay_down()
        return True

    def _lay_down(self) -> None:
        self.slots.lay_down(self.gpu_indices, self.server.spec.gpus)
        self.holds_gpus = False

    async def stop_for_sure(self, drain_s: float) -> None:
        """Stop also when cancelled meanwhile: then without waiting for requests any longer."""
        # A cancellation that brought us here is dealt with by stopping. Were it left to stand, Python before 3.11.4
        # would take the end of a timeout in `stop` for it.
        task = asyncio.current_task()
        while task is not None and task.uncancel():
            pass
        try:
            await self.server.stop(drain_s)
        except asyncio.CancelledError:
            await self.server.stop(0.0)
            raise

    def free_gpus(self) -> None:
        """At the end of its life."""
        if self.holds_gpus:
            self.slots.give_back(self.gpu_indices, self.server.spec.gpus)
        else:
            self.slots.forget(self.gpu_indices)

    async def _told_other_than(self, order: Order) -> Order:
        while self.order is order:
            self._ordered.clear()
            await self._ordered.wait()
        return self.order

    @contextmanager
    def _transit(self) -> Iterator[None]:
        self._in_transit = True
        try:
            yield
        finally:
            self._in_transit = False

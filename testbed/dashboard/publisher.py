"""The newest snapshot for any number of pages: made once a second, sent to each as fast as it takes them."""

import asyncio
from contextlib import suppress

from testbed.dashboard.message import change, whole
from testbed.live_run import LiveRuns
from testbed.live_snapshot import LiveSnapshot

PUBLISH_EVERY_S = 1.0


class Publication:
    """A snapshot as the pages get it. `number` counts publications."""

    def __init__(self, number: int, snapshot: LiveSnapshot, before: "Publication | None") -> None:
        self.number = number
        self.snapshot = snapshot
        self._whole: bytes | None = None
        self._change: bytes | None = None
        if before is not None and before.snapshot.policy == snapshot.policy:
            self._change = change(snapshot, before.snapshot)

    def after(self, seen: int) -> bytes:
        """For a page that has publication `seen`: what has changed if that was the one before, otherwise everything."""
        if seen == self.number - 1 and self._change is not None:
            return self._change
        if self._whole is None:
            self._whole = whole(self.snapshot)
        return self._whole


class Publisher:
    """Publishes while pages look (`looking` counts them), and takes in what the run tells while none does.

    There is no queue: a page that is slow skips publications, and holds up nobody.
    """

    def __init__(self, runs: LiveRuns) -> None:
        self._runs = runs
        self._newest: Publication | None = None
        self._told = asyncio.Condition()
        self.looking = 0

    async def publish_forever(self) -> None:
        while True:
            await self.publish()
            await asyncio.sleep(PUBLISH_EVERY_S)

    async def publish(self) -> None:
        """Make the newest snapshot the newest publication, if there is news and anyone to look at it."""
        current = self._runs.current
        if current is None:
            return
        if not self.looking:
            current.catch_up()
            return
        snapshot = current.snapshot()
        before = self._newest
        if before is None or before.snapshot is not snapshot:
            number = 1 if before is None else before.number + 1
            self._newest = Publication(number, snapshot, before)
            async with self._told:
                self._told.notify_all()

    async def next_after(self, seen: int, patience_s: float) -> Publication | None:
        """The newest publication, once it is another than `seen`; None if there is none for `patience_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s), self._told:
                await self._told.wait_for(lambda: self._newest is not None and self._newest.number > seen)
                return self._newest
        return None

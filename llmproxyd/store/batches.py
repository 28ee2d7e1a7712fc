"""Writes counts into the store, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.store.counts import Counts
from llmproxyd.store.interface import Store, StoreUnavailable

WRITE = 1.0
"""Seconds between two batches of counts."""

BATCH = 1000
"""Requests after which a batch is written before its time."""

STOP = 6.0
"""Seconds to write what is left when the daemon stops."""


class Batches:
    """Has one batch written at a time, once in :data:`WRITE` seconds or :data:`BATCH` requests.

    :param counts: what is to be written.
    :param settle: completes them.
    """

    log = Logger()

    def __init__(self, store: Store, clock: IReactorTime, counts: Counts, settle: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._counts = counts
        self._settle = settle
        self._writing: Deferred[bool] | None = None
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def start(self) -> None:
        """Write from now on."""
        self._loop.start(WRITE, now=False)

    def stop(self) -> Deferred[None]:
        """Write what is left, within :data:`STOP` seconds."""
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._write_all(self._clock.seconds() + STOP))

    async def _write_all(self, end: float) -> None:
        taken = True
        self._settle()
        while taken and (self._writing is not None or not self._counts.empty):
            try:
                taken = await self.write().addTimeout(end - self._clock.seconds(), self._clock)
            except TimeoutError:
                taken = False
            self._settle()  # of requests that ended meanwhile
        if self._counts.unwritten:
            self.log.warn(
                "{count} requests could not be counted: the store does not answer",
                count=self._counts.unwritten,
            )

    def _tick(self) -> None:
        self.write()

    def write(self) -> Deferred[bool]:
        """Write a batch, unless one is being written.

        :returns: fires when it is, with whether the store took it.
        """
        if self._writing is not None:
            return self._writing
        done: Deferred[bool] = Deferred()
        self._settle()
        batch = self._counts.batch()
        if not batch:
            done.callback(True)
            return done
        self._writing = done

        def over(taken: bool) -> None:
            self._writing = None
            done.callback(taken)

        self._store.count(batch).addCallbacks(self._written, self._not_written).addCallback(over)
        return done

    def _written(self, stored: dict[str, int]) -> bool:
        self._counts.written(stored)
        return True

    def _not_written(self, failure: Failure) -> bool:
        if failure.check(ValueError):
            self.log.failure("counts that no store takes are dropped", failure)
            self._counts.drop()
            return True
        self._counts.failed()
        if not failure.check(StoreUnavailable):
            self.log.failure("counts could not be written", failure)
        return False

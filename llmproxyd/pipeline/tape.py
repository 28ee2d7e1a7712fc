"""What was recorded on its way to the folder: in memory for a moment, then written by a thread."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.cassettes.folder import Folder, name_of
from llmproxyd.cassettes.format import Exchange
from llmproxyd.cassettes.hiding import Hidden
from llmproxyd.cassettes.writing import written
from llmproxyd.observe.worker import Work
from llmproxyd.wire.wheel import Wheel

HELD = 128 * 1024 * 1024
"""Bytes of all exchanges that are under way or wait to be written; more are not recorded."""

GOODBYE = 5.0
"""Seconds for what waits to be written at the end."""


class Tape:
    """Takes exchanges; what cannot be kept is counted and said once, and harms nobody.

    :param max_files: so many recordings in the folder, those that were there included.
    :param max_body: bytes of a request's or an answer's body.
    """

    log = Logger(namespace="llmproxyd")

    def __init__(self, work: Work, hidden: Hidden, wheel: Wheel, *, max_files: int, max_body: int) -> None:
        self.max_body = max_body
        self._folder: Folder | None = None
        self._work = work
        self._hidden = hidden
        self._wheel = wheel
        self._left = max_files
        self._held = 0
        self._waiting = 0
        self._counts = {"recorded": 0, "left_out": 0, "failed": 0}
        self._said: set[str] = set()
        self._closing: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None

    def state(self) -> Mapping[str, object]:
        """For ``/health/detailed``."""
        return {**self._counts, "waiting": self._waiting}

    def open(self, folder: Folder) -> None:
        """Write to *folder* from now on."""
        self._folder = folder
        self._left -= folder.files

    def begin(self) -> int | None:
        """The number of one more exchange; ``None`` if there is no room for it."""
        if self._folder is None:
            return None
        if self._left <= 0:
            self.leave_out("the folder has as many recordings as it may (record.max_files)")
            return None
        self._left -= 1
        return self._folder.number()

    def take(self, size: int) -> bool:
        """Whether *size* bytes more may be held."""
        if self._held + size > HELD:
            return False
        self._held += size
        return True

    def forget(self, size: int, why: str | None) -> None:
        """An exchange that was begun is not recorded.

        :param why: ``None`` if there was nothing to record.
        """
        self._held -= size
        self._left += 1
        if why is not None:
            self.leave_out(why)

    def leave_out(self, why: str) -> None:
        """Count an exchange that is not recorded; say so the first time."""
        self._counts["left_out"] += 1
        if why not in self._said:
            self._said.add(why)
            self.log.warn("Not recorded: {why}", why=why)

    def keep(self, number: int, operation: str, exchange: Exchange, size: int) -> None:
        """Have *exchange* written.

        :param size: bytes of it that are held.
        """
        folder, hidden = self._folder, self._hidden
        if folder is None:
            self.forget(size, "the daemon stopped before it was over")
            return
        name = name_of(number, exchange.asked.upstream, operation, exchange.answered.status)

        def write() -> None:
            folder.write(name, written(hidden.without(exchange)))

        self._waiting += 1
        try:
            done = self._work.do(write)
        except RuntimeError:  # it is closed: what ends now is too late
            self._settle(size)
            self.forget(0, "the daemon stopped before it was over")
            return
        done.addCallbacks(self._written, self._not_written).addBoth(lambda _: self._settle(size))

    def close(self) -> Deferred[None]:
        """Write what waits; fires soon in any case."""
        if self._closing is None:
            self._work.close()
            if not self._waiting:
                self._leave()
                return succeed(None)
            self._closing = Deferred()
            self._patience = self._wheel.exactly(GOODBYE, self._closed)
        return self._closing

    def _written(self, _: object) -> None:
        self._counts["recorded"] += 1
        self._said.discard("failed")

    def _not_written(self, failure: Failure) -> None:
        self._counts["failed"] += 1
        self._left += 1
        if "failed" in self._said:
            return
        self._said.add("failed")
        if failure.check(OSError):
            why = getattr(failure.value, "strerror", None) or type(failure.value).__name__
            path = None if self._folder is None else self._folder.path
            self.log.error("Recordings cannot be written to {path}: {why}", path=path, why=why)
        else:
            self.log.failure("an exchange could not be recorded", failure)

    def _settle(self, size: int) -> None:
        self._held -= size
        self._waiting -= 1
        if self._closing is not None and not self._waiting:
            self._closed()

    def _closed(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()
        if not self._waiting:
            self._leave()  # not before: a file may still be written there
        closing = self._closing
        if closing is not None and not closing.called:
            closing.callback(None)

    def _leave(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

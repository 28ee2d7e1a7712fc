"""The thread that writes records.

Text is made, redacted and written by one worker thread behind a bounded queue, so that neither
a slow disk nor a long record holds up a request.  A disk that is full or read-only costs
records: each is counted, and the log says when that begins and when it ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from llmproxyd.observe.files import Folder

MAX_RECORDS = 1000
MAX_BYTES = 64 * 1024 * 1024
"""What may wait to be written."""

NO_PLACES: Mapping[str, Folder] = MappingProxyType({})

ADVICE = (
    "{name} is to name a folder that the daemon may write to, best by an absolute path "
    "(under systemd that of LogsDirectory=, such as /var/log/llmproxyd)"
)
"""What the log says at the start of a folder that cannot be written."""

DEADLINE = 5.0
"""Seconds that the last records have when the daemon stops."""


class Record(Protocol):
    """What a :class:`Writer` writes.  It does not change any more: another thread reads it."""

    @property
    def folder(self) -> Folder:
        """Where it goes."""

    @property
    def stem(self) -> str:
        """Its file's name without suffix."""

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits, about."""

    def render(self, name: str) -> str:
        """Its text, redacted.  :param name: its file's."""


class Writer:
    """One thread that writes records, in the order in which they were put.

    Use it from the reactor's thread.

    :param from_thread: calls a function in the reactor's thread (``reactor.callFromThread``).
    :param clock: of the reactor.
    :param max_records: so many wait at most.
    :param max_bytes: so many bytes of them.
    """

    log = Logger()

    def __init__(
        self,
        from_thread: Callable[[Callable[[], object]], object],
        clock: IReactorTime,
        *,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._from_thread = from_thread
        self._clock = clock
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        # All below is changed with that held.
        self._queue: deque[Record] = deque()
        self._bytes = 0
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._stopped: Deferred[None] | None = None
        self._late: IDelayedCall | None = None
        self._written = self._dropped = self._failed = 0
        self._told = 0
        """Of those dropped, how many the log has been told of."""
        self._dropping = False

    def start(self, places: Mapping[str, Folder] = NO_PLACES) -> None:
        """Begin to write what was put and will be.

        :param places: folders by the settings that name them; the log tells of those that cannot be written.
        """
        if self._thread is None and not self._stopping:
            # Not waited for at the end of the process: a disk may never answer.
            self._thread = threading.Thread(
                target=self._work, args=(dict(places),), name="llmproxyd-records", daemon=True
            )
            self._thread.start()

    def put(self, record: Record) -> bool:
        """Have *record* written, or dropped if too much waits.  Returns at once.

        :returns: whether it will be written.
        """
        size = record.size
        begins = False
        with self._changed:
            full = len(self._queue) >= self._max_records or self._bytes + size > self._max_bytes
            if full or self._stopping:
                self._dropped += 1
                begins = full and not self._dropping
                self._dropping = self._dropping or full
            else:
                self._queue.append(record)
                self._bytes += size
                self._changed.notify()
        if begins:
            self.log.warn(
                "Records of requests and errors come faster than they are written: some are dropped"
            )
        return not (full or self._stopping)

    def state(self) -> Mapping[str, int]:
        """``queued``, ``written``, ``dropped`` for want of room, ``failed`` to be written."""
        with self._changed:
            return {
                "queued": len(self._queue) + self._busy,
                "written": self._written,
                "dropped": self._dropped,
                "failed": self._failed,
            }

    def flush(self, timeout: float = DEADLINE) -> bool:
        """Wait until nothing waits; without a thread, write it now.  For tests: it blocks.

        :returns: whether all was written in *timeout* seconds.
        """
        if self._thread is None:
            while self._queue:
                self._write_next()
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def stop(self) -> Deferred[None]:
        """Write what waits and end; records put from now on are dropped.

        :returns: fires when that is done, after :data:`DEADLINE` seconds in any case.
        """
        if self._stopped is not None:
            return self._stopped
        self._stopped = Deferred()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is None:
            self.flush()
            self._over()
        else:
            self._late = self._clock.callLater(DEADLINE, self._over)
        return self._stopped

    def _over(self) -> None:
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        stopped = self._stopped
        if stopped is None or stopped.called:
            return
        with self._changed:
            left = len(self._queue) + self._busy
            self._queue.clear()
            dropped = self._dropped - self._told
            self._told = self._dropped
        if left:
            self.log.warn("{left} records of requests and errors could not be written in time", left=left)
        if dropped:
            self.log.warn("{dropped} records of requests and errors were dropped", dropped=dropped)
        stopped.callback(None)

    # In the thread.

    def _work(self, places: Mapping[str, Folder]) -> None:
        for name, folder in places.items():
            self._look(name, folder)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    break
            self._write_next()
        self._tell(self._over)

    def _look(self, name: str, folder: Folder) -> None:
        """Tell at the start, rather than at the first record, that *folder* cannot be written."""
        with suppress(OSError):
            if why := folder.obstacle():
                advice = ADVICE.format(name=name)
                self._fails("cannot be written", folder, f"{why}; {advice}")

    def _write_next(self) -> None:
        with self._changed:
            if not self._queue:
                return
            record = self._queue.popleft()
            self._busy = True
        written = self._write(record)
        with self._changed:
            self._busy = False
            self._bytes -= record.size
            self._written += written
            self._failed += not written
            dropped = 0
            # Not at the first place that is free: it would begin and end again and again.
            room = len(self._queue) * 2 <= self._max_records and self._bytes * 2 <= self._max_bytes
            if self._dropping and room:
                self._dropping = False
                dropped, self._told = self._dropped - self._told, self._dropped
            self._changed.notify_all()
        if dropped:
            message = "Records are written again; {dropped} were dropped"
            self._tell(partial(self.log.warn, message, dropped=dropped))

    def _write(self, record: Record) -> bool:
        folder = record.folder
        try:
            folder.write(record.stem, record.render)
        except OSError as error:
            folder.lost += 1
            # Not the error itself: its text may hold more than what is wrong with the disk.
            self._fails("cannot be written", folder, error.strerror or type(error).__name__)
            return False
        except Exception as error:
            folder.lost += 1
            self._fails("cannot be made", folder, f"{type(error).__name__} {_place(error)}")
            return False
        if folder.failing:
            lost, folder.lost, folder.failing = folder.lost, 0, False
            self._warn("are written again", folder, f"{lost} lost")
        return True

    def _fails(self, what: str, folder: Folder, why: str) -> None:
        if not folder.failing:
            folder.failing = True
            self._warn(what, folder, why)

    def _warn(self, what: str, folder: Folder, why: str) -> None:
        message = "Records in {folder} {what}: {why}"
        self._tell(partial(self.log.warn, message, folder=str(folder.path), what=what, why=why))

    def _tell(self, call: Callable[[], object]) -> None:
        """Do *call* in the reactor's thread: the log is written there."""
        if self._thread is None:
            call()
            return
        with suppress(Exception):  # the reactor may be gone
            self._from_thread(call)


def _place(error: BaseException) -> str:
    """Where *error* was raised; its own text may hold what it failed on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"

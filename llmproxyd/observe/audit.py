"""The audit log: who changed what, on the disk before it holds.

A line of JSON for each :class:`~llmproxyd.model.Change`, written and fsynced in a thread; several
that come at once share one fsync.  Whoever makes a change waits for its line, and does not make
it when there is none.  Refused authentications are gathered (:mod:`llmproxyd.observe.denials`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.config.gateway import Audit
from llmproxyd.model import Change, Denied, Event, WallClock
from llmproxyd.observe.auditfile import AuditFile, Result
from llmproxyd.observe.denials import MINUTE, Denials
from llmproxyd.observe.eventjson import time_text
from llmproxyd.observe.shielded import shielded
from llmproxyd.observe.worker import Work, Worker
from llmproxyd.redaction import Redactor

TIMEOUT = 5.0
"""Seconds within which a line is on the disk, or the change is refused."""

WAITING = 1000
"""Lines that may wait."""

GROUP = 100
"""Lines that share one fsync at most."""


class AuditUnavailable(Exception):
    """What was to be recorded could not be; the text says why."""


class NoAudit:
    """None is configured: every change is as good as recorded."""

    def record(self, change: Change) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


@dataclass(slots=True, eq=False)
class _Entry:
    """A line that waits.

    :param done: who waits for it; ``None`` for a line that nothing depends on, or nobody awaits any more.
    :param withdrawn: whoever waited was told that it is not there.
    """

    members: dict[str, Any]
    done: Deferred[None] | None = None
    timer: IDelayedCall | None = None
    withdrawn: bool = False


class AuditLog:
    """Records changes, and what the sink tells of refused clients.

    :param work: the thread that writes *file*.
    :param redactor: knows the secrets of the configuration.
    """

    log = Logger()

    def __init__(
        self, file: AuditFile, work: Work, clock: IReactorTime, wall: WallClock, redactor: Redactor
    ) -> None:
        self._file = file
        self._work = work
        self._clock = clock
        self._wall = wall
        self._redactor = redactor
        self._waiting: deque[_Entry] = deque()
        self._writing = False
        self._denials = Denials()
        self._minute: IDelayedCall | None = None
        self._written = self._failed = 0
        self._why: str | None = None
        self._stuck: str | None = None
        self._stopped: Deferred[None] | None = None
        self._late: IDelayedCall | None = None

    def start(self) -> Deferred[None]:
        """Open the file, to know early whether it can be written.

        :returns: fails with :exc:`AuditUnavailable` if it cannot be written; it is tried again
            for each change.
        """
        return self._work.do(self._file.open).addCallbacks(lambda _: None, _unavailable)

    def __call__(self, event: Event) -> None:
        """Take *event* from the sink."""
        if type(event) is Denied and self._denials.add(event, self._wall()) and self._stopped is None:
            self._minute = self._clock.callLater(MINUTE, self._gathered)

    def record(self, change: Change) -> Deferred[None]:
        """Put *change* on record.

        :returns: fires when its line is on the disk; fails with :exc:`AuditUnavailable` when it cannot
            be, after :data:`TIMEOUT` seconds in any case.
        """
        if self._stopped is not None:
            return fail(AuditUnavailable("the daemon stops"))
        if len(self._waiting) >= WAITING:
            return fail(AuditUnavailable("too much waits to be recorded"))
        entry = _Entry(self._members(change))
        entry.done = Deferred(lambda _: self._withdraw(entry))
        entry.timer = self._clock.callLater(TIMEOUT, self._expire, entry)
        done = entry.done
        self._put(entry)
        return done

    def state(self) -> dict[str, int]:
        """How many lines wait, were ``written``, ``failed`` to be."""
        return {"queued": len(self._waiting), "written": self._written, "failed": self._failed}

    def stop(self) -> Deferred[None]:
        """Write what waits; what is recorded from now on fails.

        :returns: fires when that is done, after :data:`TIMEOUT` seconds in any case.
        """
        if self._stopped is None:
            if self._minute is not None and self._minute.active():
                self._minute.cancel()
            self._gathered()
            self._stopped = Deferred()
            self._late = self._clock.callLater(TIMEOUT, self._over)
            if not self._writing and not self._waiting:
                self._over()
        return self._stopped

    # Lines.

    def _members(self, change: Change) -> dict[str, Any]:
        clean = partial(shielded, redactor=self._redactor)
        return {
            "ts": time_text(self._wall()),
            "event": "change",
            "who": clean(change.who),
            "address": clean(change.address),
            "action": clean(change.action),
            "target": clean(change.target),
            "outcome": clean(change.outcome),
            "before": clean(change.before),
            "after": clean(change.after),
            "detail": clean(change.detail),
        }

    def _gathered(self) -> None:
        """Record the refusals of the last minute."""
        self._minute = None
        for members in self._denials.taken():
            if len(self._waiting) >= WAITING:
                self._failed += 1
                continue
            head = {"ts": time_text(self._wall()), "event": "denied", "action": "authenticate"}
            self._put(_Entry({**head, "outcome": "refused", **members}))

    def _put(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._go_on()

    def _expire(self, entry: _Entry) -> None:
        done = entry.done
        self._withdraw(entry)
        if done is not None:
            done.errback(AuditUnavailable(f"the disk did not answer within {TIMEOUT:g} s"))

    def _withdraw(self, entry: _Entry) -> None:
        """Nobody waits for *entry* any more: what it tells of is not done."""
        entry.done, entry.withdrawn = None, True
        if entry.timer is not None and entry.timer.active():
            entry.timer.cancel()
        if entry in self._waiting:
            self._waiting.remove(entry)
            self._failed += 1

    # To the disk.

    def _go_on(self) -> None:
        over = self._stopped is not None and self._stopped.called
        if self._writing or not self._waiting or over:
            return
        self._writing = True
        entries = [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))]
        writing = self._work.do(partial(self._file.write, [entry.members for entry in entries]))
        writing.addErrback(_crashed).addCallback(self._wrote, entries)

    def _wrote(self, result: Result, entries: Sequence[_Entry]) -> None:
        written = result.written
        self._writing = False
        self._written += written
        self._failed += len(entries) - written
        self._look(result)
        for seq, entry in enumerate(entries[:written], result.first):
            if entry.withdrawn:
                self._take_back(entry, seq)
        for place, entry in enumerate(entries):
            done, entry.done = entry.done, None
            if done is None:
                continue
            if entry.timer is not None and entry.timer.active():
                entry.timer.cancel()
            if place < written:
                done.callback(None)
            else:
                done.errback(AuditUnavailable(result.why))
        self._go_on()
        if self._stopped is not None and not self._writing:
            self._over()

    def _take_back(self, entry: _Entry, seq: int) -> None:
        """Say that what *entry* tells of did not happen: its line came too late."""
        members = entry.members | {
            "ts": time_text(self._wall()),
            "outcome": "refused",
            "before": None,
            "after": None,
            "detail": f"seq {seq} was written too late and does not hold",
        }
        self._waiting.append(_Entry(members))

    def _look(self, result: Result) -> None:
        """Tell once when it begins to fail, and when it works again."""
        file, why = str(self._file.path), result.why
        if why is not None and self._why is None:
            self.log.error("The audit log {file} cannot be written: {why}", file=file, why=why)
        elif why is None and self._why is not None:
            self.log.warn("The audit log {file} is written again", file=file)
        if result.stuck is not None and self._stuck is None:
            message = "The audit log {file} cannot be rotated and grows on: {why}"
            self.log.warn(message, file=file, why=result.stuck)
        self._why, self._stuck = why, result.stuck

    def _over(self) -> None:
        if self._late is not None and self._late.active():
            self._late.cancel()
        stopped = self._stopped
        if stopped is None or stopped.called:
            return
        if self._waiting or self._writing:
            self.log.error("The audit log could not be written in time")
        self._work.do(self._file.close)
        self._work.close()
        stopped.callback(None)


def audit_of(settings: Audit, reactor: Any, wall: WallClock, redactor: Redactor) -> AuditLog | NoAudit:
    """The audit log that *settings* ask for; nothing is opened as yet."""
    if settings.file is None:
        return NoAudit()
    work = Worker("audit", reactor.callFromThread)
    return AuditLog(AuditFile(settings.file), work, reactor, wall, redactor)


def _unavailable(failure: Failure) -> None:
    error = failure.value
    told = error.strerror if isinstance(error, OSError) else None
    raise AuditUnavailable(told or type(error).__name__)


def _crashed(failure: Failure) -> Result:
    """A fault of ours; its text may hold what it failed on."""
    return Result(0, 0, type(failure.value).__name__)

"""To an audit logger and an event bus of somebody else's, which may fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.library.bounded import bounded
from llmproxyd.model import Denied, Event, WallClock
from llmproxyd.observe.eventjson import time_text

WAITING = 1000
"""Calls that may be under way at a time; what comes beyond is dropped and counted."""

TIMEOUT = 30.0
"""Seconds after which one is given up."""


class Outlet:
    """Calls somebody else's function, and counts what becomes of it.

    :param name: of the outlet, for the log.
    :ivar failures: calls that failed or took too long.
    :ivar dropped: calls that were not made, as too many others were under way.
    """

    def __init__(
        self, name: str, call: Callable[[Mapping[str, Any]], Any], clock: IReactorTime, logger: Logger
    ) -> None:
        self._name = name
        self._call = call
        self._clock = clock
        self._log = logger
        self._waiting = 0
        self.failures = self.dropped = 0

    def put(self, entry: Mapping[str, Any]) -> None:
        """Hand *entry* on."""
        if self._waiting >= WAITING:
            self.dropped += 1
            return
        self._waiting += 1
        calling: Deferred[Any] = bounded(maybeDeferred(self._call, entry), TIMEOUT, self._clock)
        calling.addErrback(self._failed).addBoth(self._done)

    def _failed(self, failure: Failure) -> None:
        self.failures += 1
        if self.failures == 1:
            self._log.failure("{name} failed; further failures are only counted", failure, name=self._name)

    def _done(self, _: object) -> None:
        self._waiting -= 1


class Denials:
    """Tells an outlet of clients that were refused at the door.  A subscriber of the sink."""

    def __init__(self, outlet: Outlet, wall: WallClock) -> None:
        self._outlet = outlet
        self._wall = wall

    def __call__(self, event: Event) -> None:
        if isinstance(event, Denied):
            self._outlet.put(
                {
                    "ts": time_text(self._wall()),
                    "event": "denied",
                    "action": "authenticate",
                    "outcome": "refused",
                    "address": event.address,
                    "code": event.code,
                    "shown": event.shown,
                }
            )

"""A shorter way from the operating system's events to a connection.

Twisted's epoll reactor gives each event a logging context (whose name nobody here prints) and
looks at it from all sides.  For a stream of small events that is a tenth of all its cost.
Used of :class:`twisted.internet.epollreactor.EPollReactor`: ``_poller``, ``_selectables``,
``_doReadOrWrite``, ``_disconnectSelectable``.  Any other reactor serves as it is.
"""

from __future__ import annotations

import select
import sys
from typing import Any

from twisted.logger import Logger

EPOLLIN: int = getattr(select, "EPOLLIN", 0)  # there is no epoll on every operating system

log = Logger()


def shorten(reactor: Any) -> None:
    """Let *reactor*, if it is Twisted's epoll reactor, take the shorter way from now on."""
    kind = type(reactor)
    if (kind.__module__, kind.__name__) == ("twisted.internet.epollreactor", "EPollReactor"):
        reactor.doIteration = _Poll(reactor)


class _Poll:
    """What waits for events and tells them."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._poll = reactor._poller.poll
        self._selectables: dict[int, Any] = reactor._selectables

    def __call__(self, timeout: float | None) -> None:
        selectables = self._selectables
        for descriptor, event in self._poll(-1 if timeout is None else timeout, len(selectables) or -1):
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if event != EPOLLIN:
                self._reactor._doReadOrWrite(selectable, descriptor, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException:
                why = sys.exc_info()[1]
                log.failure("a connection is closed, because what it received could not be handled")
            if why:
                self._reactor._disconnectSelectable(selectable, why, True)

"""Answers onto the wire, at the pace that was set and no faster than the client reads."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

from llmproxyd.config.schema import SandboxSettings
from llmproxyd.sandbox.values import Answer, Event, Stream


def send(request: Request, answer: Answer, settings: SandboxSettings, clock: IReactorTime) -> None:
    """Write *answer*, whose head is set already, to *request* and finish it."""
    if isinstance(answer, Stream):
        Writer(request, answer.events, settings, clock).start()
        return
    request.setHeader(b"content-length", b"%d" % len(answer.body))
    events = iter((Event(answer.body, token=answer.inference),))
    Writer(request, events, SandboxSettings(first_token=settings.first_token), clock).start()


TICK = 1e-6
"""Seconds that count as none: sums of gaps are not exact."""


@implementer(IPushProducer)
class Writer:
    """Writes one event at a time, each in a turn of the reactor of its own.

    Events are taken from their iterator only when they are due, so what is held is one event
    beside the transport's buffer; a client that does not read pauses the writer, and one that
    leaves ends it.
    """

    def __init__(
        self, request: Request, events: Iterator[Event], settings: SandboxSettings, clock: IReactorTime
    ) -> None:
        self._request = request
        self._events = events
        self._clock = clock
        rate = settings.tokens_per_second
        self._gap = 1 / rate if rate else 0.0
        self._due = clock.seconds() + settings.first_token
        """When the next token may be written, seconds on the clock."""
        self._next: Event | None = None
        self._timer: IDelayedCall | None = None
        self._paused = False
        self._over = False

    def start(self) -> None:
        """Write the first event that is due."""
        self._request.notifyFinish().addErrback(self._gone)
        self._request.registerProducer(self, True)
        self._turn()

    def _turn(self) -> None:
        """Write the next event if it is due, else come back when it is."""
        self._timer = None
        if self._paused or self._over:
            return
        if self._next is None:
            self._next = next(self._events, None)
        event = self._next
        if event is None:
            self._finish()
            return
        wait = self._due - self._clock.seconds() if event.token else 0.0
        if wait <= TICK:
            self._next = None
            if event.token:
                # From when it was due, not from now: the pace holds on average.
                self._due = max(self._due, self._clock.seconds() - self._gap) + self._gap
            self._request.write(event.data)
            wait = 0.0
        if not self._paused and not self._over:
            self._timer = self._clock.callLater(wait, self._turn)

    def _finish(self) -> None:
        self._over = True
        self._request.unregisterProducer()
        self._request.finish()

    def _gone(self, _reason: Failure) -> None:
        self.stopProducing()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resumeProducing(self) -> None:
        """The client has read."""
        if self._paused and not self._over:
            self._paused = False
            # Not at once: a transport may call this from within a write.
            self._timer = self._clock.callLater(0, self._turn)

    def stopProducing(self) -> None:
        """The client is gone."""
        self._over = True
        self.pauseProducing()
        self._next = None
        self._events = iter(())

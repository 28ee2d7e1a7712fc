"""Where events go.  A sink may fail; a request never does because of it."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from llmproxyd.model import Event

Subscriber = Callable[[Event], None]


class Sink:
    """Hands each event to every subscriber, in order.

    :ivar failures: how many deliveries have failed so far.
    :ivar announcing: whether anybody wants :class:`~llmproxyd.model.Arrived` events.
    """

    log = Logger()

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self.failures = 0
        self.announcing = False

    def subscribe(self, subscriber: Subscriber, *, arrivals: bool = True) -> None:
        """Let *subscriber* see every event from now on.  It must not block.

        :param arrivals: whether it wants to know of requests that have only arrived as yet.
        """
        self._subscribers.append(subscriber)
        self.announcing = self.announcing or arrivals

    def emit(self, event: Event) -> None:
        """Tell everyone; a subscriber that raises is counted and told once."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                self.failures += 1
                if self.failures == 1:
                    self.log.failure("an event could not be recorded; further ones are only counted")

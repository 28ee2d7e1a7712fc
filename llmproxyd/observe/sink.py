"""Where events go.  A sink may fail; a request never does because of it.

A subscriber that is told of each finished request by itself costs every request a call.  Those that
are read now and then, or write in batches anyway, take them several at a time: they are :class:`Batched`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from twisted.logger import Logger

from llmproxyd.model import Event, Finished

Subscriber = Callable[[Event], None]

BATCH = 64
"""Finished requests that wait at most: what is done for them at once takes less than one request does."""


class Batched:
    """A subscriber that takes finished requests in batches, and other events as they come.

    The order of all events stays what it was.  It is called with a single finished request as well.
    """

    _sink: Sink | None = None

    def __call__(self, event: Event) -> None:
        """Take *event*."""
        raise NotImplementedError

    def finished(self, events: Iterator[Finished]) -> None:
        """Take *events*.  Where one of them makes it raise, it is called again with those behind it."""
        raise NotImplementedError

    def waiting(self) -> None:
        """The first request of a batch waits: to be overridden by whoever must have it before long."""

    def settle(self) -> None:
        """Take what waits: to be called before anything is told of what was taken."""
        if self._sink is not None:
            self._sink.settle()


class Sink:
    """Hands each event to every subscriber, in order.

    :ivar failures: how many deliveries have failed so far.
    :ivar announcing: whether anybody wants :class:`~llmproxyd.model.Arrived` events.
    """

    log = Logger()

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()
        self._prompt: tuple[Subscriber, ...] = ()
        self._batched: tuple[Batched, ...] = ()
        self._waiting: list[Finished] = []
        self.failures = 0
        self.announcing = False

    def subscribe(self, subscriber: Subscriber, *, arrivals: bool = True) -> None:
        """Let *subscriber* see every event from now on.  It must not block.

        :param arrivals: whether it wants to know of requests that have only arrived as yet.
        """
        self.settle()
        self._subscribers += (subscriber,)
        if isinstance(subscriber, Batched):
            self._batched += (subscriber,)
            subscriber._sink = self
        else:
            self._prompt += (subscriber,)
        self.announcing = self.announcing or arrivals

    def emit(self, event: Event) -> None:
        """Tell everyone; a subscriber that raises is counted and told once."""
        if type(event) is not Finished:
            self.settle()
            self._tell(self._subscribers, event)
            return
        waiting = self._waiting
        waiting.append(event)
        if self._prompt:
            self._tell(self._prompt, event)
        number = len(waiting)
        if number == 1:
            self._first()
        elif number >= BATCH:
            self.settle()

    def settle(self) -> None:
        """Hand over the finished requests that wait."""
        if not self._waiting:
            return
        events, self._waiting = self._waiting, []
        for subscriber in self._batched:
            left = iter(events)
            for _ in events:  # as often as it may fail
                try:
                    subscriber.finished(left)
                    break
                except Exception:
                    self._failed()

    def _first(self) -> None:
        for subscriber in self._batched:
            try:
                subscriber.waiting()
            except Exception:
                self._failed()

    def _tell(self, subscribers: Iterable[Subscriber], event: Event) -> None:
        for subscriber in subscribers:
            try:
                subscriber(event)
            except Exception:
                self._failed()

    def _failed(self) -> None:
        self.failures += 1
        if self.failures == 1:
            self.log.failure("an event could not be recorded; further ones are only counted")

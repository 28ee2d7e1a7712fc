"""The bus: each finished request, to whoever wants to know outside of this process, or within it.

It is a subscriber of the sink.  What it hands on is bounded everywhere: every dispatcher has
a queue of its own, and a subscriber that raises is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from llmproxyd.model import Event, Finished, WallClock
from llmproxyd.observe.dispatch.dispatcher import Dispatcher, stopped_all
from llmproxyd.observe.eventjson import EventFormat, Told

Subscriber = Callable[[Mapping[str, Any]], object]
"""Takes one event as the JSON object that docs/events.rst describes.  It must not block."""


class Bus:
    """Events in memory.

    :param prefix: what the ids of this process's events begin with; no other process has it.
    """

    log = Logger()

    def __init__(
        self, form: EventFormat, wall: WallClock, prefix: str, dispatchers: Sequence[Dispatcher] = ()
    ) -> None:
        self._form = form
        self._wall = wall
        self._prefix = prefix
        self._dispatchers = tuple(dispatchers)
        self._subscribers: tuple[Subscriber, ...] = ()
        self._published = 0
        self.failures = 0
        """Deliveries to subscribers that raised."""

    def __call__(self, event: Event) -> None:
        """Take *event* from the sink."""
        if type(event) is Finished:
            self.publish(event)

    def publish(self, finished: Finished) -> None:
        """Hand *finished* on.  Returns at once; nothing is written or sent here."""
        self._published += 1
        told = Told(f"{self._prefix}-{self._published}", self._wall(), finished)
        for dispatcher in self._dispatchers:
            dispatcher.put(told)
        if self._subscribers:
            self._tell(told)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Let *subscriber* have every event from now on.

        :returns: ends that.
        """
        self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            left = list(self._subscribers)
            with suppress(ValueError):
                left.remove(subscriber)
            self._subscribers = tuple(left)

        return unsubscribe

    @property
    def wanted(self) -> bool:
        """Whether anybody gets anything."""
        return bool(self._dispatchers or self._subscribers)

    def state(self) -> Mapping[str, Mapping[str, int]]:
        """Counts by dispatcher: ``queued``, ``delivered``, ``dropped``, ``failures``."""
        told: dict[str, Mapping[str, int]] = {}
        for number, dispatcher in enumerate(self._dispatchers, 1):
            # Two may go to one place, such as two webhooks of one server.
            name = f"{dispatcher.name} ({number})" if dispatcher.name in told else dispatcher.name
            told[name] = dispatcher.state()
        return told

    @property
    def dropped(self) -> int:
        """Events that some dispatcher could not deliver."""
        return sum(dispatcher.dropped for dispatcher in self._dispatchers)

    def stop(self) -> Deferred[None]:
        """Deliver what waits; fires within a few seconds in any case."""
        return stopped_all(self._dispatchers)

    def _tell(self, told: Told) -> None:
        members = self._form.members(told)
        for subscriber in self._subscribers:
            try:
                subscriber(members)
            except Exception:
                self.failures += 1
                if self.failures == 1:
                    self.log.failure("a subscriber of events failed; further failures are only counted")

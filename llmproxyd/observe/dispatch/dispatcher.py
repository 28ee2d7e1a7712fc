"""A bounded queue before one destination, and what empties it.

A destination that is slow or gone fills its own queue and nobody else's.  What does not fit is
dropped and counted; the log says when that begins and when it is over.  A batch stays at the head
of the queue until it is delivered, so events arrive in order, at least once each: one whose
answer was lost comes again, with the same id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.observe.dispatch.destination import Destination, Undelivered
from llmproxyd.observe.eventjson import Told

LIMIT = 1000
"""Events that may wait."""

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of them: those that carry bodies are large."""

BATCH_BYTES = 1024 * 1024
"""Bytes of one batch, about."""

FLUSH = 5.0
"""Seconds that the last events have when the daemon stops."""

FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
"""Seconds between one attempt and the next; each wait is twice the one before, less up to a half."""

ATTEMPTS = 10
"""How often a batch is sent to somebody who answers, but does not take it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How events are gathered.

    :param batch: events in one go at most.
    :param every: seconds that one waits for others at most.
    :param limit: events that may wait.
    :param batch_bytes: of those, about.
    :param max_bytes: of those that may wait.
    """

    batch: int = 100
    every: float = 1.0
    batch_bytes: int = BATCH_BYTES
    limit: int = LIMIT
    max_bytes: int = MAX_BYTES


class Dispatcher:
    """Brings events to *destination*.

    :param draw: a number from 0 to 1, for the waits between attempts.
    """

    log = Logger()

    def __init__(
        self, destination: Destination, pace: Pace, clock: IReactorTime, draw: Callable[[], float]
    ) -> None:
        self.name = destination.name
        self._destination = destination
        self._pace = pace
        self._clock = clock
        self._draw = draw
        self._queue: deque[Told] = deque()
        self._bytes = 0
        self._timer: IDelayedCall | None = None
        """Runs until the next batch is due, or tried again."""
        self._sending: Deferred[None] | None = None
        self._taken = 0
        """Events at the head of the queue that are under way."""
        self._attempt = self._refusals = 0
        """Of the batch at the head: attempts that failed, and those of them that were answered."""
        self._delivered = self._dropped = self._failures = 0
        self._told = 0
        """Of those dropped, how many the log was told of."""
        self._why: str | None = None
        """What is wrong, once the log was told of it."""
        self._dropping = False
        """The log was told that some are dropped."""
        self._ended = False
        self._stopped: Deferred[None] | None = None
        self._late: IDelayedCall | None = None

    def put(self, told: Told) -> None:
        """Have *told* delivered, or dropped if too much waits."""
        queue, pace = self._queue, self._pace
        full = len(queue) >= pace.limit or (queue and self._bytes + told.size > pace.max_bytes)
        if full or self._stopped is not None:
            self._drop(1)
            return
        queue.append(told)
        self._bytes += told.size
        if self._sending is not None or self._attempt:
            return
        if len(queue) >= pace.batch:
            self._send()
        elif self._timer is None:
            self._timer = self._clock.callLater(pace.every, self._send)

    def state(self) -> Mapping[str, int]:
        """``queued``, ``delivered``, ``dropped``, and ``failures``: attempts that failed."""
        return {
            "queued": len(self._queue),
            "delivered": self._delivered,
            "dropped": self._dropped,
            "failures": self._failures,
        }

    @property
    def dropped(self) -> int:
        """Events that did not arrive and will not."""
        return self._dropped

    def stop(self) -> Deferred[None]:
        """Deliver what waits and let go; events put from now on are dropped.

        :returns: fires when that is done, after :data:`FLUSH` seconds in any case.
        """
        if self._stopped is not None:
            return self._stopped
        self._stopped = Deferred()
        self._late = self._clock.callLater(FLUSH, self._too_late)
        if self._sending is None:
            self._send()
        return self._stopped

    # A batch.

    def _send(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if not self._queue:
            if self._stopped is not None:
                self._over()
            return
        batch = self._batch()
        self._taken = len(batch)
        self._sending = maybeDeferred(self._destination.deliver, batch)
        self._sending.addCallbacks(self._arrived, self._failed)

    def _batch(self) -> list[Told]:
        batch: list[Told] = []
        size = 0
        for told in islice(self._queue, self._pace.batch):
            if batch and size + told.size > self._pace.batch_bytes:
                break
            batch.append(told)
            size += told.size
        return batch

    def _arrived(self, _: None) -> None:
        if self._ended:
            return
        self._sending = None
        self._delivered += self._taken
        self._take(self._taken)
        self._attempt = self._refusals = 0
        self._recovered()
        self._next()

    def _failed(self, failure: Failure) -> None:
        if self._ended:
            return
        self._sending = None
        self._failures += 1
        error = failure.value
        if not isinstance(error, Undelivered):
            # A fault of ours: its text may hold what it failed on.
            error = Undelivered(type(error).__name__, answered=True)
        if error.done:
            self._delivered += error.done
            self._take(error.done)
            self._taken -= error.done
            self._attempt = self._refusals = 0
        self._attempt += 1
        self._refusals += error.answered
        if error.final or self._refusals >= ATTEMPTS:
            self._why = error.why
            self._take(self._taken)
            self._drop(self._taken)
            self._attempt = self._refusals = 0
            self._next()
            return
        if self._attempt > 1:
            # The first may be a connection that was closed while nobody used it.
            self._troubled(error.why)
        wait = min(FIRST_WAIT * 2 ** min(self._attempt - 1, 20), LONGEST_WAIT)
        wait *= 1 - self._draw() / 2
        self._timer = self._clock.callLater(max(wait, error.after or 0.0), self._send)

    def _take(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= self._queue.popleft().size

    def _next(self) -> None:
        """Go on with what has come meanwhile."""
        if self._stopped is not None or len(self._queue) >= self._pace.batch:
            # Not at once: a destination that never waits would never let go of the reactor.
            self._timer = self._clock.callLater(0, self._send)
        elif self._queue:
            self._timer = self._clock.callLater(self._pace.every, self._send)

    # What the log says.

    def _drop(self, count: int) -> None:
        self._dropped += count
        if not self._dropping and self._stopped is None:
            self._dropping = True
            why = self._why or "they come faster than they are taken"
            self.log.warn("Events to {name} are dropped: {why}", name=self.name, why=why)

    def _troubled(self, why: str) -> None:
        if self._why is None:
            self._why = why
            self.log.warn("Events to {name} have to wait: {why}", name=self.name, why=why)

    def _recovered(self) -> None:
        # Not while many wait: it would begin and end again and again.
        if (self._why is None and not self._dropping) or len(self._queue) * 2 > self._pace.limit:
            return
        self._why, self._dropping = None, False
        dropped, self._told = self._dropped - self._told, self._dropped
        message = "Events to {name} are delivered again; {dropped} were dropped"
        self.log.warn(message, name=self.name, dropped=dropped)

    # The end.

    def _too_late(self) -> None:
        """The time is up: what is under way is cancelled, what waits is dropped."""
        self._dropped += len(self._queue)
        self._queue.clear()
        self._bytes = 0
        self._ended = True
        if self._sending is not None:
            self._sending.cancel()
        self._over()

    def _over(self) -> None:
        self._ended = True
        for call in (self._timer, self._late):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._late = None
        if self._dropped > self._told:
            dropped, self._told = self._dropped - self._told, self._dropped
            self.log.warn("{dropped} events to {name} were dropped", name=self.name, dropped=dropped)
        stopped = self._stopped
        assert stopped is not None
        closing = maybeDeferred(self._destination.close)
        closing.addErrback(lambda _: None).addCallback(lambda _: stopped.callback(None))


def stopped_all(dispatchers: Sequence[Dispatcher]) -> Deferred[None]:
    """Stop all of *dispatchers* at the same time."""
    if not dispatchers:
        return succeed(None)
    left = [len(dispatchers)]
    done: Deferred[None] = Deferred()

    def one(_: object) -> None:
        left[0] -= 1
        if not left[0]:
            done.callback(None)

    for dispatcher in dispatchers:
        dispatcher.stop().addBoth(one)
    return done

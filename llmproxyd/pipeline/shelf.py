"""The cache of all requests: its backend, who waits for whom, and how it did.

Of equal requests that are under way at once one goes upstream (it *leads*); the others wait for
the entry that it brings, never for its stream.  Nobody waits more than once: whom it brings
nothing goes its own way.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxyd.cache.interface import Cache, Entry, Purge
from llmproxyd.http.body import Kept
from llmproxyd.model import WallClock
from llmproxyd.pipeline.exchange import Exchange

TOKENS = 10_000
"""Tokens whose results are counted apart; of more, those that were not seen for longest are forgotten."""

TOGETHER = 64
"""Results that are counted at once, at most."""

GATHERED = 32
"""So many of the largest answers may be gathered at once to be kept; what is beyond that is not kept."""

RESULTS = ("hit", "miss", "bypass", "stale", "revalidation", "store")
"""What is counted: what the cache did for each request, and what it kept."""


class Leader(Protocol):
    """Whoever others wait for."""

    def deserted(self) -> None:
        """Nobody waits any more."""


class Asking(Protocol):
    """Whoever brings an answer that may be kept."""

    def changed(self, url: bytes, tenant: str) -> None:
        """What *url* stands for has changed since it was asked for."""

    def purged(self, what: Purge) -> None:
        """*what* says what is not to be kept of all that was asked for until now."""


class Waiter(Protocol):
    """Whoever waits for a leader."""

    def resume(self, entry: Entry | None, *, failed: bool) -> None:
        """Go on.

        :param entry: what the leader brought, if that may be of use to others.
        :param failed: the leader could not be answered by its upstream.
        """


@dataclass(slots=True)
class Flight:
    """One request under way for a key, and who waits for what it brings."""

    leader: Leader
    waiting: list[Waiter] = field(default_factory=list)


class Shelf:
    """The cache of all requests.

    :param seconds: monotonic.
    :param again: asks the upstream behind the back of a client that was answered from an entry; it is
        given the exchange, the entry, and the body where that belongs to the key.
    :param failed: takes what nothing here accounts for.
    :ivar flights: by key.
    :ivar asking: all whose answer may be kept, whether others wait for it or not.
    :ivar gathered: bytes of answers that are on their way and may be kept.
    """

    def __init__(
        self,
        cache: Cache,
        wall: WallClock,
        seconds: Callable[[], float],
        again: Callable[[Exchange, Entry, Kept | None], None],
        failed: Callable[[Failure, Exchange], None],
    ) -> None:
        self.cache = cache
        self.wall = wall
        self.seconds = seconds
        self.again = again
        self.failed = failed
        self.flights: dict[bytes, Flight] = {}
        self.asking: set[Asking] = set()
        self.gathered = 0
        self._counts = dict.fromkeys(RESULTS, 0)
        self._noted: list[tuple[str, str | None]] = []
        self._by_token: OrderedDict[str, dict[str, int]] = OrderedDict()

    # Who waits for whom.

    def lead(self, key: bytes, leader: Leader) -> bool:
        """Let others wait for *leader* from now on, unless there is one already."""
        if key in self.flights:
            return False
        self.flights[key] = Flight(leader)
        return True

    def wait(self, key: bytes, waiter: Waiter) -> bool:
        """Wait for the leader, if there is one."""
        flight = self.flights.get(key)
        if flight is None:
            return False
        flight.waiting.append(waiter)
        return True

    def awaited(self, key: bytes) -> bool:
        """Whether anybody waits."""
        flight = self.flights.get(key)
        return flight is not None and bool(flight.waiting)

    def leave(self, key: bytes, waiter: Waiter) -> None:
        """*waiter* waits no longer."""
        flight = self.flights.get(key)
        if flight is not None and waiter in flight.waiting:
            flight.waiting.remove(waiter)
            if not flight.waiting:
                flight.leader.deserted()

    def land(self, key: bytes, entry: Entry | None = None, *, failed: bool = False) -> None:
        """The leader has what it has: let those go on who waited."""
        flight = self.flights.pop(key, None)
        if flight is not None:
            for one in flight.waiting:
                one.resume(entry, failed=failed)

    # What was stored holds no more.

    def invalidate(self, url: bytes, tenant: str) -> None:
        """Forget GET and HEAD entries of *url*, those too that are on their way."""
        self.cache.invalidate(url, tenant)
        for one in list(self.asking):
            one.changed(url, tenant)

    def purge(self, what: Purge) -> Deferred[int]:
        """Forget what *what* says, and what is on its way of it; how many entries there were."""
        for one in list(self.asking):
            one.purged(what)
        return self.cache.purge(what)

    # How it did.

    def count(self, result: str, exchange: Exchange) -> None:
        """Note one of :data:`RESULTS`."""
        granted, noted = exchange.grant, self._noted
        noted.append((result, None if granted is None else granted.token))
        if len(noted) >= TOGETHER:
            self._count()

    def _count(self) -> None:
        """Count what was noted."""
        by_token = self._by_token
        # In the order in which each was seen last.
        for (result, token), number in reversed(Counter(reversed(self._noted)).items()):
            self._counts[result] += number
            if token is None:
                continue
            known = by_token.get(token)
            if known is None:
                if len(by_token) >= TOKENS:
                    by_token.popitem(last=False)
                known = by_token[token] = {}
            else:
                by_token.move_to_end(token)
            known[result] = known.get(result, 0) + number
        self._noted.clear()

    def stats(self) -> Mapping[str, object]:
        """What the backend tells, and how often it was of use: in all and by token."""
        self._count()
        tokens = {name: dict(counts) for name, counts in self._by_token.items()}
        return {**self.cache.stats(), **self._counts, "in_flight": len(self.flights), "tokens": tokens}

"""Who stands at the door: remembers what the store said of a token, and counts.

What is remembered of a token is good for :data:`LIFETIME` seconds; before they are over it is
asked for again while requests go on.  The sequence of changes tells at once what is good no more.
While the store is down, what is remembered stays good until :data:`LIFETIME` seconds have gone
since the sequence was last read, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hmac import compare_digest
from math import inf
from typing import TypeGuard

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.access.presented import CHALLENGE
from llmproxyd.access.projects import Grant, Project, Token, check
from llmproxyd.access.tokens import digest_of
from llmproxyd.errors import Refused
from llmproxyd.store.batches import BATCH, Batches
from llmproxyd.store.counts import Counts
from llmproxyd.store.interface import Changes, Store, StoreUnavailable
from llmproxyd.store.remembered import LIFETIME, MAX_ENTRIES, Entry, Remembered, is_of

MAX_LOOKUPS = 400
"""Tokens that the store is asked for at a time."""

POLL = 0.5
"""Seconds between two looks at the sequence of changes."""

TRIES = 10
"""Times to ask again because something changed while the store answered."""

MAX_TOKEN = 1024
"""Characters of a token."""


class Doorkeeper:
    """A :class:`~llmproxyd.store.interface.Door` before a store.

    :param store: open.
    :param clock: monotonic.
    :param wall: seconds since the epoch, which may jump.
    :ivar enforce_active: refuse the tokens of projects that are not active.
    :ivar settle: has it told what was used and is not told yet, before that is written.
    """

    log = Logger()

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        wall: Callable[[], float],
        *,
        enforce_active: bool = True,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self.enforce_active = enforce_active
        self.settle: Callable[[], None] = lambda: None
        self._store = store
        self._clock = clock
        self._seconds = clock.seconds
        self._wall = wall
        self._remembered = Remembered(max_entries)
        self._entries = self._remembered.entries
        self._lookups: dict[bytes, list[Deferred[Grant]]] = {}
        self._generation = 0
        """Counts the changes: an answer that was asked for before one may be outdated."""
        self._counts = Counts()
        self._batches = Batches(store, clock, self._counts, lambda: self.settle())
        self._last_change = 0
        self._verified = -inf
        """When the sequence of changes was last read."""
        self._answered = self._down = self._stopped = False
        self._polling: Deferred[None] | None = None
        self._next_poll: IDelayedCall | None = None

    # What the pipeline asks.

    def admit(self, token: str) -> Grant | Deferred[Grant]:
        digest = digest_of(token)
        entry = self._entries.get(digest)
        if entry is not None and self._seconds() < entry.renew_at and compare_digest(entry.digest, digest):
            return self._take(entry)
        if len(token) > MAX_TOKEN:
            raise _not_found()
        return self._look_closer(digest, entry)

    def again(self, grant: Grant) -> bool:
        entry = self._entries.get(grant.token.digest)
        if entry is None or entry.grant is not grant or self._seconds() >= entry.renew_at:
            return False
        self._take(entry)
        return True

    def returned(self, grant: Grant) -> None:
        token = grant.token
        count = self._counts.of(token.id, token.project, token.requests)
        count.known -= 1
        count.fresh -= 1
        self._counts.dirty[token.id] = count

    def used(self, grant: Grant, model: str, input: int, output: int, cost: float, requests: int = 1) -> None:
        token = grant.token
        entry = self._entries.get(token.digest)
        if entry is not None and entry.grant is grant:
            count = entry.count
        else:
            count = self._counts.of(token.id, token.project, token.requests)
        if not count.last_used:
            count.last_used = self._wall()
        self._counts.used(count, model, input, output, cost, requests)

    @property
    def ready(self) -> bool:
        return self._answered and not self._down and not self._stopped

    # What the daemon asks.

    def start(self) -> Deferred[None]:
        """Begin to follow changes and to write counts.

        :returns: fires when the changes were first looked at, in vain or not.
        """
        self._batches.start()
        looked: Deferred[None] = Deferred()
        self._poll().addBoth(lambda _: looked.callback(None))
        return looked

    def stop(self) -> Deferred[None]:
        """Write what was counted, within :data:`STOP` seconds; nobody is admitted any more."""
        if self._stopped:
            return succeed(None)
        self._stopped = True
        if self._next_poll is not None and self._next_poll.active():
            self._next_poll.cancel()
        if self._polling is not None:
            self._polling.cancel()
        self._remembered.forget()
        return self._batches.stop()

    def changed(self, projects: Iterable[str] = (), tokens: Iterable[str] = ()) -> None:
        """What is remembered of these (ids) is good no more."""
        in_projects, among = frozenset(projects), frozenset(tokens)
        if in_projects or among:
            self._distrust(lambda token: token.id in among or token.project in in_projects)

    def state(self) -> dict[str, object]:
        """``store`` (``up``, ``down``), tokens ``remembered``, ``lookups`` under way, requests ``unwritten``
        and ``lost``.
        """
        self.settle()
        return {
            "store": "up" if self.ready else "down",
            "remembered": len(self._entries),
            "lookups": len(self._lookups),
            "unwritten": self._counts.unwritten,
            "lost": self._counts.lost,
        }

    # One token.

    def _take(self, entry: Entry) -> Grant:
        """The grant of *entry*, counted; deciding and counting are one step.

        :raises Refused: it may not be used now.
        """
        grant, count, wall = entry.grant, entry.count, self._wall()
        if not entry.free:
            check(grant.project, grant.token, wall, used=count.known, enforce_active=self.enforce_active)
        count.known += 1
        counts = self._counts
        if count.fresh <= 0:
            counts.dirty[count.token] = count
        count.fresh += 1
        count.last_used = wall
        counts.fresh += 1
        if counts.fresh >= BATCH:
            self._batches.write()
        return grant

    def _look_closer(self, digest: bytes, entry: Entry | None) -> Grant | Deferred[Grant]:
        """What is to be done with a token that is not remembered, or not well."""
        if self._stopped:
            raise _unavailable()
        now = self._seconds()
        if entry is not None and now < entry.stale_at:
            entry.renew_at = entry.stale_at
            if digest not in self._lookups and not self._down:
                self._look_up(digest, [])
            return self._take(entry)
        if self._down:
            if self._still_good(entry):
                return self._take(entry)
            raise _unavailable()
        if self._remembered.missing(digest, now):
            raise _not_found()
        return self._wait(digest)

    def _still_good(self, entry: Entry | None) -> TypeGuard[Entry]:
        """Whether *entry* may be used although the store does not answer."""
        return entry is not None and entry.trusted and self._seconds() < self._verified + LIFETIME

    def _wait(self, digest: bytes) -> Deferred[Grant]:
        """Wait for the store's word; all who ask for one token wait for one word.

        :raises Refused: too many others wait.
        """
        waiters = self._lookups.get(digest)
        if waiters is None and len(self._lookups) >= MAX_LOOKUPS:
            raise _unavailable()
        waiter: Deferred[Grant] = Deferred(lambda gone: self._leave(digest, gone))
        if waiters is not None:
            waiters.append(waiter)
        else:
            self._look_up(digest, [waiter])
        return waiter

    def _leave(self, digest: bytes, waiter: Deferred[Grant]) -> None:
        """Who waited is gone: nothing is counted."""
        waiters = self._lookups.get(digest, [])
        if waiter in waiters:
            waiters.remove(waiter)

    def _look_up(self, digest: bytes, waiters: list[Deferred[Grant]]) -> None:
        self._lookups[digest] = waiters
        Deferred.fromCoroutine(self._ask(digest)).addCallbacks(
            lambda found: self._found(digest, *found), lambda failure: self._not_told(digest, failure)
        ).addErrback(lambda failure: self.log.failure("a token could not be looked up", failure))

    async def _ask(self, digest: bytes) -> tuple[Token | None, Project | None]:
        for _ in range(TRIES):
            generation = self._generation
            token = await self._store.token_by_digest(digest)
            project = None if token is None else await self._store.project(token.project)
            if generation == self._generation:
                return token, project
        raise StoreUnavailable("projects and tokens change faster than they are read")

    def _found(self, digest: bytes, token: Token | None, project: Project | None) -> None:
        self._up()
        waiters = self._lookups.pop(digest, [])
        if token is None or project is None or not is_of(token, digest):
            self._remembered.miss(digest, self._seconds())
            for waiter in waiters:
                waiter.errback(_not_found())
            return
        count = self._counts.of(token.id, token.project, token.requests)
        self._serve(waiters, self._remembered.load(digest, token, project, count, self._seconds()))

    def _serve(self, waiters: list[Deferred[Grant]], entry: Entry) -> None:
        for waiter in waiters:
            try:
                grant = self._take(entry)
            except Refused as refused:
                waiter.errback(refused)
            else:
                waiter.callback(grant)

    def _not_told(self, digest: bytes, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            self._gone_down(failure)
        else:
            self.log.failure("a token could not be looked up", failure)
        waiters = self._lookups.pop(digest, [])
        entry = self._entries.get(digest)
        if self._still_good(entry):
            self._serve(waiters, entry)
            return
        for waiter in waiters:
            waiter.errback(_unavailable())

    # Changes.

    def _distrust(self, which: Callable[[Token], bool]) -> None:
        self._generation += 1
        self._remembered.distrust(which)

    def _poll(self) -> Deferred[None]:
        asked = self._seconds()
        polling = self._polling = (
            self._store.changes(self._last_change)
            .addCallback(self._told, asked)
            .addErrback(self._not_polled)
            .addBoth(self._polled)
        )
        return polling

    def _told(self, changes: Changes, asked: float) -> None:
        self._last_change = changes.last
        self._verified = asked
        self._up()
        if changes.all:
            self._distrust(lambda token: True)
        else:
            self.changed(changes.projects, changes.tokens)

    def _not_polled(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._gone_down(failure)
        if not failure.check(StoreUnavailable):
            self.log.failure("the changes of the store could not be read", failure)

    def _polled(self, _: object) -> None:
        self._polling = None
        if not self._stopped:
            self._next_poll = self._clock.callLater(POLL, self._poll)

    def _up(self) -> None:
        if self._down:
            self.log.info("The store of projects and tokens answers again")
        self._answered, self._down = True, False

    def _gone_down(self, failure: Failure) -> None:
        if not self._down:
            self.log.warn(
                "The store of projects and tokens does not answer: {reason}. Tokens that were used in the "
                "last minute go on working for {seconds:.0f} s at most; all others are refused",
                reason=failure.value if failure.check(StoreUnavailable) else type(failure.value).__name__,
                seconds=LIFETIME,
            )
        self._down = True


def _not_found() -> Refused:
    return Refused(401, "token_not_found", "This token is not known here.", CHALLENGE)


def _unavailable() -> Refused:
    return Refused(
        503,
        "store_unavailable",
        "Tokens cannot be checked at the moment. Try again shortly.",
        headers=((b"retry-after", b"1"),),
    )

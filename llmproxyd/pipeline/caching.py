"""One request's turn at the cache: look, perhaps wait for another's answer, keep what comes.

What may be stored and reused is decided by :mod:`llmproxyd.cache.policy`, where it is kept is the
backend's business, and who waits for whom is in :mod:`~llmproxyd.pipeline.shelf`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxyd.cache.conditions import conditions_for
from llmproxyd.cache.interface import Entry, Purge
from llmproxyd.cache.policy import (
    STAND_IN,
    Ask,
    Serve,
    Unavailable,
    confirmed,
    decide,
    fresh_age,
    invalidates,
    is_confirmed,
    may_be_kept,
    may_stand_in,
    served,
    storable,
)
from llmproxyd.errors import Refused
from llmproxyd.http.body import Kept
from llmproxyd.http.headers import content_of
from llmproxyd.model import End, RawHeaders, Response
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.keeping import Gathering, elsewhere, why_not
from llmproxyd.pipeline.plan import Caching
from llmproxyd.pipeline.policy import CachePolicy
from llmproxyd.pipeline.serving import (
    MISSED,
    forwarded,
    fresh_notes,
    not_stored,
    notes,
    serve,
    serve_fresh,
    stored,
)
from llmproxyd.pipeline.shelf import Shelf
from llmproxyd.pipeline.whose import key_for
from llmproxyd.wire.headers import WireHeaders

CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
"""A client's conditions: where ours go upstream, these do not."""

FAILED = STAND_IN | {520, 521, 522, 523, 524, 529}
"""Statuses for which an entry may stand in: those of RFC 5861 §4, and what providers and the
networks before them say in their place (overloaded, origin not reachable)."""

UNCACHED = "Nothing that is stored answers this request, and it asks for nothing else (only-if-cached)."


def look_up(
    exchange: Exchange, caching: Caching, body: Kept | None, shelf: Shelf, go: Callable[[], None]
) -> None:
    """Answer *exchange* from what is stored, or see to it that the upstream is asked.

    The parameters are those of :class:`Turn`, which a fresh entry does not need.
    """
    policy = exchange.policy.cache
    assert policy is not None
    whose = key_for(exchange, caching, body)
    found = shelf.cache.get(whose[1]) if caching.wants.lookup else ()
    if caching.plain and found and type(found) is tuple:
        age = fresh_age(found, exchange.request.method, shelf.wall())
        if age is not None and serve_fresh(exchange, found[0], age, shelf.seconds()):
            return
    turn = Turn(exchange, caching, body, shelf, go, whose)
    if not found and caching.plain:
        turn.missed(policy)
    elif isinstance(found, Deferred):
        turn.found_later(found)
    else:
        turn.found(found)


class Turn:
    """One request's turn at the cache.

    :param body: of the request, where it belongs to the key.
    :param go: sends the request on to its upstream.
    :param whose: tenant and key, where they are known already.
    """

    __slots__ = (
        "_asked_at",
        "_asked_if",
        "_behind",
        "_body",
        "_brought",
        "_caching",
        "_entry",
        "_exchange",
        "_failed",
        "_gathering",
        "_go",
        "_key",
        "_leads",
        "_outdated",
        "_request",
        "_shelf",
        "_tenant",
        "_waited",
        "_wants",
        "_why",
    )

    def __init__(
        self,
        exchange: Exchange,
        caching: Caching,
        body: Kept | None,
        shelf: Shelf,
        go: Callable[[], None],
        whose: tuple[str, bytes] | None = None,
    ) -> None:
        self._exchange = exchange
        self._shelf = shelf
        self._go = go
        self._body = body
        self._request = exchange.request
        self._caching = caching
        self._wants = caching.wants
        self._tenant, self._key = whose or key_for(exchange, caching, body)
        # What is stored for the request, and why it does not simply do.
        self._entry: Entry | None = None
        self._why = "uri-miss"
        self._asked_at = 0.0
        self._asked_if: RawHeaders = ()
        self._behind = self._leads = self._waited = self._failed = self._outdated = False
        self._gathering: Gathering | None = None
        self._brought: Entry | None = None

    def _join(self) -> None:
        """The upstream will be asked, by this request or by another: read along."""
        exchange = self._exchange
        taps = exchange.taps
        exchange.taps = [self] if taps is None else [*taps, self]
        exchange.instead = self

    def _part(self) -> None:
        """Nothing of the answer is kept, and nobody waits for it: read along no more."""
        exchange = self._exchange
        self._shelf.asking.discard(self)
        taps = exchange.taps
        if taps is not None:
            exchange.taps = None if len(taps) == 1 else [tap for tap in taps if tap is not self]

    # Before the upstream is asked.

    def missed(self, policy: CachePolicy) -> None:
        """Nothing at all is stored, and the request says nothing of caching.

        What :meth:`_miss` and :meth:`_ask` do, for most.
        """
        self._join()
        exchange, shelf = self._exchange, self._shelf
        exchange.cache, exchange.cache_notes = "miss", MISSED
        if policy.coalesce and self._waits():
            return
        self._asked_at = shelf.wall()
        shelf.asking.add(self)
        self._go()

    def found_later(self, found: Deferred[Sequence[Entry]]) -> None:
        """Wait for what is stored."""
        found.addCallback(self.found)
        found.addErrback(self._shelf.failed, self._exchange)

    def found(self, entries: Sequence[Entry]) -> None:
        """Look whether one of *entries* will do."""
        exchange = self._exchange
        if exchange.done:
            return
        now = self._shelf.wall()
        decision = decide(entries, self._request, self._wants, now)
        if isinstance(decision, Serve):
            self._serve_stored(decision, now)
        elif isinstance(decision, Unavailable):
            self._note("miss", "only-if-cached", b"detail=only-if-cached")
            raise Refused(504, "not_cached", UNCACHED)
        elif decision.why == "bypass":
            self._join()
            why = self._wants.why
            self._note("bypass", why, b"fwd=method" if why == "method" else b"fwd=bypass")
            self._ask(())
        else:
            self._join()
            self._miss(decision)

    def _serve_stored(self, found: Serve, now: float) -> None:
        """It will do."""
        exchange, entry = self._exchange, found.entry
        ttl = _ttl(entry, now)
        if found.stale:
            self._note("stale", "stale", b"hit", b"ttl=%d" % ttl)
        else:
            exchange.cache = "hit"
            exchange.cache_notes = fresh_notes(ttl)
        again = found.revalidate and self._key not in self._shelf.flights
        serve(exchange, found, self._shelf.seconds)
        if again:
            self._shelf.again(exchange, entry, self._body)

    def _miss(self, decision: Ask) -> None:
        wants, exchange, why = self._wants, self._exchange, decision.why
        self._entry, self._why = decision.entry, why
        exchange.cache, exchange.cache_notes = "miss", forwarded(why)
        policy = exchange.policy.cache
        assert policy is not None
        # What another brings is new enough for one that does not say otherwise.
        if policy.coalesce and not wants.no_cache and wants.max_age != 0 and self._waits():
            return
        self._ask(decision.fields)

    def _waits(self) -> bool:
        """Whether it waits for another; others wait for it from now on where it does not."""
        if self._shelf.wait(self._key, self):
            self._waited = True
        # An answer to HEAD is of no use to those who want more.
        elif self._wants.store and self._request.method != b"HEAD":
            self._lead()
        return self._waited

    def _lead(self) -> None:
        self._leads = self._shelf.lead(self._key, self)
        if self._leads:
            self._exchange.awaited = self._awaited

    def _ask(self, fields: RawHeaders) -> None:
        """Ask the upstream.

        :param fields: conditions of ours; none for the request as the client sent it.
        """
        self._asked_if = fields
        self._asked_at = self._shelf.wall()
        self._shelf.asking.add(self)
        if fields or self._behind:
            self._conditional(fields)
        self._go()

    def _conditional(self, fields: RawHeaders) -> None:
        """Put *fields* in the place of the client's conditions."""
        exchange = self._exchange
        headers = [pair for pair in self._request.headers if pair[0].lower() not in CONDITIONS]
        exchange.request = replace(self._request, headers=[*headers, *fields], memo=self._request.memo)
        going = exchange.outgoing
        if going is not None:
            kept = [pair for pair in going.headers.raw if pair[0].lower() not in CONDITIONS]
            exchange.outgoing = going._replace(headers=WireHeaders([*kept, *fields]))

    def revalidate(self, entry: Entry) -> None:
        """Ask the upstream whether *entry*, which a client was answered with, still holds."""
        exchange = self._exchange
        exchange.cache = "revalidation"
        self._join()
        self._behind = True
        self._entry = entry
        self._lead()
        self._ask(conditions_for(entry))

    # While one waits for another.

    def _awaited(self) -> bool:
        return self._shelf.awaited(self._key)

    def deserted(self) -> None:
        """Nobody waits any more: if the client has left as well, nothing goes on."""
        if self._exchange.orphan:
            self._exchange.abandon(self._shelf.seconds())

    def changed(self, url: bytes, tenant: str) -> None:
        """What comes was asked for before *url* changed: it is not kept, and for nobody else."""
        if tenant == self._tenant and url == self._url():
            self._outdated = True
            self._go_alone()

    def purged(self, what: Purge) -> None:
        """What comes was asked for before a purge."""
        if what.means(self._url(), self._tenant):
            self._outdated = True
            self._go_alone()

    def resume(self, entry: Entry | None, *, failed: bool) -> None:
        """Take what the leader brought, or ask."""
        exchange = self._exchange
        if exchange.done:
            return
        try:
            if failed and self.failed():
                return
            now = self._shelf.wall()
            fields: RawHeaders = ()
            if entry is not None:
                decision = decide((entry,), self._request, self._wants, now)
                if isinstance(decision, Serve):
                    ttl = b"ttl=%d" % _ttl(entry, now)
                    self._note("hit", "collapsed", b"fwd=" + self._why.encode(), b"collapsed", ttl)
                    serve(exchange, decision, self._shelf.seconds)
                    return
                if isinstance(decision, Ask) and decision.entry is not None:
                    self._entry, fields = entry, decision.fields
            elif self._entry is not None:
                fields = conditions_for(self._entry)
            self._note("miss", self._why, b"fwd=" + self._why.encode(), b"collapsed=?0")
            self._ask(fields)
        except Exception:
            self._shelf.failed(Failure(), exchange)

    def _land(self, entry: Entry | None = None, *, failed: bool = False) -> None:
        """Let those go on who wait."""
        if self._leads:
            self._leads = False
            self._exchange.awaited = None
            self._shelf.land(self._key, entry, failed=failed)

    # What the upstream brings.

    def answered(self, head: Response) -> bool:
        """Whether what is stored answers in the place of the upstream's answer *head*."""
        if head.status == 304 and self._asked_if:
            self._unmodified(head)
            return True
        return head.status in FAILED and self.failed(head.status)

    def _unmodified(self, head: Response) -> None:
        """The upstream says that it has nothing newer."""
        exchange, shelf, entry = self._exchange, self._shelf, self._entry
        assert entry is not None
        now = shelf.wall()
        if elsewhere(exchange) or not is_confirmed(entry, head.headers, now):
            self._ask_anew()
            return
        fresh = confirmed(entry, head, requested=self._asked_at, received=now)
        if may_be_kept(fresh) and not self._outdated:
            shelf.cache.put(self._key, fresh)
            self._brought = fresh
        else:
            shelf.cache.drop(self._key, self._tenant)
        if self._behind:
            exchange.status = 304
            exchange.finish(shelf.seconds())
            return
        why = b"fwd=" + self._why.encode()
        self._note("hit", "revalidated", why, b"fwd-status=304", b"ttl=%d" % _ttl(fresh, now))
        serve(exchange, served(fresh, self._request, now), shelf.seconds)

    def _ask_anew(self) -> None:
        """What came speaks of something else than what is stored: ask without conditions."""
        exchange = self._exchange
        closing, exchange.closing = exchange.closing, None
        if closing is not None:
            closing(End.COMPLETE)
        exchange.work = None
        self._conditional(())
        self._asked_if = ()
        self._asked_at = self._shelf.wall()
        self._go()

    def failed(self, status: int = 0) -> bool:
        """Whether what is stored answers as no upstream does.

        :param status: the upstream's, where it has answered at all.
        """
        entry, now = self._entry, self._shelf.wall()
        if entry is None or self._behind or not may_stand_in(entry, self._wants, now):
            return False
        self._failed = True
        why, told = b"fwd=" + self._why.encode(), (b"fwd-status=%d" % status,) if status else ()
        ttl = b"ttl=%d" % _ttl(entry, now)
        self._note("stale", "stale-if-error", why, *told, ttl, b"detail=stale-if-error")
        serve(self._exchange, served(entry, self._request, now), self._shelf.seconds)
        return True

    def relaying(self, head: Response) -> None:
        """The upstream's answer goes to the client: may it be kept?"""
        exchange, shelf, wants, request = self._exchange, self._shelf, self._wants, self._request
        policy = exchange.policy.cache
        assert policy is not None
        limit = policy.max_object_bytes
        result: Entry | str
        if not wants.store:
            result = wants.why
            # A POST that may be kept changes nothing: so whoever opted it in has said.
            if invalidates(request, head):
                shelf.invalidate(self._url(), self._tenant)
        elif self._outdated:
            result = "outdated"
        else:
            result = why_not(exchange, request, head, limit)
            if not result:
                ttl, now = self._caching.ttl, shelf.wall()
                result = storable(request, wants, head, requested=self._asked_at, received=now, ttl=ttl)
        notes = exchange.cache_notes
        if isinstance(result, str):
            if notes is not None and exchange.cache == "miss":
                exchange.cache_notes = not_stored(notes, result)
            self._part()
            self._go_alone()
            return
        if notes is not None and not self._behind:
            exchange.cache_notes = stored(notes)
        result.url, result.project = self._url(), self._tenant
        self._gathering = Gathering(result, limit, shelf, *content_of(head.headers))
        if result.no_cache or result.age >= result.lifetime:
            # It would have to be asked for again at once.
            self._go_alone()

    def _go_alone(self) -> None:
        """Nobody has anything of waiting for this one."""
        if self._leads:
            self._land()
        if self._exchange.orphan:
            self._exchange.abandon(self._shelf.seconds())

    def piece(self, data: bytes) -> None:
        """A piece of the answer's body."""
        gathering = self._gathering
        if gathering is not None and not gathering.piece(data):
            gathering.forget()
            self._gathering = None
            self._land()

    def ended(self, end: End) -> None:
        """The exchange is over; what is not whole is not kept."""
        exchange, shelf = self._exchange, self._shelf
        shelf.asking.discard(self)
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            entry = self._brought = gathering.whole(exchange, end)
            gathering.forget()
            if entry is not None and not self._outdated:
                shelf.cache.put(self._key, entry)
                shelf.count("store", exchange)
        if self._waited:
            shelf.leave(self._key, self)
        if self._leads:
            self._land(self._brought, failed=self._failed)

    def _url(self) -> bytes:
        known = self._caching.known
        assert known is not None
        return known[2].url

    # What is told.

    def _note(self, result: str, why: str, *parameters: bytes) -> None:
        exchange = self._exchange
        exchange.cache = result
        exchange.cache_notes = notes(b"hit" if result == "stale" else result.encode(), why, *parameters)


def _ttl(entry: Entry, now: float) -> int:
    """Seconds for which *entry* is fresh; negative for one that is stale."""
    return int((entry.lifetime - entry.age - abs(now - entry.received)) // 1)

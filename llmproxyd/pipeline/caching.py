"""The cache on the way of a request: look, perhaps wait for another's answer, keep what comes.

What may be stored and reused is decided by :mod:`llmproxyd.cache.policy`; where it is kept is the
backend's business.  Of equal requests that are under way at once one goes upstream; the others
wait for its entry, never for its stream.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.cache.interface import Cache, Entry
from llmproxyd.cache.key import key_of, url_of
from llmproxyd.cache.policy import (
    Ask,
    Serve,
    Unavailable,
    Wants,
    confirmed,
    decide,
    invalidates,
    may_stand_in,
    served,
    storable,
)
from llmproxyd.errors import Refused
from llmproxyd.http.body import Kept
from llmproxyd.model import End, RawHeaders, Request, Response, WallClock
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.marks import marks_of, readable_by_pages
from llmproxyd.pipeline.plan import Caching
from llmproxyd.pipeline.policy import CachePolicy
from llmproxyd.pipeline.relay import form_of
from llmproxyd.providers.base import EndpointKind
from llmproxyd.wire.headers import WireHeaders

CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
"""A client's conditions: answered here, so those that go upstream are ours."""

TOKENS = 10_000
"""Tokens whose results are counted apart."""

RESULTS = ("hit", "miss", "bypass", "stale", "store")

NO_TURN = ((b"Cache-Status", b"llmproxyd; fwd=bypass"), (b"X-Cache-Status", b"bypass"))
"""What is told of a request that the cache has nothing to do with."""

UNCACHED = "Nothing that is stored answers this request, and it asks for nothing else (only-if-cached)."


@dataclass(slots=True)
class Flight:
    """One request under way for a key, and who waits for what it brings."""

    waiting: list[Turn]


class Shelf:
    """The cache of all requests: its backend, what is under way, and how it did.

    :param seconds: monotonic.
    :param again: asks the upstream behind the back of a client that was answered from an entry.
    :param failed: takes what nothing here accounts for.
    """

    log = Logger()

    def __init__(
        self,
        cache: Cache,
        wall: WallClock,
        seconds: Callable[[], float],
        again: Callable[[Exchange, Turn], None],
        failed: Callable[[Failure, Exchange], None],
    ) -> None:
        self.cache = cache
        self.wall = wall
        self.seconds = seconds
        self.again = again
        self.failed = failed
        self.flights: dict[bytes, Flight] = {}
        self._counts: Counter[str] = Counter()
        self._by_token: dict[str, Counter[str]] = {}

    def count(self, result: str, exchange: Exchange) -> None:
        """Note one result: ``hit``, ``miss``, ``bypass``, ``stale``, ``store``."""
        self._counts[result] += 1
        granted = exchange.grant
        if granted is None:
            return
        token = granted.grant.token.id
        known = self._by_token.get(token)
        if known is None:
            if len(self._by_token) >= TOKENS:
                del self._by_token[next(iter(self._by_token))]
            known = self._by_token[token] = Counter()
        known[result] += 1

    def stats(self) -> Mapping[str, object]:
        """What the backend tells, and how often it was of use: in all and by token."""
        results = {name: self._counts[name] for name in RESULTS}
        tokens = {name: dict(counts) for name, counts in self._by_token.items()}
        return {**self.cache.stats(), **results, "in_flight": len(self.flights), "tokens": tokens}


def tenant_of(exchange: Exchange, policy: CachePolicy) -> str:
    """Who may be answered from the same entries: the project, or whoever has the same credential."""
    if policy.shared:
        return ""
    if exchange.grant is not None:
        return exchange.grant.grant.project.id
    assert exchange.plan is not None
    presented = exchange.plan.presented
    if presented is None:
        return "-"
    return hmac.digest(policy.secret, presented.encode("utf-8", "surrogateescape"), "sha256").hex()[:32]


class Turn:
    """One request's turn at the cache.

    :param go: sends the request on to its upstream.
    """

    __slots__ = (
        "_asked_at",
        "_body",
        "_entry",
        "_exchange",
        "_go",
        "_key",
        "_leads",
        "_pieces",
        "_policy",
        "_request",
        "_shelf",
        "_size",
        "_storing",
        "_tenant",
        "_url",
        "_wants",
    )

    def __init__(
        self, exchange: Exchange, caching: Caching, body: Kept | None, shelf: Shelf, go: Callable[[], None]
    ) -> None:
        policy = exchange.policy.cache
        assert policy is not None
        self._exchange = exchange
        self._shelf = shelf
        self._policy = policy
        self._go = go
        self._body = body
        self._request = exchange.request
        self._wants = caching.wants
        self._entry: Entry | None = None
        self._storing: Entry | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._leads = False
        self._asked_at = 0.0
        self._tenant, self._key, self._url = self._identify(caching)

    def _identify(self, caching: Caching) -> tuple[str, bytes, bytes]:
        exchange, policy, body = self._exchange, self._policy, self._body
        route = exchange.route
        assert route is not None
        tenant = tenant_of(exchange, policy)
        upstream = route.upstream.name
        if body is None and caching.known is not None and caching.known[0] == tenant:
            return tenant, caching.known[1], url_of(upstream, route.target)
        fields = () if caching.rule is None else caching.rule.fields
        data = b"" if body is None else body.read(body.length)
        key = key_of(tenant, upstream, exchange.request, route.target, data, fields)
        if body is None:
            caching.known = tenant, key
        return tenant, key, url_of(upstream, route.target)

    # Before the upstream is asked.

    def begin(self) -> None:
        """Look whether something stored will do."""
        exchange = self._exchange
        exchange.taps = [*(exchange.taps or ()), self]
        exchange.instead = self
        if not self._wants.lookup:
            self._bypass(self._wants.why)
            self._ask()
            return
        found = self._shelf.cache.get(self._key)
        if isinstance(found, Deferred):
            found.addCallback(self._found)
            found.addErrback(self._broken)
        else:
            self._found(found)

    def _found(self, entries: Sequence[Entry]) -> None:
        exchange = self._exchange
        if exchange.done:
            return
        decision = decide(entries, self._request, self._wants, self._shelf.wall())
        if isinstance(decision, Serve):
            self._entry = decision.entry
            self._serve(decision, "stale" if decision.stale else "hit")
            if decision.revalidate:
                self._shelf.again(exchange, self)
        elif isinstance(decision, Unavailable):
            self._note("miss", "only-if-cached", "llmproxyd; fwd=miss")
            raise Refused(504, "not_cached", UNCACHED)
        else:
            self._miss(decision)

    def _miss(self, decision: Ask) -> None:
        exchange = self._exchange
        self._entry = decision.entry
        self._note("miss", decision.why, f"llmproxyd; fwd={decision.why}")
        flight = self._shelf.flights.get(self._key)
        if flight is not None and self._policy.coalesce:
            flight.waiting.append(self)
            exchange.work = self._stop_waiting
            return
        if flight is None and self._wants.store:
            self._lead()
        if decision.fields:
            self._conditional(decision.fields)
        self._ask()

    def _lead(self) -> None:
        self._shelf.flights[self._key] = Flight([])
        self._leads = True
        self._exchange.awaited = self._awaited

    def _conditional(self, fields: RawHeaders) -> None:
        """Ask the upstream whether what is stored still holds."""
        exchange = self._exchange
        headers = [pair for pair in self._request.headers if pair[0].lower() not in CONDITIONS]
        exchange.request = replace(self._request, headers=[*headers, *fields], memo=self._request.memo)
        going = exchange.outgoing
        if going is not None:
            kept = [pair for pair in going.headers.raw if pair[0].lower() not in CONDITIONS]
            exchange.outgoing = going._replace(headers=WireHeaders([*kept, *fields]))

    def _ask(self) -> None:
        self._asked_at = self._shelf.wall()
        self._go()

    def revalidate(self) -> None:
        """Ask the upstream whether what a client was answered with still holds."""
        exchange = self._exchange
        exchange.taps = [self]
        exchange.instead = self
        exchange.cache = "revalidation"
        self._lead()
        if self._entry is not None:
            self._conditional(conditions_of(self._entry))
        self._ask()

    def successor(self, exchange: Exchange, go: Callable[[], None]) -> Turn | None:
        """A turn for *exchange*, which revalidates what this one has served; ``None`` if one does."""
        assert exchange.plan is not None
        assert exchange.plan.caching is not None
        if self._key in self._shelf.flights:
            return None
        turn = Turn(exchange, exchange.plan.caching, self._body, self._shelf, go)
        turn._entry = self._entry
        return turn

    @property
    def request(self) -> Request:
        """As the client sent it."""
        return self._request

    @property
    def body(self) -> Kept | None:
        """Its body, where that belongs to the key."""
        return self._body

    # While others wait.

    def _awaited(self) -> bool:
        flight = self._shelf.flights.get(self._key)
        return flight is not None and bool(flight.waiting)

    def _stop_waiting(self) -> None:
        flight = self._shelf.flights.get(self._key)
        if flight is not None and self in flight.waiting:
            flight.waiting.remove(self)

    def _landed(self, *, stored: bool) -> None:
        """Let those go on who waited: to the entry, or their own way."""
        if not self._leads:
            return
        self._leads = False
        flight = self._shelf.flights.pop(self._key, None)
        for one in () if flight is None else flight.waiting:
            one._resume(stored=stored)

    def _resume(self, *, stored: bool) -> None:
        exchange = self._exchange
        exchange.work = None
        if exchange.done:
            return
        try:
            found = self._shelf.cache.get(self._key) if stored else ()
            if isinstance(found, Deferred):
                found.addCallback(self._found_after)
                found.addErrback(self._broken)
            else:
                self._found_after(found)
        except Exception:
            self._broken(Failure())

    def _found_after(self, entries: Sequence[Entry]) -> None:
        exchange = self._exchange
        if exchange.done:
            return
        decision = decide(entries, self._request, self._wants, self._shelf.wall()) if entries else None
        if isinstance(decision, Serve):
            self._serve(decision, "hit", collapsed=True)
        else:
            self._ask()

    # What the upstream brings.

    def answered(self, head: Response) -> bool:
        """Whether what is stored answers in the place of the upstream's answer *head*."""
        entry, shelf = self._entry, self._shelf
        if entry is None:
            return False
        now = shelf.wall()
        if head.status == 304:
            fresh = confirmed(entry, head, requested=self._asked_at, received=now)
            shelf.cache.put(self._key, fresh)
            self._serve(served(fresh, self._request, now), "hit", why="stale; fwd-status=304")
            return True
        if head.status >= 500 and may_stand_in(entry, self._wants, now):
            self._serve(served(entry, self._request, now), "stale", why="stale-if-error")
            return True
        return False

    def failed(self) -> bool:
        """Whether what is stored answers as no upstream does."""
        entry, now = self._entry, self._shelf.wall()
        if entry is None or not may_stand_in(entry, self._wants, now):
            return False
        self._serve(served(entry, self._request, now), "stale", why="stale-if-error")
        return True

    def relaying(self, head: Response) -> None:
        """The upstream's answer goes to the client: may it be kept?"""
        shelf, request = self._shelf, self._request
        if invalidates(request, head):
            shelf.cache.invalidate(self._url, self._tenant)
        route = self._exchange.route
        assert route is not None
        plan = self._exchange.plan
        ttl = None if plan is None or plan.caching is None else plan.caching.ttl
        result: Entry | str = self._wants.why
        if self._wants.store:
            result = storable(
                request, self._wants, head, requested=self._asked_at, received=shelf.wall(), ttl=ttl
            )
        if isinstance(result, str):
            self._unstorable(result)
            return
        limit = self._policy.max_object_bytes
        if head.length is not None and head.length > limit and request.method != b"HEAD":
            self._unstorable("too-large")
            return
        result.url, result.method, result.project = self._url, request.method, self._tenant
        self._storing = result

    def _unstorable(self, why: str) -> None:
        if self._exchange.cache == "miss":
            self._note("miss", f"not stored: {why}", None)
        self._landed(stored=False)

    def piece(self, data: bytes) -> None:
        """A piece of the answer's body."""
        if self._storing is None:
            return
        self._size += len(data)
        if self._size > self._policy.max_object_bytes:
            self._storing = None
            self._pieces = []
            self._landed(stored=False)
        else:
            self._pieces.append(data)

    def ended(self, end: End) -> None:
        """The exchange is over; what is not whole is not kept."""
        entry, self._storing = self._storing, None
        if entry is not None and end is End.COMPLETE:
            entry.body = b"".join(self._pieces)
            self._shelf.cache.put(self._key, entry)
            self._shelf.count("store", self._exchange)
        self._pieces = []
        if self._exchange.cache is not None:
            self._shelf.count(self._exchange.cache, self._exchange)
        self._stop_waiting()
        self._landed(stored=entry is not None and end is End.COMPLETE)

    # What the client is told.

    def _serve(self, found: Serve, result: str, *, why: str = "", collapsed: bool = False) -> None:
        exchange, shelf = self._exchange, self._shelf
        entry, head = found.entry, found.head
        left = round(entry.lifetime - entry.age - (shelf.wall() - entry.received))
        status = f"llmproxyd; hit; ttl={left}"
        if why:
            status = f"llmproxyd; fwd={why}"
        elif collapsed:
            status = f"llmproxyd; fwd=uri-miss; collapsed; ttl={left}"
        self._note(result, why.partition(";")[0] or ("collapsed" if collapsed else "fresh"), status)
        now = shelf.seconds()
        fields = list(head.headers)
        if exchange.policy.marks:
            fields += marks_of(exchange, fields, now)
        if exchange.cors:
            fields = readable_by_pages(fields, exchange.cors)
        exchange.streamed = form_of(exchange, _media(head)) is not None
        exchange.start(
            Response(head.status, head.reason, fields, head.length, head.version, told=head.told), now
        )
        if found.body:
            exchange.write(found.body, last=True)
        exchange.finish(now)

    def _bypass(self, why: str) -> None:
        self._note("bypass", why or "not asked for", "llmproxyd; fwd=bypass")

    def _note(self, result: str, why: str, status: str | None) -> None:
        exchange = self._exchange
        exchange.cache = result
        shown = b"hit" if result == "stale" else result.encode()
        told = [pair for pair in exchange.cache_notes if status is None and pair[0] == b"Cache-Status"]
        if status is not None:
            told = [(b"Cache-Status", status.encode("latin-1", "replace"))]
        exchange.cache_notes = (
            *told,
            (b"X-Cache-Status", shown),
            (b"X-Cache-Debug", why.encode("latin-1", "replace")),
        )

    def _broken(self, failure: Failure) -> None:
        self._landed(stored=False)
        self._shelf.failed(failure, self._exchange)


def conditions_of(entry: Entry) -> RawHeaders:
    """What asks whether *entry* still holds."""
    fields = []
    if entry.etag is not None:
        fields.append((b"If-None-Match", entry.etag))
    if entry.last_modified is not None:
        fields.append((b"If-Modified-Since", entry.last_modified))
    return fields


def _media(head: Response) -> bytes:
    for name, value in head.headers:
        if name.lower() == b"content-type":
            return value
    return b""


def concerns(exchange: Exchange, caching: Caching) -> bool:
    """Whether the request has a turn at the cache.

    Inference by POST has none unless somebody opts it in: it makes nothing that is stored invalid.
    """
    wants, route = caching.wants, exchange.route
    if wants.lookup or wants.store or exchange.request.method != b"POST":
        return True
    return route is None or route.kind is not EndpointKind.INFERENCE


def reads_body(wants: Wants, request: Request) -> bool:
    """Whether the body belongs to the key, so that it must be at hand."""
    return request.method == b"POST" and (wants.lookup or wants.store)

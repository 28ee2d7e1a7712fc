"""RFC 9111 as a shared cache: what may be stored, what may be reused, what must be asked again.

Pure: times are passed in as seconds since the epoch.  What a response says is read once, when it
is stored; a hit looks at numbers.

The way of a request::

    wants_of ── lookup ──> decide ── Serve ──────> the client
        │                    └────── Ask ──> upstream ── 304 to Ask.fields ──> is_confirmed, confirmed, served
        └─────── store ──────────────────────────> upstream ── anything else ──> storable, invalidates
                                                      └────── failed ──> may_stand_in, served

POST is stored by opt-in, an extension beyond RFC 9110 §9.3.3: see :func:`wants_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from llmproxyd.cache.conditions import conditions_for, is_confirmed, unmodified
from llmproxyd.cache.directives import MOST
from llmproxyd.cache.interface import Entry
from llmproxyd.cache.requests import Wants, wants_of
from llmproxyd.cache.storing import confirmed, may_be_kept, storable
from llmproxyd.cache.vary import select
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.wire.fields import Fields, fields_of

__all__ = [
    "Ask",
    "Decision",
    "Serve",
    "Unavailable",
    "Wants",
    "confirmed",
    "decide",
    "fresh_age",
    "invalidates",
    "is_confirmed",
    "may_be_kept",
    "may_stand_in",
    "served",
    "storable",
    "wants_of",
]


@dataclass(slots=True)
class Serve:
    """Answer with *head* and *body*, which stand for *entry*.  Made for each hit, so not frozen.

    :param head: ready to be sent: ``Age`` added; a 304 where the client's condition says so.  It
        has no ``Content-Length``: ``head.length`` is to be told.
    :param body: empty for a 304 or HEAD.
    :param stale: it is beyond its lifetime.
    :param revalidate: ask the upstream behind the client's back (RFC 5861 §3).
    """

    entry: Entry
    head: Response
    body: bytes = field(repr=False)
    stale: bool = False
    revalidate: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the upstream.

    :param entry: what is stored for this request; ``None`` where nothing is.  It may stand in for
        a failure, if :func:`may_stand_in` says so.
    :param fields: conditions to send in place of the client's ``If-None-Match`` and
        ``If-Modified-Since``; a 304 then confirms *entry*.  Empty: the client's own go on, and a
        304 is for the client.
    :param why: for ``Cache-Status`` (RFC 9211 §2.2): ``uri-miss``, ``vary-miss``, ``stale``,
        ``request`` or ``bypass``.
    """

    entry: Entry | None = None
    fields: RawHeaders = ()
    why: str = "uri-miss"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """``only-if-cached``, and nothing is: 504 (RFC 9111 §5.2.1.7)."""


Decision = Serve | Ask | Unavailable

STAND_IN: Final = frozenset({500, 502, 503, 504})
"""Statuses that count as failed where an entry may stand in for them.  RFC 5861 §4."""

_UNAVAILABLE: Final = Unavailable()
_BYPASS: Final = Ask(why="bypass")
NOTHING_STORED: Final = Ask()
"""What is decided where nothing at all is stored, for a request that may be answered by the upstream."""
_VARY_MISS: Final = Ask(why="vary-miss")

_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"REPORT", b"SEARCH", b"QUERY"})

_OF_CONTENT: Final = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-range",
        b"content-md5",
        b"content-digest",
    }
)
"""Fields that a 304 leaves out.  RFC 9110 §15.4.5."""


def decide(entries: Sequence[Entry], request: Request, wants: Wants, now: float) -> Decision:
    """Reuse one of *entries* (most recent first), or ask.  RFC 9111 §4.

    A hit costs 2 to 6 µs, the head with its ``Age`` included.
    """
    if not wants.lookup:
        return _UNAVAILABLE if wants.only_if_cached else _BYPASS
    if len(entries) == 1 and not entries[0].varied and entries[0].method == request.method:
        entry = entries[0]
    else:
        selected, why = select(entries, request)
        if selected is None:
            if wants.only_if_cached:
                return _UNAVAILABLE
            return NOTHING_STORED if why == "uri-miss" else _VARY_MISS
        entry = selected
    age = _age(entry, now)
    left = entry.lifetime - age
    if left > 0 and not wants.limited and not entry.no_cache:
        return _serve(entry, request, age, now, wants.conditional)
    why = _objection(entry, wants, age, left)
    if not why:
        meanwhile = left <= 0 and not _tolerates(wants, left)
        return _serve(entry, request, age, now, wants.conditional, left <= 0, meanwhile)
    return _UNAVAILABLE if wants.only_if_cached else Ask(entry, conditions_for(entry), why)


def fresh_age(entries: Sequence[Entry], method: bytes, now: float) -> float | None:
    """The age of the entry that is the only one of *entries*, and fresh for whoever says nothing of caching.

    It stands for :func:`decide` where there is nothing to decide, as with most hits: a few lines
    in place of all of it.

    :returns: seconds; ``None`` where there is more to look at.
    """
    if len(entries) != 1:
        return None
    entry = entries[0]
    if entry.varied or entry.no_cache or entry.method != method:
        return None
    age = entry.age + abs(now - entry.received)
    return age if age < entry.lifetime else None


def _age(entry: Entry, now: float) -> float:
    """The current age, seconds.  RFC 9111 §4.2.3.

    A clock that was put back makes nothing younger: how far it stands off counts, either way.
    """
    return entry.age + abs(now - entry.received)


def _objection(entry: Entry, wants: Wants, age: float, left: float) -> str:
    """Why *entry* must not be reused as it is; empty where it may be."""
    if wants.no_cache or (wants.max_age is not None and age > wants.max_age):
        return "request"
    if entry.no_cache:
        return "stale"
    if wants.min_fresh is not None and left < wants.min_fresh:
        return "request"
    if left > 0:
        return ""
    if entry.must_revalidate:
        return "stale"
    # Who names an age without max-stale wants nothing stale: RFC 9111 §5.2.1.1.
    meanwhile = entry.stale_while_revalidate if wants.max_age is None else 0.0
    return "" if _tolerates(wants, left) or 0 < meanwhile >= -left else "stale"


def _tolerates(wants: Wants, left: float) -> bool:
    """Whether the client takes what is stale by so much (``max-stale``)."""
    return wants.max_stale is not None and -left <= wants.max_stale


def served(entry: Entry, request: Request, now: float) -> Serve:
    """What answers *request* from *entry*, whatever its freshness.

    A 304 only where the client's own condition says so.
    """
    age = _age(entry, now)
    return _serve(entry, request, age, now, True, age >= entry.lifetime)


def _serve(
    entry: Entry,
    request: Request,
    age: float,
    now: float,
    conditional: bool,
    stale: bool = False,
    revalidate: bool = False,
) -> Serve:
    if conditional and unmodified(entry, request, now):
        kept = [pair for pair in _fields(entry, age) if pair[0].lower() not in _OF_CONTENT]
        return Serve(entry, Response(304, b"Not Modified", kept), b"", stale, revalidate)
    if request.method != b"HEAD":
        body = entry.body
        head = Response(entry.status, entry.reason, _fields(entry, age), len(body))
        return Serve(entry, head, body, stale, revalidate)
    # Of what was stored from an answer to HEAD nobody knows how long it is; it says so itself.
    length = None if entry.method == b"HEAD" else len(entry.body)
    head = Response(entry.status, entry.reason, _fields(entry, age), length)
    return Serve(entry, head, b"", stale, revalidate)


def _fields(entry: Entry, age: float) -> Fields:
    """What is told of *entry*: its fields, and its age."""
    return fields_of(entry.headers).more((b"Age", b"%d" % min(age, MOST)))


def may_stand_in(entry: Entry, wants: Wants, now: float) -> bool:
    """Whether *entry* may answer although asking failed (``stale-if-error``, RFC 5861 §4).

    Either side may ask for it; ``must-revalidate``, ``proxy-revalidate``, ``s-maxage`` and
    ``no-cache`` forbid it (RFC 9111 §4.2.4), as do the request's own limits.
    """
    if entry.must_revalidate or entry.no_cache or wants.no_cache or not wants.lookup:
        return False
    age = _age(entry, now)
    if wants.max_age is not None and age > wants.max_age:
        return False
    if wants.min_fresh is not None and entry.lifetime - age < wants.min_fresh:
        return False
    granted = max(entry.stale_if_error, wants.stale_if_error or 0.0)
    return granted > 0 and age - entry.lifetime <= granted


def invalidates(request: Request, response: Response) -> bool:
    """Whether *response* to *request* makes what is stored for the URI invalid.  RFC 9111 §4.4.

    Of a method that nobody knows it is not known to be safe.  Whether a POST is one that changes
    nothing (inference) is for the caller to say.
    """
    return request.method not in _SAFE and 200 <= response.status < 400

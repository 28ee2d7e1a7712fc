"""RFC 9111 as a shared cache: what may be stored, what may be reused, what must be asked again.

Pure: times are passed in as seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llmproxyd.cache.interface import Entry
from llmproxyd.model import RawHeaders, Request, Response


@dataclass(frozen=True, slots=True)
class Wants:
    """What a request says of caching, parsed once.

    :param lookup: a stored response may answer it.
    :param store: its response may be stored.
    :param why: one word or clause on why not, for ``X-Cache-Debug``.
    :param authorized: it presents a credential (RFC 9111 §3.5).
    :param opted: its method or its client asked for caching beyond the default (POST).
    """

    lookup: bool
    store: bool
    why: str = ""
    authorized: bool = False
    opted: bool = False
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float | None = None
    max_stale: float | None = None
    stale_if_error: float | None = None


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer with *head* and *body*, which stand for *entry*.

    :param head: ready to be sent: ``Age`` added; a 304 where the client's condition says so.
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

    :param entry: what a 304 would confirm, ``None`` where nothing is stored.
    :param fields: conditions to add in place of the client's own.
    :param why: for ``Cache-Status`` (RFC 9211 §2.2): ``uri-miss``, ``vary-miss``, ``stale``, ``request``…
    """

    entry: Entry | None = None
    fields: RawHeaders = ()
    why: str = "uri-miss"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """``only-if-cached``, and nothing is: 504 (RFC 9111 §5.2.1.7)."""


Decision = Serve | Ask | Unavailable


def wants_of(request: Request, *, authorized: bool, ttl: float | None = None) -> Wants:
    """What the head of *request* allows.

    :param authorized: the client presented a credential, in whatever place.
    :param ttl: ``default_ttl`` of a rule that matches: opts a POST in.
    """
    raise NotImplementedError


def decide(entries: Sequence[Entry], request: Request, wants: Wants, now: float) -> Decision:
    """Reuse one of *entries*, or ask."""
    raise NotImplementedError


def storable(
    request: Request,
    wants: Wants,
    response: Response,
    *,
    requested: float,
    received: float,
    ttl: float | None = None,
) -> Entry | str:
    """The entry for *response*, its body still empty, or why it may not be stored.

    :param ttl: seconds of freshness where neither side names any.
    """
    raise NotImplementedError


def confirmed(entry: Entry, response: Response, *, requested: float, received: float) -> Entry:
    """*entry* with the fields of the 304 *response* that confirms it (RFC 9111 §4.3.4)."""
    raise NotImplementedError


def may_stand_in(entry: Entry, wants: Wants, now: float) -> bool:
    """Whether *entry* may answer although asking failed (``stale-if-error``, RFC 5861 §4)."""
    raise NotImplementedError


def served(entry: Entry, request: Request, now: float) -> Serve:
    """What answers *request* from *entry*, whatever its freshness."""
    raise NotImplementedError


def invalidates(request: Request, response: Response) -> bool:
    """Whether *response* to *request* makes what is stored for the URI invalid (RFC 9111 §4.4)."""
    raise NotImplementedError

"""What a request says of caching.  RFC 9111 §5.2.1, §5.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmproxyd.cache.directives import MOST, NOTHING, Directives, read
from llmproxyd.cache.fields import Found, finder
from llmproxyd.model import Request


@dataclass(frozen=True, slots=True)
class Wants:
    """What a request says of caching, parsed once.

    :param lookup: a stored response may answer it.
    :param store: its response may be stored.
    :param why: one word or clause on why not, for ``X-Cache-Debug``.
    :param authorized: it presents a credential (RFC 9111 §3.5).
    :param opted: a rule or (POST) its client asked for caching beyond the default.
    :param max_stale: :data:`~llmproxyd.cache.directives.MOST` where the client names no limit.
    :param offered: seconds for which the client of a POST wants the answer kept.
    :param conditional: it has a condition that a stored response may meet.
    :param limited: it says something of the response's age.
    """

    lookup: bool
    store: bool
    why: str = ""
    authorized: bool = False
    opted: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float | None = None
    max_stale: float | None = None
    stale_if_error: float | None = None
    offered: float | None = None
    conditional: bool = False
    limited: bool = False


_OVERRIDES: Final = (
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    b"x-original-url",
    b"x-rewrite-url",
)
"""Fields by which some servers answer for another method or path than the one asked for."""

_REFUSED: Final = {
    b"range": "range",
    b"if-range": "range",
    b"if-match": "condition",
    b"if-unmodified-since": "condition",
    **dict.fromkeys(_OVERRIDES, "override"),
}
"""Fields of requests that are passed through, and what to call it."""

_find = finder(
    (
        b"cache-control",
        b"content-length",
        b"if-modified-since",
        b"if-none-match",
        b"pragma",
        b"transfer-encoding",
        *_REFUSED,
    )
)

_NO_CACHE: Final = Directives({b"no-cache": [None]})
_METHODS: Final = (b"GET", b"HEAD", b"POST")
_PLAIN: Final = {
    (authorized, opted): Wants(True, True, authorized=authorized, opted=opted)
    for authorized in (False, True)
    for opted in (False, True)
}
"""What those want that say nothing: nearly all."""

_METHOD: Final = {authorized: Wants(False, False, "method", authorized) for authorized in (False, True)}


def wants_of(request: Request, *, authorized: bool, ttl: float | None = None) -> Wants:
    """What the head of *request* allows.

    GET and HEAD are looked up and stored.  A POST is if a rule's *ttl* opts it in, or its client
    does by ``Cache-Control: public`` with ``max-age`` or ``s-maxage``; its key must then hold the
    whole body.  What was opted in needs no leave of RFC 9111 §3.5, as its entry is for the same
    tenant alone.

    Ranges, ``If-Match``, ``If-Unmodified-Since``, bodies of GET and HEAD (which no key holds) and
    fields that ask for another method or path are passed through; nothing of ``no-store`` is
    looked up or stored.

    :param authorized: the client presented a credential, in whatever place.
    :param ttl: ``default_ttl`` of a rule that matches: opts a request in.
    """
    method = request.method
    if method not in _METHODS:
        return _METHOD[authorized]
    found = _find(request.headers)
    posted = method == b"POST"
    if not found and not posted:
        return _PLAIN[authorized, ttl is not None]
    said = read(found[b"cache-control"]) if b"cache-control" in found else None
    offered = _offered(said) if said is not None and posted else None
    opted = ttl is not None or offered is not None
    if posted and not opted:
        return _METHOD[authorized]
    why = _why_not(found, said, posted)
    if not why and said is None and not (found.keys() - {b"content-length", b"transfer-encoding"}):
        return _PLAIN[authorized, opted]
    return _read(found, said, why, authorized, opted, offered)


def _offered(said: Directives) -> float | None:
    """Seconds for which the client of a POST opts in."""
    if not said.permits(b"public"):
        return None
    seconds = said.seconds(b"s-maxage")
    return (said.seconds(b"max-age") if seconds is None else seconds) or None


def _why_not(found: Found, said: Directives | None, posted: bool) -> str:
    """Why a request is passed through; empty where it is not."""
    if said is not None and said.has(b"no-store"):
        return "no-store"
    for name in found:
        if name in _REFUSED:
            return _REFUSED[name]
    if posted:
        conditional = b"if-none-match" in found or b"if-modified-since" in found
        return "condition" if conditional else ""
    length = found.get(b"content-length")
    if b"transfer-encoding" in found or (
        length is not None and any(value.strip(b" \t0") for value in length)
    ):
        return "body"
    return ""


def _read(
    found: Found, said: Directives | None, why: str, authorized: bool, opted: bool, offered: float | None
) -> Wants:
    conditional = b"if-none-match" in found or b"if-modified-since" in found
    if said is None:
        # Pragma counts only where there is no Cache-Control: RFC 9111 §5.4.
        pragma = b",".join(found.get(b"pragma", ())).lower()
        said = _NO_CACHE if b"no-cache" in pragma else NOTHING
    return Wants(
        not why,
        not why,
        why,
        authorized,
        opted,
        no_cache=said.has(b"no-cache"),
        only_if_cached=said.has(b"only-if-cached"),
        max_age=said.seconds(b"max-age"),
        min_fresh=said.seconds(b"min-fresh", most=True),
        max_stale=float(MOST) if said.permits(b"max-stale") else said.seconds(b"max-stale"),
        stale_if_error=said.seconds(b"stale-if-error"),
        offered=offered,
        conditional=conditional,
        limited=any(map(said.has, (b"no-cache", b"max-age", b"min-fresh"))),
    )

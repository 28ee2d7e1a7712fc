"""What may be stored, and what a 304 makes of it.  RFC 9111 §3, §4.3.4."""

from __future__ import annotations

from email.utils import formatdate
from typing import Final

from llmproxyd.cache.conditions import etag_of, modified_of
from llmproxyd.cache.fields import Found, lines_of
from llmproxyd.cache.freshness import Terms, find, initial_age, terms_of
from llmproxyd.cache.interface import Entry
from llmproxyd.cache.requests import Wants
from llmproxyd.cache.vary import names_of, selecting
from llmproxyd.http.headers import end_to_end, relayed
from llmproxyd.model import RawHeaders, Request, Response
from llmproxyd.wire.fields import Fields, Lines, fields_of

_UNDERSTOOD: Final = frozenset(
    {*range(200, 206), *range(300, 304), 305, 307, 308, *range(400, 418), 421, 422, 426, *range(500, 506)}
)
"""Final statuses of RFC 9110 §15, for ``must-understand``; 206 and 304 are never stored."""

_BY_DEFAULT: Final = frozenset({200, 203, 204, 300, 301, 308})
"""Statuses that a configured or a client's lifetime is for: an error is stored only if it says so itself."""

_LAST: Final = 253402300799.0
"""The last second that has a date."""

_FOR_EVERYONE: Final = frozenset({b"age", b"content-length", b"proxy-authentication-info"})
_FOR_ONE: Final = _FOR_EVERYONE | {b"set-cookie", b"set-cookie2"}
"""Fields that are not stored."""

_OF_HEAD: Final = frozenset({b"content-length"})
_WITHOUT: Final = {
    (everyone, head): (left_out, lines_of(left_out))
    for everyone, names in ((True, _FOR_EVERYONE), (False, _FOR_ONE))
    for head, left_out in ((False, names), (True, names - _OF_HEAD))
}
"""The same, and what finds their lines, by whether the response is for everyone and answers HEAD."""

_KEPT: Final = (
    b"content-encoding",
    b"content-range",
    b"content-md5",
    b"content-digest",
    b"repr-digest",
    b"vary",
)
"""Fields that belong to the content as it is stored; a 304 does not change them.  RFC 9111 §3.2."""


def storable(
    request: Request,
    wants: Wants,
    response: Response,
    *,
    requested: float,
    received: float,
    ttl: float | None = None,
) -> Entry | str:
    """The entry for *response*, its body still empty, or why it may not be stored.  RFC 9111 §3.

    The caller fills in ``body``, ``url`` and ``project``, and stores none that is not complete.

    ``Set-Cookie`` is left out of what is stored unless the upstream says that the response is the
    same for everyone (``public`` or ``s-maxage``): a cookie is for one client, and providers set
    some on every answer, so to store none of those would be to store nothing.

    What the client or the configuration opted in (see :func:`wants_of`) is stored for a request
    with credentials too, unless it is an error.

    :param ttl: seconds of freshness where neither side names any.
    """
    status = response.status
    if not wants.store:
        return wants.why or "request"
    if not 200 <= status <= 599 or status in (206, 304):
        return "status"
    found = find(response.headers)
    terms = terms_of(found, received)
    refused = _refused(terms, status)
    if refused:
        return refused
    if b"content-range" in found:
        return "partial"
    if wants.authorized and not _for_authorized(terms) and not (wants.opted and status < 400):
        return "authorization"
    varied = selecting(request, found)
    if varied is None:
        return "vary"
    lifetime = terms.lifetime
    if lifetime is None:
        lifetime = (_granted(wants, ttl) or 0.0) if status in _BY_DEFAULT else 0.0
    etag = etag_of(found) if b"etag" in found else None
    modified = modified_of(found, received) if b"last-modified" in found else None
    can_be_asked = status == 200 and request.method != b"POST" and (etag or modified)
    if not (lifetime or terms.if_error or terms.meanwhile or can_be_asked):
        return "no freshness"
    headers = _stored_fields(response.headers, terms, request.method == b"HEAD")
    if b"date" not in found:
        headers = fields_of([*headers, _date(received)])
    return Entry(
        status=status,
        reason=response.reason,
        headers=headers,
        body=b"",
        varied=varied,
        requested=requested,
        received=received,
        lifetime=lifetime,
        age=initial_age(found, requested, received),
        etag=etag,
        last_modified=modified,
        must_revalidate=terms.strict,
        no_cache=terms.confirm,
        stale_if_error=terms.if_error,
        stale_while_revalidate=terms.meanwhile,
        method=request.method,
    )


def _granted(wants: Wants, ttl: float | None) -> float | None:
    """Seconds of freshness for what names none: as configured, else as the client offered."""
    return wants.offered if ttl is None else ttl


def _refused(terms: Terms, status: int) -> str:
    """Which directive forbids that a response is stored; empty if none does.

    A status that is understood lets ``must-understand`` overrule ``no-store`` (RFC 9111 §5.2.2.3).
    """
    said = terms.said
    if not said:
        return ""
    if said.has(b"private"):
        return "private"
    if said.has(b"must-understand") and status not in _UNDERSTOOD:
        return "must-understand"
    if said.has(b"no-store") and not said.permits(b"must-understand"):
        return "no-store"
    return ""


def _for_authorized(terms: Terms) -> bool:
    """Whether a response to a request with credentials may be stored.  RFC 9111 §3.5."""
    return terms.everyone or terms.said.has(b"must-revalidate")


def _stored_fields(headers: RawHeaders, terms: Terms, head: bool) -> Fields:
    """What is stored of *headers*.  RFC 9111 §3.1.

    ``Age`` is told anew each time, and so is the length, from the body itself; of an answer to
    HEAD there is none to tell it from.
    """
    names, lines = _WITHOUT[terms.everyone, head]
    passing = relayed(headers)
    if not isinstance(headers, Fields) or not isinstance(passing, Lines) or passing.block is None:
        return fields_of(end_to_end(headers, without=names))
    # As they stand in the head: pairs are made of them when somebody asks.
    block = lines.sub(b"", passing.block)
    lengths = headers.lengths if head else ()
    return Fields(block, None, headers.media, headers.coding, headers.ids, lengths, (), (), None)


def confirmed(entry: Entry, response: Response, *, requested: float, received: float) -> Entry:
    """*entry* with the fields of the 304 *response* that confirms it.  RFC 9111 §3.2, §4.3.4.

    Ask :func:`is_confirmed` before, and :func:`may_be_kept` whether the new entry may be stored;
    it answers the request at hand in either case.  A lifetime that came from the configuration or
    the client begins anew.
    """
    before, new = find(entry.headers), find(response.headers)
    headers = _updated(entry, response.headers, terms_of(new, received))
    if b"date" not in new:
        headers = [pair for pair in headers if pair[0].lower() != b"date"]
        headers.append(_date(received))
    merged = find(headers)
    terms = terms_of(merged, received)
    lifetime = terms.lifetime
    if lifetime is None:
        lifetime = entry.lifetime if terms_of(before, entry.received).lifetime is None else 0.0
    return Entry(
        status=entry.status,
        reason=entry.reason,
        headers=fields_of(headers),
        body=entry.body,
        varied=entry.varied,
        requested=requested,
        received=received,
        lifetime=lifetime,
        age=initial_age(new, requested, received),
        etag=etag_of(merged),
        last_modified=modified_of(merged, received),
        must_revalidate=terms.strict,
        # Which further fields select it now cannot be told: it is good for those alone who ask.
        no_cache=terms.confirm or _varies_anew(before, new),
        stale_if_error=terms.if_error,
        stale_while_revalidate=terms.meanwhile,
        url=entry.url,
        method=entry.method,
        project=entry.project,
    )


def _updated(entry: Entry, headers: RawHeaders, terms: Terms) -> list[tuple[bytes, bytes]]:
    """The fields of *entry*, those of a 304 in place of the ones with the same names."""
    kept = _KEPT if entry.etag is None else (*_KEPT, b"etag")
    update = [pair for pair in _stored_fields(headers, terms, False) if pair[0].lower() not in kept]
    replaced = {name.lower() for name, _ in update}
    return [pair for pair in entry.headers if pair[0].lower() not in replaced] + update


def _date(received: float) -> tuple[bytes, bytes]:
    """``Date`` for a response that came without one.  RFC 9110 §6.6.1."""
    return b"Date", formatdate(min(max(0.0, received), _LAST), usegmt=True).encode()


def _varies_anew(before: Found, new: Found) -> bool:
    """Whether a 304 names other selecting fields than what is stored."""
    return b"vary" in new and names_of(new[b"vary"]) != names_of(before.get(b"vary", ()))


def may_be_kept(entry: Entry) -> bool:
    """Whether *entry*, with the fields of the 304 that confirmed it, may still be stored."""
    return not _refused(terms_of(find(entry.headers), entry.received), entry.status)

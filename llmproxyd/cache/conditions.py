"""Conditions: those of clients, judged by what is stored, and our own.  RFC 9110 §13, RFC 9111 §4.3."""

from __future__ import annotations

import re

from llmproxyd.cache.fields import Found, finder, only, values_of
from llmproxyd.cache.freshness import date_of, find
from llmproxyd.cache.interface import Entry
from llmproxyd.http.dates import seconds_of
from llmproxyd.model import RawHeaders, Request

_TAG = re.compile(rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"')
_TAGS = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*+")(?=[ \t]*+(?:,|\Z))')
_asked = finder((b"if-none-match", b"if-modified-since"))


def etag_of(found: Found) -> bytes | None:
    """The entity tag of a response; ``None`` where it is none or there are several."""
    value = only(found, b"etag")
    return value if value is not None and _TAG.fullmatch(value) else None


def modified_of(found: Found, now: float) -> bytes | None:
    """``Last-Modified`` of a response, where it is a date."""
    value = only(found, b"last-modified")
    return value if value is not None and seconds_of(value, now) is not None else None


def conditions_for(entry: Entry) -> list[tuple[bytes, bytes]]:
    """What asks whether *entry* still holds; none where a 304 could not come.  RFC 9111 §4.3.1."""
    if entry.status != 200 or entry.method == b"POST":
        return []
    fields = []
    if entry.etag is not None:
        fields.append((b"If-None-Match", entry.etag))
    if entry.last_modified is not None:
        fields.append((b"If-Modified-Since", entry.last_modified))
    return fields


def unmodified(entry: Entry, request: Request, now: float) -> bool:
    """Whether *request* is answered 304: the client says that it has what is stored.

    ``If-None-Match`` is compared weakly and hides ``If-Modified-Since``, which is compared with
    ``Last-Modified``, else ``Date``, else when the response came.  RFC 9111 §4.3.2.
    """
    if entry.status != 200 or entry.method == b"POST":
        return False
    asked = _asked(request.headers)
    if b"if-none-match" in asked:
        return _has_tag(b",".join(asked[b"if-none-match"]), entry.etag)
    values = asked.get(b"if-modified-since")
    if values is None or len(values) != 1:
        return False
    since = seconds_of(values[0], now)
    return since is not None and _modified(entry) <= since


def _has_tag(tags: bytes, etag: bytes | None) -> bool:
    if tags.strip(b" \t") == b"*":
        return True
    return etag is not None and _opaque(etag) in _TAGS.findall(tags)


def _opaque(tag: bytes) -> bytes:
    """*tag* as it is compared weakly.  RFC 9110 §8.8.3.2."""
    return tag.removeprefix(b"W/")


def _modified(entry: Entry) -> float:
    """When what is stored was last changed, as far as is known."""
    if entry.last_modified is not None:
        modified = seconds_of(entry.last_modified, entry.received)
        if modified is not None:
            return modified
    sent = date_of(find(entry.headers), entry.received)
    return entry.received if sent is None else sent


def is_confirmed(entry: Entry, headers: RawHeaders, received: float) -> bool:
    """Whether a 304 with *headers* speaks of *entry*.  RFC 9111 §4.3.4."""
    found = find(headers)
    etag = etag_of(found)
    if etag is not None and not etag.startswith(b"W/"):
        return etag == entry.etag
    if etag is not None and entry.etag is not None:
        return _opaque(etag) == _opaque(entry.etag)
    if etag is not None or values_of(headers, b"etag"):
        return False
    modified = modified_of(found, received)
    return modified is None or entry.last_modified is None or modified == entry.last_modified

"""Header fields as raw lists of pairs: what may pass from one connection to the next.

RFC 9110 §7.6.1 for the hop-by-hop fields, RFC 9112 for framing.  Each list is walked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

from llmproxyd.model import RawHeaders
from llmproxyd.wire.fields import HOP_BY_HOP, Fields

OURS = b"x-llmproxyd-"
"""Prefix of the fields that are addressed to the proxy; none goes upstream."""


class _Way(IntEnum):
    """What becomes of a field on its way to the client."""

    PASSES = 0
    STAYS = 1
    NAMES = 2


_KNOWN = 1024
"""Spellings that are remembered."""


class _Ways(dict[bytes, _Way]):
    """By spelling; a name that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> _Way:
        lower = name.lower()
        way = _Way.STAYS if lower in HOP_BY_HOP else _Way.PASSES
        if lower == b"connection":
            way = _Way.NAMES
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = way
        return way


_way: Callable[[bytes], _Way] = _Ways().__getitem__

_USUAL = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
"""Values of ``Connection`` that name no field but one that stays here anyway."""


def relayed(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The fields of an upstream's answer that go to the client, in order, case and duplicates kept."""
    fields = list(headers)
    places = headers.special if isinstance(headers, Fields) else range(len(fields))
    for place in reversed(places):
        name, value = fields[place]
        way = _way(name)
        if way is _Way.NAMES and value not in _USUAL:
            return end_to_end(headers)
        if way is not _Way.PASSES:
            del fields[place]
    return fields


def connection_named(headers: RawHeaders) -> frozenset[bytes]:
    """The fields named by ``Connection``, over all its fields and commas, lower case."""
    named = []
    for name, value in headers:
        if name.lower() == b"connection":
            named += [token.strip().lower() for token in value.split(b",")]
    return frozenset(named)


def end_to_end(headers: RawHeaders, *, without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """*headers* less those that end here, in order, case and duplicates kept.

    A length that ``Connection`` names stays: without it nobody would know where the body ends.

    :param without: further names (lower case) to leave out.
    """
    dropped = HOP_BY_HOP.union(without, connection_named(headers) - {b"content-length"})
    return [pair for pair in headers if pair[0].lower() not in dropped]


def for_upstream(headers: RawHeaders, host: bytes) -> list[tuple[bytes, bytes]]:
    """What of a request's fields goes upstream.

    ``Host`` names the upstream, in the place of the client's.  ``Content-Length`` and
    ``Transfer-Encoding`` keep their places; what they say is for whoever writes the body.
    Fields of ours stay here, and those that ``Connection`` names, unless they frame the message.
    """
    dropped = HOP_BY_HOP.union(connection_named(headers), (b"expect",)) - {
        b"host",
        b"content-length",
        b"transfer-encoding",
    }
    fields = []
    for pair in headers:
        lower = pair[0].lower()
        if lower == b"host":
            fields.append((pair[0], host))
        elif lower not in dropped and not lower.startswith(OURS):
            fields.append(pair)
    return fields


def content_of(headers: RawHeaders) -> tuple[bytes, bytes]:
    """The values of ``Content-Type`` and ``Content-Encoding``, empty where there is none."""
    media = coding = b""
    places = headers.special if isinstance(headers, Fields) else range(len(headers))
    for place in places:
        name, value = headers[place]
        kind = _content(name)
        if kind is _Content.TYPE:
            media = media or value
        elif kind is _Content.CODING:
            coding = coding or value
    return media, coding


class _Content(IntEnum):
    """What a field tells of the body."""

    NOTHING = 0
    TYPE = 1
    CODING = 2


class _Contents(dict[bytes, _Content]):
    """By spelling, as :class:`_Ways`."""

    def __missing__(self, name: bytes) -> _Content:
        kinds = {b"content-type": _Content.TYPE, b"content-encoding": _Content.CODING}
        kind = kinds.get(name.lower(), _Content.NOTHING)
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = kind
        return kind


_content: Callable[[bytes], _Content] = _Contents().__getitem__


def first(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of *name* (lower case), or ``None``."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None

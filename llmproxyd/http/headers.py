"""Header fields as raw lists of pairs: what may pass from one connection to the next.

RFC 9110 §7.6.1 for the hop-by-hop fields, RFC 9112 for framing.  Each list is walked once.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from llmproxyd.model import RawHeaders

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that belong to one connection."""

OURS = b"x-llmproxyd-"
"""Prefix of the fields that are addressed to the proxy; none goes upstream."""


class _Way(IntEnum):
    """What becomes of a field on its way to the client."""

    PASSES = 0
    STAYS = 1
    NAMES = 2
    CONTENT_TYPE = 3
    CONTENT_ENCODING = 4


_WAYS = dict.fromkeys(HOP_BY_HOP, _Way.STAYS) | {
    b"connection": _Way.NAMES,
    b"content-type": _Way.CONTENT_TYPE,
    b"content-encoding": _Way.CONTENT_ENCODING,
}

_KNOWN = 1024
"""Spellings that are remembered."""

_spellings: dict[bytes, _Way] = {}

# Looked up once: an attribute of an Enum class costs what a method call costs.
_PASSES, _STAYS, _NAMES, _TYPE, _ENCODING = _Way

_USUAL = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
"""Values of ``Connection`` that name no field but one that stays here anyway."""


class Relayed(NamedTuple):
    """What of an answer's fields goes to the client, and what they say of its body.

    :param fields: the end-to-end ones, in order, case and duplicates kept.
    :param content_type: the first, empty without one.
    :param coded: whether the body has a content coding.
    """

    fields: list[tuple[bytes, bytes]]
    content_type: bytes
    coded: bool


def relayed(headers: RawHeaders) -> Relayed:
    """The fields of an upstream's answer, on their way to the client."""
    content_type, coded, named = b"", False, False
    fields = []
    for pair in headers:
        name = pair[0]
        way = _spellings.get(name)
        if way is None:
            way = _way_of(name)
        if way is _PASSES:
            fields.append(pair)
        elif way is _NAMES:
            named = named or pair[1] not in _USUAL
        elif way is _TYPE:
            content_type = content_type or pair[1]
            fields.append(pair)
        elif way is _ENCODING:
            coded = coded or bool(pair[1])
            fields.append(pair)
    if named:
        fields = end_to_end(headers)
    return Relayed(fields, content_type, coded)


def _way_of(name: bytes) -> _Way:
    way = _WAYS.get(name.lower(), _PASSES)
    if len(_spellings) < _KNOWN and len(name) <= 64:
        _spellings[name] = way
    return way


def connection_named(headers: RawHeaders) -> frozenset[bytes]:
    """The fields named by ``Connection``, over all its fields and commas, lower case."""
    named = []
    for name, value in headers:
        if name.lower() == b"connection":
            named += [token.strip().lower() for token in value.split(b",")]
    return frozenset(named)


def end_to_end(headers: RawHeaders, *, without: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """*headers* less those that end here, in order, case and duplicates kept.

    :param without: further names (lower case) to leave out.
    """
    dropped = HOP_BY_HOP.union(without, connection_named(headers))
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
    for name, value in headers:
        lower = name.lower()
        if lower == b"host":
            fields.append((name, host))
        elif lower not in dropped and not lower.startswith(OURS):
            fields.append((name, value))
    return fields


def first(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of *name* (lower case), or ``None``."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None

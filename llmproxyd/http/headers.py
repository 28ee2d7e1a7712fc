"""Header fields as raw lists of pairs: what may pass from one connection to the next.

RFC 9110 §7.6.1 for the hop-by-hop fields, RFC 9112 for framing.  Each list is walked once.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmproxyd.model import RawHeaders
from llmproxyd.wire.fields import HOP_BY_HOP, fields_of

OURS = b"x-llmproxyd-"
"""Prefix of the fields that are addressed to the proxy; none goes upstream."""


_USUAL = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
"""Values of ``Connection`` that name no field but one that stays here anyway."""


def relayed(headers: RawHeaders) -> RawHeaders:
    """The fields of an upstream's answer that go to the client, in order, case and duplicates kept."""
    fields = fields_of(headers)
    if fields.fewer is None:
        return fields
    return fields.fewer if _USUAL.issuperset(fields.connection) else end_to_end(headers)


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
    fields = fields_of(headers)
    return fields.media, fields.coding


def first(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of *name* (lower case), or ``None``."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None

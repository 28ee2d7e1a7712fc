"""Header fields as raw lists of pairs: what may pass from one connection to the next.

RFC 9110 §7.6.1 for the hop-by-hop fields, RFC 9112 for framing.
"""

from __future__ import annotations

from collections.abc import Iterable

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

FRAMING = frozenset({b"host", b"content-length", b"expect"})
"""Fields that each side sets for itself."""

OURS = b"x-llmproxyd-"
"""Prefix of the fields that are addressed to the proxy; none goes upstream."""


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


def for_upstream(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """What of a request's fields goes upstream: framing and fields of ours are left out."""
    return [pair for pair in end_to_end(headers, without=FRAMING) if not pair[0].lower().startswith(OURS)]


def first(headers: RawHeaders, name: bytes) -> bytes | None:
    """The first value of *name* (lower case), or ``None``."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None

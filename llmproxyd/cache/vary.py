"""Which of several stored responses a request selects.  RFC 9111 §4.1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

from llmproxyd.cache.fields import Found, values_of
from llmproxyd.cache.interface import Entry
from llmproxyd.model import RawHeaders, Request

Varied = tuple[tuple[bytes, bytes | None], ...]

MOST_NAMES = 32
"""Names that ``Vary`` may hold; a response that varies by more is not stored."""

METHOD = b":method"
"""No field: stands among those that select an entry for HEAD alone, which has no body."""

_PLAIN = 64
"""Bytes of a value that is kept as it is; of a longer one, and of a credential, a hash is."""

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_LISTS = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
_CASELESS = _LISTS - {b"accept"}
_COMMA = re.compile(rb"[ \t]*+,[ \t]*+")
_OPEN = frozenset({b"origin", b"user-agent", b"content-type", b"content-encoding"}) | _LISTS
"""Fields that no credential stands in."""


def names_of(fields: Sequence[bytes]) -> tuple[bytes, ...] | None:
    """The names in ``Vary``, lower case, each once.

    :returns: ``None`` for ``*``, for what is no name, and for too many: nothing ever matches those.
    """
    names: dict[bytes, None] = {}
    for part in b",".join(fields).split(b","):
        name = part.strip(b" \t")
        if name:
            if name == b"*" or not _NAME.fullmatch(name):
                return None
            names[name.lower()] = None
            if len(names) > MOST_NAMES:
                return None
    return tuple(sorted(names))


def selecting(request: Request, found: Found) -> Varied | None:
    """What selects the response whose fields were *found*; ``None`` where nothing can.

    What is coded varies by ``Accept-Encoding`` even where the upstream forgot to say so.
    """
    if b"vary" not in found and b"content-encoding" not in found:
        return ((METHOD, b"HEAD"),) if request.method == b"HEAD" else ()
    names = names_of(found.get(b"vary", ()))
    if names is None:
        return None
    if b"content-encoding" in found and b"accept-encoding" not in names:
        names = tuple(sorted((*names, b"accept-encoding")))
    varied = tuple((name, normalised(name, request.headers)) for name in names)
    return ((METHOD, b"HEAD"), *varied) if request.method == b"HEAD" else varied


def normalised(name: bytes, headers: RawHeaders) -> bytes | None:
    """The value of *name* (lower case) over all its fields, ``None`` where there is none.

    Differences that mean nothing are taken out: lines, spaces around them, and in lists around
    commas; case where it does not count.
    """
    values = values_of(headers, name)
    if not values:
        return None
    value = b", ".join(value.strip(b" \t") for value in values)
    if name in _LISTS:
        value = _COMMA.sub(b",", value)
    if name in _CASELESS:
        value = value.lower()
    if len(value) <= _PLAIN and name in _OPEN and not value.startswith(b"\x00"):
        return value
    # Nothing that may be a secret goes into a store, and none of it grows with what a client sends.
    return b"\x00" + blake2b(value, digest_size=32).digest()


def select(entries: Sequence[Entry], request: Request) -> tuple[Entry | None, str]:
    """The most recent of *entries* that *request* selects, or why there is none.

    One that is older than the first of those that vary by a further field is left out: it cannot
    be told which variant it is.
    """
    method, headers = request.method, request.headers
    needed: set[bytes] | None = None
    values: dict[bytes, bytes | None] = {METHOD: b"HEAD"}
    several = len(entries) > 1
    for entry in sorted(entries, key=_made, reverse=True) if several else entries:
        if entry.method != method and not (method == b"HEAD" and entry.method == b"GET"):
            continue
        if several:
            names = {name for name, _ in entry.varied if name != METHOD}
            if needed is None:
                needed = names
            if not needed <= names:
                continue
        else:
            needed = set()
        for name, value in entry.varied:
            if name not in values:
                values[name] = normalised(name, headers)
            if values[name] != value:
                break
        else:
            return entry, ""
    return None, "uri-miss" if needed is None else "vary-miss"


def _made(entry: Entry) -> float:
    """When the upstream made it, seconds since the epoch."""
    return entry.received - entry.age

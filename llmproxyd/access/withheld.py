"""What a client presented is taken off its request, wherever in the head it stands.

The places that are read for a token (:mod:`~llmproxyd.access.presented`) are emptied in any case.
Clients write it into others, too, and a credential of their own into places that are not read
here but at some upstream: neither is for an upstream that gets the project's.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from llmproxyd.access.presented import credentials_of
from llmproxyd.model import RawHeaders, Request

ARGUMENTS = frozenset(
    {b"key", b"access_token", b"oauth_token", b"api_key", b"api-key", b"apikey", b"subscription-key"}
)
"""Arguments of the query in which servers take a credential (RFC 6750 §2.3; Google, Azure), lower case."""

LEAST = 16
"""Bytes from which on a credential is looked for elsewhere: a dummy such as ``none`` stands anywhere."""

_DECODINGS = 3
"""So many times an argument is decoded in search of what is taken off."""


def secrets_in_head(request: Request) -> tuple[bytes, ...]:
    """What *request* presents, as far as it cannot stand anywhere by chance."""
    found = (text.encode("latin-1", "replace") for text in credentials_of(request))
    return tuple(one for one in found if len(one) >= LEAST)


def fields_without(fields: RawHeaders, secrets: Collection[bytes]) -> list[tuple[bytes, bytes]]:
    """*fields* less those that hold one of *secrets*."""
    return [pair for pair in fields if not any(one in pair[1] for one in secrets)]


def target_without(target: bytes, secrets: Collection[bytes]) -> bytes:
    """*target* less the arguments that hold a credential; what is left stays as it came.

    :param target: raw path and query.
    """
    path, mark, query = target.partition(b"?")
    if not query:
        return target
    parts = query.split(b"&")
    kept = [part for part in parts if not _is_credential(part, secrets)]
    if len(kept) == len(parts):
        return target
    return path + mark + b"&".join(kept) if kept else path


def _is_credential(part: bytes, secrets: Collection[bytes]) -> bool:
    """Whether *part* of a query is one for a server that decodes it, once or more often."""
    for _ in range(_DECODINGS + 1):
        if any(one in part for one in secrets):
            return True
        # For some servers, arguments are parted by semicolons, too.
        names = (one.partition(b"=")[0] for one in part.split(b";"))
        if any(name.strip().lower() in ARGUMENTS for name in names):
            return True
        if b"%" not in part and b"+" not in part:
            return False
        part = unquote_to_bytes(part.replace(b"+", b" "))
    return False

"""The token that a client presents: wherever its SDK puts a provider's key.

``Authorization`` (Bearer; Basic with the token as user or password), ``x-api-key``,
``x-goog-api-key``, ``api-key``, and ``key=`` in the query.  The argument's name counts only as it is
spelt here, without percent-encoding: all that is accepted is also taken off the request before
it goes upstream.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator
from enum import IntEnum
from urllib.parse import unquote

from llmproxyd.access.tokens import looks_like
from llmproxyd.errors import Refused
from llmproxyd.model import Request

CHALLENGE = ((b"www-authenticate", b'Bearer realm="llmproxyd"'),)
"""Belongs on every 401 (RFC 9110 §15.5.2)."""

MISSING = "Present a token of this proxy where your client has its API key."

AMBIGUOUS = (
    "The request presents several different tokens, and which of them counts would be a guess; send one."
)

_ARGUMENT = b"key="
_KNOWN = 1024
"""Spellings that are remembered."""


def credential_of(request: Request) -> str | None:
    """The token that *request* presents; ``None`` where it presents no credential at all.

    SDKs fill several places, some with dummies.  What has the form of our tokens counts; it may
    stand in several places, but it must be one and the same.  Where nothing has that form, the
    first credential is what was presented, for the answer to say that it is unknown.

    :raises Refused: 401 ``token_ambiguous``.
    """
    found = credentials_of(request)
    if len(found) < 2:
        return found[0] if found else None
    ours = [text for text in found if looks_like(text)]
    if len(ours) > 1:
        raise Refused(401, "token_ambiguous", AMBIGUOUS, CHALLENGE)
    return ours[0] if ours else found[0]


def credentials_of(request: Request) -> tuple[str, ...]:
    """All different credentials that *request* presents, in order, those of the query last."""
    found: list[str] = []
    for name, value in request.headers:
        place = _place(name)
        if not place:
            continue
        text = value.decode("latin-1").strip()
        if place is _Place.KEY:
            found.append(text)
        else:
            found += _authorized(text)
    if request.query:
        found += [
            unquote(part[len(_ARGUMENT) :].decode("latin-1"))
            for part in request.query.split(b"&")
            if part.startswith(_ARGUMENT)
        ]
    if len(found) == 1 and found[0]:
        return (found[0],)
    return tuple(dict.fromkeys(text for text in found if text))


def _authorized(value: str) -> Iterator[str]:
    """The credentials in an ``Authorization`` field (RFC 9110 §11.6.2); some leave its scheme out."""
    scheme, _, rest = value.partition(" ")
    scheme, rest = scheme.lower(), rest.strip()
    if scheme != "basic":
        yield rest if scheme == "bearer" else value
        return
    try:
        login = b64decode(rest, validate=True).decode("latin-1")
    except ValueError:
        yield rest
        return
    user, _, password = login.partition(":")
    yield password
    yield user


class _Place(IntEnum):
    """What a field may hold."""

    NOTHING = 0
    KEY = 1
    AUTHORIZATION = 2


_PLACES = {
    b"authorization": _Place.AUTHORIZATION,
    b"x-api-key": _Place.KEY,
    b"x-goog-api-key": _Place.KEY,
    b"api-key": _Place.KEY,
}


class _Places(dict[bytes, _Place]):
    """By spelling; a name that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> _Place:
        place = _PLACES.get(name.lower(), _Place.NOTHING)
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = place
        return place


_place: Callable[[bytes], _Place] = _Places().__getitem__

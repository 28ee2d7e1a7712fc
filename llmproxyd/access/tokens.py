"""What tokens look like, and how they are known again.

A token is ``sk-`` and 22 characters of base64url (RFC 4648 §5), the form of a provider's key, for
clients that look at it.  Its SHA-256 is what is kept: 128 random bits need no slow hash.
"""

from __future__ import annotations

import re
from base64 import b32encode, urlsafe_b64encode
from hashlib import sha256

PREFIX = "sk-"
LENGTH = 25
"""Characters of a token."""

ENTROPY = 16
"""Random bytes that a token needs."""

ID_ENTROPY = 10
"""Random bytes that an id needs."""

_FORM = re.compile(r"sk-[A-Za-z0-9_-]{22}")
_SHOWN = 7
_EMPTY = sha256()


def new_token(random: bytes) -> str:
    """A token.

    :param random: of a source that nobody can guess.
    :raises ValueError: fewer than :data:`ENTROPY` bytes.
    """
    if len(random) < ENTROPY:
        raise ValueError(f"a token needs {ENTROPY} random bytes")
    return (PREFIX + urlsafe_b64encode(random).decode("ascii"))[:LENGTH]


def new_id(prefix: str, random: bytes) -> str:
    """*prefix* and 16 characters of base32, lower case.

    :raises ValueError: fewer than :data:`ID_ENTROPY` bytes.
    """
    if len(random) < ID_ENTROPY:
        raise ValueError(f"an id needs {ID_ENTROPY} random bytes")
    return prefix + b32encode(random[:ID_ENTROPY]).decode("ascii").lower()


def digest_of(token: str) -> bytes:
    """What is kept of *token*, and what it is looked up by: 32 bytes.

    Whoever compares digests learns nothing of the token from how long it takes.
    """
    # A copy takes half as long as to ask for the algorithm again, which every request would.
    digest = _EMPTY.copy()
    digest.update(token.encode("utf-8", "surrogatepass"))
    return digest.digest()


def shown(token: str) -> str:
    """As much of *token* as people may see (``sk-Ab3x…``); the rest has more than 100 bits still."""
    return token[:_SHOWN] + "…"


def looks_like(token: str) -> bool:
    """Whether *token* has the form of ours."""
    return len(token) == LENGTH and _FORM.fullmatch(token) is not None

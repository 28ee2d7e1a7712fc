"""Fields that frame a message, told by name.  RFC 9110 §7.6, RFC 9112 §6."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

MAX_FIELDS = 100
"""Header fields of one message, in either direction."""

MAX_LENGTH = 2**63 - 1
"""Bytes of a body, and of a chunk."""


class Framing(IntEnum):
    """What a field means to the connection."""

    NONE = 0
    HOST = 1
    CONTENT_LENGTH = 2
    TRANSFER_ENCODING = 3
    CONNECTION = 4
    EXPECT = 5
    UPGRADE = 6
    LOOKALIKE = 7
    """Equal to a framing field where ``_`` is read as ``-``, as some servers do."""


_MEANINGS = {
    b"host": Framing.HOST,
    b"content-length": Framing.CONTENT_LENGTH,
    b"transfer-encoding": Framing.TRANSFER_ENCODING,
    b"connection": Framing.CONNECTION,
    b"expect": Framing.EXPECT,
    b"upgrade": Framing.UPGRADE,
    b"content_length": Framing.LOOKALIKE,
    b"transfer_encoding": Framing.LOOKALIKE,
}

_KNOWN = 1024
"""Spellings that are remembered."""


class _Meanings(dict[bytes, Framing]):
    """By spelling; a name that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> Framing:
        found = _MEANINGS.get(name.lower(), Framing.NONE)
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = found
        return found


meaning: Callable[[bytes], Framing] = _Meanings().__getitem__
"""What the field of this name, in any case, means to the connection."""


def options(values: Iterable[bytes]) -> frozenset[bytes]:
    """All options of the ``Connection`` fields, lower case."""
    return frozenset(
        option for value in values for part in value.split(b",") if (option := part.strip(b" \t").lower())
    )


def length_of(value: bytes) -> int | None:
    """The number that a ``Content-Length`` says, ``None`` for one that is none.

    Digits alone, at most :data:`MAX_LENGTH` (RFC 9110 §8.6).
    """
    if not value.isdigit() or len(value) > 19:
        return None
    length = int(value)
    return length if length <= MAX_LENGTH else None

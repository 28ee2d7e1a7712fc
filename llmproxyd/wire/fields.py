"""Fields that frame a message, told by name.  RFC 9110 §7.6, RFC 9112 §6."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
"""Fields that belong to one connection.  RFC 9110 §7.6.1."""

CONTENT = frozenset({b"content-type", b"content-encoding"})
"""Fields that tell how a body is to be read.  RFC 9110 §8.3, §8.4."""

ANSWER_IDS = frozenset(
    {
        b"x-request-id",  # OpenAI and most that speak its dialect
        b"request-id",  # Anthropic
        b"apim-request-id",  # Azure
        b"x-ms-request-id",
        b"x-amzn-requestid",  # Bedrock
        b"x-amz-request-id",
        b"x-goog-request-id",
        b"x-generation-id",  # OpenRouter
        b"mistral-correlation-id",
        b"x-debug-trace-id",  # Cohere
    }
)
"""Fields in which an upstream names its answer, for whoever asks it about one."""

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

_ASKED_FOR = HOP_BY_HOP | CONTENT | ANSWER_IDS

_KNOWN = 1024
"""Spellings that are remembered."""


plain: set[bytes] = set()
"""Spellings of names that nobody asks for here, as far as :data:`meaning` has met them."""


class _Meanings(dict[bytes, Framing]):
    """By spelling; a name that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> Framing:
        found = _MEANINGS.get(name.lower(), Framing.NONE)
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = found
            if found is Framing.NONE and name.lower() not in _ASKED_FOR:
                plain.add(name)
        return found


meaning: Callable[[bytes], Framing] = _Meanings().__getitem__
"""What the field of this name, in any case, means to the connection."""


class Fields(list[tuple[bytes, bytes]]):
    """The fields of a head as they came.

    :ivar special: the places of all that may be something to the connection, tell how the body is to
        be read, or name the answer; set by whoever made the list.  They are few, and nobody need walk the
        others to find them.
    """

    __slots__ = ("special",)

    special: Sequence[int]


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """*headers* with the places of those that are special."""
    fields = Fields(headers)
    fields.special = [place for place, (name, _) in enumerate(fields) if name not in plain]
    return fields


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

"""Fields that mean something here, told by name.

They frame the message (RFC 9110 §7.6, RFC 9112 §6), belong to one connection, tell how the body is
to be read, or name the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, overload

MAX_FIELDS = 100
"""Header fields of one message, in either direction."""

MAX_LENGTH = 2**63 - 1
"""Bytes of a body, and of a chunk."""


class Meaning(IntEnum):
    """What a field means, to the connection and to who reads along."""

    NONE = 0
    HOST = 1
    CONTENT_LENGTH = 2
    TRANSFER_ENCODING = 3
    CONNECTION = 4
    EXPECT = 5
    UPGRADE = 6
    LOOKALIKE = 7
    """Equal to a framing field where ``_`` is read as ``-``, as some servers do."""
    HOP_BY_HOP = 8
    """Belongs to the connection in another way."""
    CONTENT_TYPE = 9
    CONTENT_ENCODING = 10
    ANSWER_ID = 11


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

MEANINGS: Final = {
    **dict.fromkeys(HOP_BY_HOP, Meaning.HOP_BY_HOP),
    **dict.fromkeys(ANSWER_IDS, Meaning.ANSWER_ID),
    b"host": Meaning.HOST,
    b"content-length": Meaning.CONTENT_LENGTH,
    b"transfer-encoding": Meaning.TRANSFER_ENCODING,
    b"connection": Meaning.CONNECTION,
    b"expect": Meaning.EXPECT,
    b"upgrade": Meaning.UPGRADE,
    b"content_length": Meaning.LOOKALIKE,
    b"transfer_encoding": Meaning.LOOKALIKE,
    b"content-type": Meaning.CONTENT_TYPE,
    b"content-encoding": Meaning.CONTENT_ENCODING,
}
"""By name, in lower case."""

SPACE: Final = b" \t"
"""Not part of a value, RFC 9112 §5."""

_KNOWN = 1024
"""Spellings that are remembered."""


class _Meanings(dict[bytes, Meaning]):
    """By spelling; a name that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> Meaning:
        found = MEANINGS.get(name.lower(), Meaning.NONE)
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = found
        return found


meaning: Callable[[bytes], Meaning] = _Meanings().__getitem__
"""What the field of this name, in any case, means."""

Pair = tuple[bytes, bytes]
NO_PAIRS: tuple[Pair, ...] = ()
NO_VALUES: tuple[bytes, ...] = ()

# An attribute of an enumeration costs more than the comparison.
_CONTENT_LENGTH: Final = Meaning.CONTENT_LENGTH
_TRANSFER_ENCODING: Final = Meaning.TRANSFER_ENCODING
_CONNECTION: Final = Meaning.CONNECTION
_CONTENT_TYPE: Final = Meaning.CONTENT_TYPE
_CONTENT_ENCODING: Final = Meaning.CONTENT_ENCODING
_ANSWER_ID: Final = Meaning.ANSWER_ID
_UPGRADE: Final = Meaning.UPGRADE
_HOP_BY_HOP: Final = Meaning.HOP_BY_HOP


class Fields(Sequence[Pair]):
    """The fields of an answer as they came, and what most ask of them, found out once.

    Made of pairs or of lines; of these pairs are made when somebody asks for them.

    :ivar lines: without their ends, ``None`` where there are only pairs.
    :ivar media: the value of ``Content-Type``, empty where there is none.
    :ivar coding: that of ``Content-Encoding``.
    :ivar ids: fields that name the answer.
    :ivar lengths: values of ``Content-Length``.
    :ivar codings: values of ``Transfer-Encoding``.
    :ivar connection: values of ``Connection``.
    :ivar staying: lines, or pairs, of fields that by their names belong to one connection.
    """

    __slots__ = (
        "_pairs",
        "coding",
        "codings",
        "connection",
        "ids",
        "lengths",
        "lines",
        "media",
        "staying",
    )

    def __init__(
        self,
        lines: list[bytes] | None,
        pairs: list[Pair] | None,
        told: Iterable[tuple[Meaning, Pair, bytes | Pair]],
    ) -> None:
        """:param told: of each field that means something: what, itself, and as it stands here."""
        self.lines = lines
        self._pairs = pairs
        self.media = self.coding = b""
        self.ids = NO_PAIRS
        self.staying: tuple[bytes | Pair, ...] = ()
        self.lengths = self.codings = self.connection = NO_VALUES
        for kind, pair, own in told:
            if kind is _CONTENT_LENGTH:
                self.lengths += (pair[1],)
            elif kind is _CONTENT_TYPE:
                self.media = self.media or pair[1]
            elif kind is _ANSWER_ID:
                self.ids += (pair,)
            elif kind is _CONNECTION:
                self.staying += (own,)
                self.connection += (pair[1],)
            elif kind is _TRANSFER_ENCODING:
                self.staying += (own,)
                self.codings += (pair[1],)
            elif kind is _CONTENT_ENCODING:
                self.coding = self.coding or pair[1]
            elif kind is _HOP_BY_HOP or kind is _UPGRADE:
                self.staying += (own,)

    @property
    def pairs(self) -> list[Pair]:
        """Names and values."""
        pairs = self._pairs
        if pairs is None:
            assert self.lines is not None
            pairs = self._pairs = [*map(divided, self.lines)]
        return pairs

    def __len__(self) -> int:
        return len(self.pairs if self.lines is None else self.lines)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    @overload
    def __getitem__(self, place: int) -> Pair: ...

    @overload
    def __getitem__(self, place: slice) -> list[Pair]: ...

    def __getitem__(self, place: int | slice) -> Pair | list[Pair]:
        return self.pairs[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.pairs == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # The values may be secrets.
        return f"<Fields {len(self)}>"

    def passing(self) -> Fields:
        """Those that stay with no connection by their names."""
        if not self.staying:
            return self
        if self.lines is None:
            return fields_of([pair for pair in self.pairs if pair not in self.staying])
        lines = self.lines.copy()
        for line in self.staying:
            lines.remove(line)  # type: ignore[arg-type]  # or its equal: they all stay
        return Fields(lines, None, ())

    def more(self, pair: Pair) -> Fields:
        """A copy with *pair*, which means nothing here, at its end."""
        made = Fields(None, [*self.pairs, pair], ())
        made.media, made.coding, made.ids = self.media, self.coding, self.ids
        made.staying = tuple(divided(own) if isinstance(own, bytes) else own for own in self.staying)
        made.lengths, made.codings, made.connection = self.lengths, self.codings, self.connection
        return made


def divided(line: bytes) -> Pair:
    """Name and value of a *line* that was found good; space behind a value passes as it came."""
    name, _, value = line.partition(b":")
    return name, value.lstrip(SPACE)


def fields_of(headers: Iterable[Pair]) -> Fields:
    """*headers* with what most ask of them, whoever made them."""
    if isinstance(headers, Fields):
        return headers
    pairs = list(headers)
    return Fields(None, pairs, [(kind, pair, pair) for pair in pairs if (kind := meaning(pair[0]))])


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

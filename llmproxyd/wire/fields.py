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
STAYING: Final = frozenset(
    {Meaning.CONNECTION, Meaning.TRANSFER_ENCODING, Meaning.UPGRADE, Meaning.HOP_BY_HOP}
)
"""What belongs to one connection."""


class Lines(Sequence[Pair]):
    """Fields as they stand in a head; pairs are made of them when somebody asks.

    :ivar block: each field with the CRLF before it; ``None`` where there are only pairs.
    """

    __slots__ = ("_pairs", "block")

    def __init__(self, block: bytes | None, pairs: list[Pair] | None = None) -> None:
        self.block = block
        self._pairs = pairs

    @property
    def pairs(self) -> list[Pair]:
        """Names and values."""
        pairs = self._pairs
        if pairs is None:
            assert self.block is not None
            pairs = self._pairs = [*map(divided, self.block.split(b"\r\n")[1:])]
        return pairs

    def __len__(self) -> int:
        return len(self.pairs)

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
        return f"<{type(self).__name__} {len(self)}>"


def with_block(headers: Iterable[Pair], block: bytes) -> Lines:
    """*headers*, and those in *block* behind them: each field with the CRLF before it."""
    known = headers.block if isinstance(headers, Lines) else None
    if known is not None:
        return Lines(known + block)
    return Lines(None, [*headers, *map(divided, block.split(b"\r\n")[1:])])


class Fields(Lines):
    """The fields of an answer as they came, and what most ask of them, found out once.

    :ivar media: the value of ``Content-Type``, empty where there is none.
    :ivar coding: that of ``Content-Encoding``.
    :ivar ids: fields that name the answer.
    :ivar lengths: values of ``Content-Length``.
    :ivar codings: values of ``Transfer-Encoding``.
    :ivar connection: values of ``Connection``.
    :ivar fewer: the same less those that by their names belong to one connection, if there are any.
    """

    __slots__ = ("coding", "codings", "connection", "fewer", "ids", "lengths", "media")

    def __init__(
        self,
        block: bytes | None,
        pairs: list[Pair] | None,
        media: bytes,
        coding: bytes,
        ids: tuple[Pair, ...],
        lengths: tuple[bytes, ...],
        codings: tuple[bytes, ...],
        connection: tuple[bytes, ...],
        fewer: Lines | None,
    ) -> None:
        self.block = block
        self._pairs = pairs
        self.media = media
        self.coding = coding
        self.ids = ids
        self.lengths = lengths
        self.codings = codings
        self.connection = connection
        self.fewer = fewer

    @property
    def passing(self) -> Lines:
        """Those that by their names belong to no connection."""
        return self if self.fewer is None else self.fewer

    def more(self, pair: Pair) -> Fields:
        """A copy with *pair*, which means nothing here, at its end."""
        fewer = None if self.fewer is None else Lines(None, [*self.fewer.pairs, pair])
        return Fields(
            None,
            [*self.pairs, pair],
            self.media,
            self.coding,
            self.ids,
            self.lengths,
            self.codings,
            self.connection,
            fewer,
        )


def divided(line: bytes) -> Pair:
    """Name and value of a *line* that was found good; space behind a value passes as it came."""
    name, _, value = line.partition(b":")
    return name, value.lstrip(SPACE)


def fields_of(headers: Iterable[Pair], block: bytes | None = None) -> Fields:
    """*headers* with what most ask of them, whoever made them.

    :param block: the same as they stand in a head.
    """
    if isinstance(headers, Fields):
        return headers
    pairs = list(headers)
    media = coding = b""
    ids: list[Pair] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection: list[bytes] = []
    staying = False
    for pair in pairs:
        kind = meaning(pair[0])
        if kind is Meaning.NONE:
            continue
        if kind in STAYING:
            staying = True
        if kind is Meaning.CONTENT_LENGTH:
            lengths.append(pair[1])
        elif kind is Meaning.CONTENT_TYPE:
            media = media or pair[1]
        elif kind is Meaning.CONTENT_ENCODING:
            coding = coding or pair[1]
        elif kind is Meaning.ANSWER_ID:
            ids.append(pair)
        elif kind is Meaning.CONNECTION:
            connection.append(pair[1])
        elif kind is Meaning.TRANSFER_ENCODING:
            codings.append(pair[1])
    fewer = Lines(None, [pair for pair in pairs if meaning(pair[0]) not in STAYING]) if staying else None
    return Fields(
        block, pairs, media, coding, tuple(ids), tuple(lengths), tuple(codings), tuple(connection), fewer
    )


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

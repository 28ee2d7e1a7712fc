"""Header fields of a message that is sent: a list of pairs, encoded once.

A list that is used for many requests (a client repeats itself) is checked and joined once;
what differs from request to request, the framing, is written into a gap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from twisted.web.http_headers import Headers

from llmproxyd.wire.fields import Meaning, meaning, options

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A method or a field's name.  RFC 9110 §5.6.2."""

_KNOWN = 1024
"""Names that are remembered as good."""

_good: set[bytes] = set()


class Block(NamedTuple):
    """Encoded fields around the place of the one that frames the body.

    :param before: whole lines before that place; all of them, if it had none.
    :param after: whole lines behind it, and the empty line.
    :param length_name: how ``Content-Length`` is spelt.
    :param coding_name: how ``Transfer-Encoding`` is spelt.
    :param host: there is a ``Host`` among them.
    :param close: they ask for the connection to be closed.
    """

    before: bytes
    after: bytes
    length_name: bytes
    coding_name: bytes
    host: bool
    close: bool


Ready = tuple[object, bytes, bytes, bytes, bytes, bytes, bool, bool, bool]
"""What a URL taken apart, a method and fields come to; made and read by the agent.

The first two tell for which it holds.  Then the head as far as the framing, the same with the
beginning of a length, the same with chunks, and the head's end; ``HEAD``; may be sent twice; asks for
the connection to be closed.
"""


class WireHeaders(Headers):
    """A raw list of pairs, in order, case kept.

    A table of it is made only when one of Twisted's methods asks.  It does not change: it may
    serve several requests at once.

    :ivar ready: the request that they were last part of, but for its body.
    """

    __slots__ = ("_block", "_table", "raw", "ready")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.raw = raw
        self.ready: Ready | None = None
        self._block: Block | None = None
        self._table: dict[bytes, list[bytes]] | None = None

    @classmethod
    def of(cls, headers: Headers | None) -> WireHeaders:
        """*headers* as a list of pairs."""
        if isinstance(headers, cls):
            return headers
        if headers is None:
            return cls()
        return cls([(name, value) for name, values in headers.getAllRawHeaders() for value in values])

    # Where Twisted's methods look; its name is theirs.
    @property
    def _rawHeaders(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        if self._table is None:
            made = Headers()
            for name, value in self.raw:
                made.addRawHeader(name, value)
            self._table = made._rawHeaders
        return self._table

    def __repr__(self) -> str:
        # The values may be secrets.
        return f"<WireHeaders {len(self.raw)} fields>"

    def copy(self) -> Headers:
        """A copy that can be changed."""
        return Headers(self._rawHeaders)

    def _fixed(self, *_: object) -> NoReturn:
        raise TypeError("these fields may be in use: change a copy")

    addRawHeader = setRawHeaders = removeHeader = _fixed  # type: ignore[assignment]

    def encoded(self) -> Block:
        """The fields as they stand on the wire.

        :raises ValueError: a name is no token, or CR, LF or NUL stand in a value: it would
            end the field, and begin one that nobody checked.
        """
        block = self._block
        if block is None:
            block = self._block = _encoded(self.raw)
        return block


def _encoded(raw: Sequence[tuple[bytes, bytes]]) -> Block:
    before: list[bytes] = []
    after: list[bytes] = []
    lines = before
    length_name, coding_name = b"Content-Length", b"Transfer-Encoding"
    host = False
    connection: list[bytes] = []
    for name, value in raw:
        if name not in _good:
            _check(name)
        kind = meaning(name)
        if kind is Meaning.CONTENT_LENGTH or kind is Meaning.TRANSFER_ENCODING:
            # The first has the place; one more would be a second opinion on the length.
            if lines is before:
                lines = after
                if kind is Meaning.CONTENT_LENGTH:
                    length_name = name
                else:
                    coding_name = name
            continue
        if kind is Meaning.HOST:
            host = True
        elif kind is Meaning.CONNECTION:
            connection.append(value)
        lines.append(b"%b: %b\r\n" % (name, value))
    after.append(b"\r\n")
    block = Block(
        b"".join(before),
        b"".join(after),
        length_name,
        coding_name,
        host,
        bool(connection) and b"close" in options(connection),
    )
    count = len(before) + len(after)
    for one in block[:2]:
        if b"\0" in one:
            raise ValueError("NUL in the value of a field")
    for end in (b"\r", b"\n"):
        if block.before.count(end) + block.after.count(end) != count:
            raise ValueError("a line's end in the value of a field")
    return block


def _check(name: bytes) -> None:
    if not TOKEN.fullmatch(name):
        raise ValueError("the name of a field is not a token")
    if len(_good) < _KNOWN and len(name) <= 64:
        _good.add(name)

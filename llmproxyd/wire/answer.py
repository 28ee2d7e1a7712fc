"""What an upstream answers, read strictly: bytes go in, a head and pieces of a body come out.

Knows nothing of connections.  llhttp parses heads and chunks; what it lets pass although it is
wrong, or cannot know, is looked at here:

* versions other than HTTP/1.0 and 1.1, RTSP and ICE, empty lines before the status line, a
  status below 100, control characters in the reason;
* the framing: ``Content-Length`` beyond 2⁶³−1, any transfer coding that is not ``chunked`` alone;
* sizes and counts, whether or not a head ever ends;
* ``HEAD``, after which a body never follows (it has no such flag).

A parser is fed exactly one message, so that what is behind its end is not taken for another.
"""

from __future__ import annotations

import re
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxyd.model import Response
from llmproxyd.wire.fields import MAX_FIELDS, Fields, Framing, length_of, meaning, options, plain
from llmproxyd.wire.response import HTTP_1_0, HTTP_1_1, WireResponse

MAX_HEAD = 64 * 1024
"""Bytes of one head."""

MAX_DRY = 64 * 1024
"""Bytes of chunk framing and trailers in a row in which not one byte of the body comes."""

MAX_INTERIM = 10
"""Interim heads before the final one."""

_BEGINNINGS: Final = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_END: Final = b"\r\n\r\n"
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# An attribute of an enumeration costs more than the comparison.
_CONTENT_LENGTH: Final = Framing.CONTENT_LENGTH
_TRANSFER_ENCODING: Final = Framing.TRANSFER_ENCODING
_CONNECTION: Final = Framing.CONNECTION

_SPACE: Final = b" \t"
"""Not part of a value, RFC 9112 §5; llhttp leaves it behind one."""

_KEPT: Final = [b"keep-alive"]

# How the end of a body is told.
_BY_LENGTH: Final = 0
_BY_CHUNKS: Final = 1
_BY_CLOSE: Final = 2


class BadAnswer(Exception):
    """What came is not valid HTTP.  Says which rule was broken; nothing of the content."""


class _Heard:
    """What llhttp has told.  Apart from its reader, or the parser would hold who holds it."""

    __slots__ = ("fields", "phrase", "pieces", "special", "whole")

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.special: list[int] = []
        self.phrase = b""
        self.pieces: list[bytes] = []
        self.whole = False

    def on_status(self, piece: bytes) -> None:
        self.phrase += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.fields
        if name not in plain:
            self.special.append(len(fields))
        fields.append((name, value))

    def on_body(self, piece: bytes) -> None:
        self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.whole = True


class HeadReader:
    """Reads one head.

    :param limit: bytes that it may have.
    :ivar problem: the rule that was broken; what comes after it is not read.
    :ivar begun: whether a byte of this head has come.
    """

    __slots__ = ("_heard", "_limit", "_parser", "_size", "_tail", "_version", "begun", "problem")

    def __init__(self, limit: int = MAX_HEAD) -> None:
        self.problem: BadAnswer | None = None
        self._limit = limit
        self._start()

    def _start(self) -> None:
        self.begun = False
        self._heard = _Heard()
        self._parser: HttpResponseParser | None = HttpResponseParser(self._heard)
        self._size = 0
        self._tail = b""  # not fed yet while nothing is, fed already from then on
        self._version = HTTP_1_1

    @property
    def status(self) -> int:
        """Of a head that is whole."""
        parser = self._parser
        return 0 if parser is None else int(parser.get_status_code())

    def read_head(self, data: bytes) -> bytes | None:
        """Take *data*; what follows the head in it, or ``None`` while that is not whole."""
        tail = self._tail
        if not self._size:
            self.begun = True
            if tail:
                data, tail = tail + data, b""
            if not data.startswith(_BEGINNINGS):
                if len(data) < 9 and any(one.startswith(data) for one in _BEGINNINGS):
                    self._tail = data
                else:
                    self._refuse("it does not begin with HTTP/1.1 or HTTP/1.0")
                return None
            if data[7] == 48:  # "0"
                self._version = HTTP_1_0
        window = tail + data if tail else data
        end = window.find(_END)
        if end < 0:
            head, rest = data, None
            self._tail = window[-3:]
        else:
            end += 4 - len(tail)
            head, rest = data[:end], data[end:]
        self._size += len(head)
        if self._size > self._limit:
            self._refuse(f"its head has more than {self._limit} bytes")
        elif self._fed(head):
            heard = self._heard
            if len(heard.fields) > MAX_FIELDS:
                self._refuse(f"its head has more than {MAX_FIELDS} fields")
            elif rest is not None and heard.phrase != b"OK" and _CONTROLS.search(heard.phrase):
                self._refuse("its reason has a control character")
        return rest if self.problem is None else None

    def _fed(self, data: bytes) -> bool:
        """Hand *data* to the parser, if there is one; whether all is well."""
        if self._parser is None:
            return False
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._refuse("it switches to another protocol, which nobody asked for")
        except HttpParserError as error:
            # Its words are llhttp's own, about the grammar.
            self._refuse(str(error).lower())
        return self.problem is None

    def _refuse(self, rule: str) -> None:
        self.problem = BadAnswer(rule)
        self._parser = None


class AnswerReader(HeadReader):
    """Reads the answer to one request.

    :param bodiless: the request was ``HEAD``.
    :ivar response: its head, as soon as the final one is whole.
    :ivar interims: interim heads that came before, ``100 Continue`` excepted.
    :ivar heads: how many of those came, ``100 Continue`` included.
    :ivar complete: the message is whole.
    :ivar surplus: something came behind its end.
    :ivar persistent: the upstream will take another request on this connection.
    """

    __slots__ = (
        "_bodiless",
        "_dry",
        "_framing",
        "_left",
        "complete",
        "heads",
        "interims",
        "persistent",
        "response",
        "surplus",
    )

    # Set with the head.
    _dry: int
    _framing: int
    _left: int

    def __init__(self, bodiless: bool = False) -> None:
        HeadReader.__init__(self)
        self.response: WireResponse | None = None
        self.interims: list[Response] | None = None
        self.complete = False
        self.surplus = False
        self.persistent = False
        self._bodiless = bodiless
        self.heads = 0

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body ends where the connection does (RFC 9112 §6.3, rule 8)."""
        return self.response is not None and not self.complete and self._framing == _BY_CLOSE

    def feed(self, data: bytes) -> bytes:
        """Take what came; the bytes of the body in it, as far as they are good."""
        if self.response is None:
            rest = self._read_heads(data)
            if not rest:
                return b""
            if self.complete:
                self.surplus = True
                return b""
            data = rest
        framing = self._framing
        if framing == _BY_LENGTH:
            left = self._left = self._left - len(data)
            if left > 0:
                return data
            self.complete = True
            if left:
                self.surplus = True
                return data[:left]
            return data
        return self._read_chunks(data) if framing == _BY_CHUNKS else data

    def _read_heads(self, data: bytes) -> bytes | None:
        """Take interim heads and the final one; what follows them."""
        rest = self.read_head(data)
        while rest is not None:
            status = self.status
            if status >= 200:
                self._end_of_head(status)
                return rest if self.problem is None else None
            self._interim(status)
            if not rest or self.problem is not None:
                return None
            rest = self.read_head(rest)
        return None

    def _interim(self, status: int) -> None:
        self.heads += 1
        if status == 101:
            self._refuse("it switches to another protocol, which nobody asked for")
        elif status < 100:
            self._refuse("its status is below 100")
        elif self.heads > MAX_INTERIM:
            self._refuse(f"more than {MAX_INTERIM} interim heads came")
        else:
            if status != 100:
                heard = self._heard
                interim = Response(status, heard.phrase, heard.fields, 0, self._version[1:])
                self.interims = [*(self.interims or ()), interim]
            self._start()

    def _end_of_head(self, status: int) -> None:
        """What the fields say about the body and the connection.  RFC 9112 §6.3, §9.3."""
        heard = self._heard
        fields = Fields(heard.fields)
        fields.special = heard.special
        length: int | None = None
        chunked = False
        connection: list[bytes] | None = None
        for place in heard.special:
            name, value = fields[place]
            kind = meaning(name)
            if kind is _CONTENT_LENGTH:
                if length is not None or (length := length_of(value.rstrip(_SPACE))) is None:
                    return self._refuse("its content-length is no length, or there are two")
            elif kind is _TRANSFER_ENCODING:
                if chunked or value.rstrip(_SPACE).lower() != b"chunked" or self._version is not HTTP_1_1:
                    return self._refuse("its transfer-encoding is not chunked alone")
                chunked = True
            elif kind is _CONNECTION:
                connection = [value] if connection is None else [*connection, value]
        if chunked and length is not None:
            return self._refuse("it has both content-length and transfer-encoding")
        if self._bodiless or status == 204 or status == 304:
            length, chunked, told = 0, False, True
        else:
            told = chunked or length is not None
        if connection is None or (connection == _KEPT and self._version is HTTP_1_1):
            self.persistent = told and self._version is HTTP_1_1
        else:
            asked = options(connection)
            keeps = b"close" not in asked and (self._version is HTTP_1_1 or b"keep-alive" in asked)
            self.persistent = told and keeps
        if chunked:
            self._framing = _BY_CHUNKS
            self._tail = b""
            self._dry = 0
            heard.fields, heard.special = [], []  # those of the trailer are not the answer's
        else:
            self._parser = None
            if length is None:
                self._framing = _BY_CLOSE
            else:
                self._framing = _BY_LENGTH
                self._left = length
                self.complete = length == 0
        self.response = WireResponse(
            self._version, status, heard.phrase, fields, UNKNOWN_LENGTH if length is None else length
        )
        return None

    def _read_chunks(self, data: bytes) -> bytes:
        """Take a part of a chunked body.  RFC 9112 §7.1.

        Such a body can end nowhere but behind an empty line; so the parser is fed up to each
        of them, and asked, and never sees what comes behind the end.
        """
        tail = self._tail if data[0] in b"\r\n" else b""  # only then a line's end can be cut in two
        window = tail + data if tail else data
        fed, size = len(tail), len(window)
        heard = self._heard
        while fed < size:
            empty = window.find(_END, max(fed - 3, 0))
            stop = size if empty < 0 else empty + 4
            if not self._fed(window[fed:stop]):
                break
            fed = stop
            if heard.whole:
                self.complete = True
                self.surplus = fed < size
                self._parser = None
                break
        self._tail = window[-3:]
        pieces = heard.pieces
        if not pieces:
            self._dry += len(data)
            if self._dry > MAX_DRY and not self.complete and self.problem is None:
                self._refuse(f"its chunks have more than {MAX_DRY} bytes of framing")
            heard.fields.clear()
            return b""
        self._dry = 0
        heard.pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

"""What an upstream answers, read strictly: bytes go in, a head and pieces of a body come out.

Knows nothing of connections.  llhttp parses heads and chunks; what it lets pass although it is
wrong, or cannot know, is looked at here:

* versions other than HTTP/1.0 and 1.1, RTSP and ICE, empty lines before the status line, a
  status below 100 or above 599, control characters in the reason;
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
from llmproxyd.wire.fields import MAX_FIELDS, SPACE, Fields, length_of, options
from llmproxyd.wire.layout import Layout, fields_in, layout_of
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

_KEPT: Final = (b"keep-alive",)

_KNOWN = 256
"""Status lines that are remembered."""

_first_lines: dict[bytes, tuple[tuple[bytes, int, int], int, bytes]] = {}
"""Those that were found good: version, status and reason."""

# How the end of a body is told.
_BY_LENGTH: Final = 0
_BY_CHUNKS: Final = 1
_BY_CLOSE: Final = 2


class BadAnswer(Exception):
    """What came is not valid HTTP.  Says which rule was broken; nothing of the content."""


class _Heard:
    """What llhttp has told of a body.  Apart from its reader, or the parser would hold who holds it.

    Of a head it tells nothing: it is asked whether that is good.
    """

    # Of most answers llhttp sees the head alone, and nothing is told: no initialiser for those.
    pieces: list[bytes] | None = None
    whole = False

    def on_body(self, piece: bytes) -> None:
        if self.pieces is None:
            self.pieces = [piece]
        else:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.whole = True


class HeadReader:
    """Reads one head.

    :param limit: bytes that it may have.
    :ivar problem: the rule that was broken; what comes after it is not read.
    :ivar begun: whether a byte of this head has come.
    :ivar status: of a head that is whole.
    """

    __slots__ = (
        "_block",
        "_heard",
        "_limit",
        "_parser",
        "_part",
        "_phrase",
        "_version",
        "begun",
        "problem",
        "status",
    )

    # Set with the head.
    _block: bytes
    _phrase: bytes
    _version: tuple[bytes, int, int]
    status: int

    def __init__(self, limit: int = MAX_HEAD) -> None:
        self.problem: BadAnswer | None = None
        self._limit = limit
        self._part: bytearray | None = None
        self.begun = False
        self._heard = _Heard()
        self._parser: HttpResponseParser | None = HttpResponseParser(self._heard)

    def _start(self) -> None:
        """Another head follows."""
        self.begun = False
        self._heard = _Heard()
        self._parser = HttpResponseParser(self._heard)

    def read_head(self, data: bytes) -> bytes | None:
        """Take *data*; what follows the head in it, or ``None`` while that is not whole."""
        if self._part is None and data.startswith(_BEGINNINGS):
            end = data.find(_END)
            if end > 0:
                # As most come: in one piece.
                self.begun = True
                head = data[: end + 4]
                return data[end + 4 :] if self._taken(head, head) else None
        return self._read_part(data)

    def _read_part(self, data: bytes) -> bytes | None:
        """Take a part of a head that does not come in one piece; what is wrong with it is told at once."""
        self.begun = True
        part = self._part
        if part is None:
            part = self._part = bytearray()
        fed = len(part) if len(part) >= len(_BEGINNINGS[0]) else 0
        part += data
        if not part.startswith(_BEGINNINGS):
            if len(part) >= len(_BEGINNINGS[0]) or not any(one.startswith(part) for one in _BEGINNINGS):
                self._refuse("it does not begin with HTTP/1.1 or HTTP/1.0")
            return None
        end = part.find(_END, max(fed - 3, 0))
        if end < 0:
            if len(part) > self._limit:
                self._refuse_size()
            else:
                self._fed(bytes(part[fed:]))
            return None
        self._part = None
        head = bytes(part[: end + 4])
        return bytes(part[end + 4 :]) if self._taken(head, head[fed:]) else None

    def _taken(self, head: bytes, new: bytes) -> bool:
        """Whether the whole *head* is good.

        :param new: what llhttp has not seen of it yet.
        """
        if len(head) > self._limit:
            self._refuse_size()
        elif self._fed(new):
            end = head.find(b"\r\n")
            line = head[:end]
            self._block = head[end:-4]
            told = _first_lines.get(line)
            if told is None:
                told = self._first_line(line)
            self._version, self.status, self._phrase = told
        return self.problem is None

    def _first_line(self, line: bytes) -> tuple[tuple[bytes, int, int], int, bytes]:
        """Version, status and reason of a status line that is met for the first time."""
        told = (HTTP_1_0 if line[7] == 48 else HTTP_1_1, int(line[9:12]), line[13:])
        if _CONTROLS.search(line):
            self._refuse("its reason has a control character")
        elif told[1] > 599:
            self._refuse("its status is above 599")
        elif len(_first_lines) < _KNOWN and len(line) <= 64:
            _first_lines[line] = told
        return told

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

    def _refuse_size(self) -> None:
        self._refuse(f"its head has more than {self._limit} bytes")


class AnswerReader(HeadReader):
    """Reads the answer to one request.

    :param bodiless: the request was ``HEAD``.
    :param layout: how the answer before it was laid out.
    :ivar layout: how this one is, if that is known.
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
        "_tail",
        "complete",
        "heads",
        "interims",
        "layout",
        "persistent",
        "response",
        "surplus",
    )

    # Set with the head.
    _dry: int
    _framing: int
    _left: int
    _tail: bytes

    def __init__(self, bodiless: bool = False, layout: Layout | None = None) -> None:
        HeadReader.__init__(self)
        self.layout = layout
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
                fields = fields_in(self._block)
                interim = Response(status, self._phrase, fields, 0, self._version[1:])
                self.interims = [*(self.interims or ()), interim]
                if len(fields) > MAX_FIELDS:
                    self._refuse_number()
            self._start()

    def _refuse_number(self) -> None:
        self._refuse(f"its head has more than {MAX_FIELDS} fields")

    def _fields(self) -> Fields:
        """Those of the final head; as the last one was laid out, if it is."""
        layout = self.layout
        fields = None if layout is None else layout.fields(self._block)
        if fields is None:
            fields = fields_in(self._block)
            if len(fields) > MAX_FIELDS:
                self._refuse_number()
            else:
                self.layout = layout_of(fields.pairs)
        return fields

    def _end_of_head(self, status: int) -> None:
        """What the fields say about the body and the connection.  RFC 9112 §6.3, §9.3."""
        fields = self._fields()
        if self.problem is not None:
            return None
        modern = self._version is HTTP_1_1
        length: int | None = None
        if fields.lengths and (
            len(fields.lengths) > 1 or (length := length_of(fields.lengths[0].rstrip(SPACE))) is None
        ):
            return self._refuse("its content-length is no length, or there are two")
        chunked = bool(fields.codings)
        if chunked:
            if len(fields.codings) > 1 or fields.codings[0].rstrip(SPACE).lower() != b"chunked" or not modern:
                return self._refuse("its transfer-encoding is not chunked alone")
            if length is not None:
                return self._refuse("it has both content-length and transfer-encoding")
        if self._bodiless or status == 204 or status == 304:
            length, chunked, told = 0, False, True
        else:
            told = chunked or length is not None
        connection = fields.connection
        if modern and (not connection or connection == _KEPT):
            self.persistent = told
        else:
            asked = options(connection)
            keeps = b"close" not in asked and (modern or b"keep-alive" in asked)
            self.persistent = told and keeps
        if chunked:
            self._framing = _BY_CHUNKS
            self._tail = b""
            self._dry = 0
        else:
            self._parser = None
            if length is None:
                self._framing = _BY_CLOSE
            else:
                self._framing = _BY_LENGTH
                self._left = length
                self.complete = length == 0
        self.response = WireResponse(
            self._version, status, self._phrase, fields, UNKNOWN_LENGTH if length is None else length
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
            return b""
        self._dry = 0
        heard.pieces = None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

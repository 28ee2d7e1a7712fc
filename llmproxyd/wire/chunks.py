"""A chunked request body: checked by llhttp, taken apart at its own seams.  RFC 9112 §7.1.

llhttp says what is valid, but neither how large a chunk is nor where in its input a message
ended.  So it is fed a size line, a chunk, a line of the trailer at a time: it never sees a byte
of the next request.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser

from llmproxyd.wire.fields import MAX_LENGTH
from llmproxyd.wire.head import BadRequest

_HEAD = b"POST / HTTP/1.1\r\nHost: -\r\nTransfer-Encoding: chunked\r\n\r\n"

MAX_LINE = 4096
"""Bytes of a size line, extensions included."""


class Chunks:
    """Takes one body apart.

    :param max_trailers: bytes of all lines behind the last chunk.
    :ivar whole: the end of the body was seen.
    """

    __slots__ = ("_left", "_line", "_max_trailers", "_parser", "_pieces", "_trailing", "whole")

    def __init__(self, max_trailers: int) -> None:
        self._max_trailers = max_trailers
        self._pieces: list[bytes] = []
        self._line = b""
        self._left = 0
        self._trailing: int | None = None
        self.whole = False
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._parser.feed_data(_HEAD)

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of the body that is in *data*, and what follows the body.

        :raises BadRequest: it is not a chunked body.
        """
        pieces = self._pieces = []
        start, size = 0, len(data)
        while start < size and not self.whole:
            if self._left:
                end = min(size, start + self._left)
                self._parse(data[start:end])
                self._left -= end - start
            else:
                found = data.find(b"\n", start)
                end = size if found < 0 else found + 1
                self._take_line(data[start:end], ended=found >= 0)
            start = end
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), data[start:]

    def close(self) -> None:
        """There is no more."""
        self._parser = None

    def on_body(self, data: bytes) -> None:
        """A piece of a chunk: called by llhttp."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The end: called by llhttp."""
        self.whole = True

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._parser = None
            message = f"The chunks of the body are not valid HTTP: {error}."
            raise BadRequest(400, "bad_framing", message) from None
        if self.whole:
            self._parser = None

    def _take_line(self, data: bytes, *, ended: bool) -> None:
        """A line that is not content, or a part of one."""
        self._parse(data)
        if self._trailing is not None:
            self._trailing += len(data)
            if self._trailing > self._max_trailers:
                self._parser = None
                raise BadRequest(431, "headers_too_large", "The trailers of the body are too large.")
            return
        line = self._line + data
        if len(line) > MAX_LINE:
            self._parser = None
            raise BadRequest(400, "bad_framing", "A size line of the body is too long.")
        self._line = b"" if ended else line
        if ended:
            # llhttp has seen that these are hexadecimal digits and nothing else.
            length = int(line.partition(b";")[0], 16)
            if length > MAX_LENGTH:
                self._parser = None
                raise BadRequest(400, "bad_framing", "A chunk is larger than any can be.")
            if length:
                self._left = length + 2
            else:
                self._trailing = 0

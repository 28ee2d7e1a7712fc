"""One answer onto a client's connection: its head, and its body in a framing that the client reads.

RFC 9112 §6 for framing, §9.3 for persistence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer

from llmproxyd.model import RawHeaders, Response
from llmproxyd.wire.fields import Lines

BODILESS = frozenset({204, 304})


class Connection(Protocol):
    """What an answer needs of the connection that it goes out on."""

    modern: bool
    """The client speaks HTTP/1.1."""

    def persists(self) -> bool:
        """Whether the connection will be kept after this answer; decided at its head."""
        ...

    def lose_persistence(self) -> None:
        """The end of this answer will be the end of the connection."""

    def send(self, data: bytes) -> None:
        """Write *data* now."""

    def answered(self) -> None:
        """The answer is over."""

    def break_off(self, *, reset: bool) -> None:
        """End the connection in the middle of the answer."""

    def feed_from(self, producer: IPushProducer | None) -> None:
        """Let the client's pace pause and resume *producer*."""


def field_lines(headers: RawHeaders) -> bytes:
    """*headers* as they stand on the wire, each line with its end."""
    return b"\r\n".join(map(b": ".join, headers)) + b"\r\n" if headers else b""


_status_lines: dict[tuple[int, bytes], bytes] = {}
"""Status lines that went out before; there are few."""


def _status_line(status: int, reason: bytes) -> bytes:
    line = b"HTTP/1.1 %d %b" % (status, reason)
    if len(_status_lines) < 256 and len(reason) <= 64:
        _status_lines[status, reason] = line
    return line


class Answer:
    """A :class:`~llmproxyd.pipeline.roles.Responder` on one connection.

    :ivar chunked: whether the body that was started is sent in chunks.
    :ivar gone: called once when the client leaves before the answer is over.
    """

    __slots__ = ("_bodiless", "_connection", "_head", "_pending", "_sized", "chunked", "gone")

    def __init__(self, connection: Connection, *, head: bool) -> None:
        self._connection: Connection | None = connection
        self._head = head
        self._pending = b""
        self._bodiless = head
        self._sized = False
        self.chunked = False
        self.gone: Callable[[], None] | None = None

    def inform(self, response: Response) -> None:
        """Send an interim response (``103``); HTTP/1.0 knows none."""
        connection = self._connection
        if connection is not None and connection.modern:
            connection.send(
                b"HTTP/1.1 %d %b\r\n%b\r\n"
                % (response.status, response.reason, field_lines(response.headers))
            )

    def start(self, response: Response) -> None:
        """Begin: the head goes out with the first piece of the body, or by :meth:`flush`."""
        connection = self._connection
        assert connection is not None
        status, length = response.status, response.length
        framing = b""
        if self._head or status in BODILESS:
            self._bodiless = self._sized = True
            if length is not None and not response.told and self._head and status not in BODILESS:
                framing = b"Content-Length: %d\r\n" % length
        elif length is not None:
            self._sized = True
            if not response.told:
                framing = b"Content-Length: %d\r\n" % length
        elif connection.modern:
            self.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            connection.lose_persistence()
        if not connection.persists():
            framing += b"Connection: close\r\n"
        elif not connection.modern:
            framing += b"Connection: keep-alive\r\n"
        line = _status_lines.get((status, response.reason)) or _status_line(status, response.reason)
        headers = response.headers
        block = headers.block if isinstance(headers, Lines) else None
        if block is None:
            self._pending = b"".join((line, b"\r\n", field_lines(headers), framing, b"\r\n"))
        else:
            self._pending = b"".join((line, block, b"\r\n", framing, b"\r\n"))

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Send a piece of the body.

        :param last: :meth:`finish` follows at once; both go out together.
        """
        connection = self._connection
        if connection is None:
            return
        if self._bodiless or not data:
            data = b""
        elif self.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._pending:
            data, self._pending = self._pending + data, b""
        if last:
            self._pending = data
        elif data:
            connection.send(data)

    def flush(self) -> None:
        """Send a head that has waited for its body."""
        pending, self._pending = self._pending, b""
        if pending and self._connection is not None:
            self._connection.send(pending)

    def finish(self) -> None:
        """End the answer cleanly."""
        connection = self._connection
        if connection is None:
            return
        self._connection = self.gone = None
        pending, self._pending = self._pending, b""
        if self.chunked:
            pending += b"0\r\n\r\n"
        if pending:
            connection.send(pending)
        connection.answered()

    def cut(self) -> None:
        """End the connection without the end of the body.

        A body whose end is the connection's end would look whole after a plain FIN, so that
        one is reset.
        """
        connection = self._connection
        if connection is None:
            return
        self.flush()
        self._connection = self.gone = None
        connection.break_off(reset=not (self.chunked or self._sized))

    def reset(self) -> None:
        """End the connection by a reset; what it has not taken yet is lost."""
        connection = self._connection
        if connection is not None:
            self.flush()
            self._connection = self.gone = None
            connection.break_off(reset=True)

    def hang_up(self) -> None:
        """End the connection without an answer; only before :meth:`start`."""
        connection = self._connection
        if connection is not None:
            self._connection = self.gone = None
            connection.lose_persistence()
            connection.break_off(reset=False)

    def client_gone(self) -> None:
        """The connection is lost: tell whoever wants to know."""
        gone, self.gone = self.gone, None
        self._connection = None
        if gone is not None:
            gone()

    def feed_from(self, producer: IPushProducer) -> None:
        """Let the client's pace pause and resume *producer*."""
        if self._connection is not None:
            self._connection.feed_from(producer)

    def fed(self) -> None:
        """There is no more producer."""
        if self._connection is not None:
            self._connection.feed_from(None)

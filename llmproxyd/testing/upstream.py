"""An upstream that does as its script says, misbehaviour included.

Nothing of an HTTP library stands on its side: what a script sends is what goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IDelayedCall, IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.providers.base import encode

# -- what an upstream does -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes, at once."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, for so many seconds."""

    seconds: float


class Gate:
    """Nothing, until the test calls :meth:`open`."""

    def __init__(self) -> None:
        self.reached = False
        self.opened = False
        self.waiting: list[Callable[[], None]] = []

    def open(self) -> None:
        """Let every script go on that has come, or will come, to this point."""
        self.opened = True
        waiting, self.waiting = self.waiting, []
        for go_on in waiting:
            go_on()


@implementer(IPullProducer)
class Pour:
    """*piece*, *times* over, no faster than the network takes it.

    :ivar poured: bytes that were handed to the network so far.
    """

    def __init__(self, piece: bytes, times: int) -> None:
        self._piece = piece
        self._left = times
        self.poured = 0
        self.connection: Connection | None = None

    def resumeProducing(self) -> None:
        """The network has taken all that was written before."""
        connection = self.connection
        if connection is None:
            return
        if not self._left:
            self.connection = None
            connection.transport.unregisterProducer()
            connection.go_on()
            return
        self._left -= 1
        self.poured += len(self._piece)
        connection.transport.write(self._piece)

    def stopProducing(self) -> None:
        """The connection is gone."""
        self.connection = None


@dataclass(frozen=True, slots=True)
class Close:
    """A clean end of the connection."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset: what was sent just before is lost, so wait a little first."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more, ever; the connection stays open."""


Action = Send | Wait | Gate | Pour | Close | Reset | Stall
Script = Sequence[Action]


def head(*fields: bytes, status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
    """A response head of exactly these field lines."""
    return b"\r\n".join([version + b" " + status, *fields, b"", b""])


def answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole response of known length."""
    return head(*fields, b"content-length: %d" % len(body), status=status) + body


def json_answer(value: object, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole JSON response."""
    return answer(encode(value), b"content-type: application/json", *fields, status=status)


def stream_head(content_type: bytes = b"text/event-stream", *fields: bytes) -> bytes:
    """The head of a chunked stream."""
    return head(b"content-type: " + content_type, b"transfer-encoding: chunked", *fields)


def chunk(data: bytes) -> bytes:
    """*data* as one chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def event(data: bytes) -> bytes:
    """*data* as one server-sent event."""
    return b"data: " + data + b"\n\n"


# -- the upstream --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came.

    :param headers: names and values as they stood on the wire, in order.
    :param raw: head and body, framing included.
    :param connection: number of the connection, from 0.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    raw: bytes
    connection: int

    def all(self, name: bytes) -> list[bytes]:
        """All values of the field *name* (lower case), in order."""
        return [value for key, value in self.headers if key.lower() == name]


class FakeUpstream(Factory):
    """Answers each request by the next script; the last one is repeated.

    :param at_head: answer at the end of a request's head, without waiting for its body.
    :ivar requests: what came, whole requests only (heads only with *at_head*).
    :ivar connections: every connection that was ever made.
    """

    noisy = False

    def __init__(self, *scripts: Script, at_head: bool = False) -> None:
        self.scripts = list(scripts)
        self.at_head = at_head
        self.requests: list[Received] = []
        self.connections: list[Connection] = []
        self.clock: Any = None
        self._port: Any = None
        self._scheme = "http"

    def listen(self, reactor: Any, context: Any = None) -> FakeUpstream:
        """Open a free port of 127.0.0.1, with TLS if there is a *context* factory."""
        self.clock = reactor
        if context is None:
            self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        else:
            self._scheme = "https"
            self._port = reactor.listenSSL(0, self, context, interface="127.0.0.1")
        return self

    @property
    def port(self) -> int:
        """The number of the open port."""
        return cast(IPv4Address, self._port.getHost()).port

    @property
    def url(self) -> str:
        """The base URL, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def open(self) -> list[Connection]:
        """The connections that are not lost."""
        return [one for one in self.connections if one.lost is None]

    def stop(self) -> Any:
        """Close the port and every connection."""
        for one in self.open:
            one.transport.abortConnection()
        return self._port.stopListening()

    def buildProtocol(self, addr: object) -> Connection:
        """One more connection."""
        connection = Connection(self, len(self.connections))
        self.connections.append(connection)
        return connection

    def next_script(self) -> Script:
        """The script for the request that has just come."""
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]


class Connection(Protocol):
    """One connection to a :class:`FakeUpstream`.

    :ivar lost: why it ended, ``None`` while it is open.
    """

    transport: Any

    def __init__(self, upstream: FakeUpstream, number: int) -> None:
        self._upstream = upstream
        self.number = number
        self.lost: Failure | None = None
        self.buffer = b""
        self._actions: list[Action] = []
        self._busy = False
        self._timer: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        """A piece of a request."""
        self.buffer += data
        self._next()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is over; so is its script."""
        self.lost = reason
        self._actions = []
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _next(self) -> None:
        if self._busy:
            return
        taken = _take(self.buffer, self.number, head_alone=self._upstream.at_head)
        if taken is not None:
            request, self.buffer = taken
            self._busy = True
            self._upstream.requests.append(request)
            self._actions = list(self._upstream.next_script())
            self.go_on()

    def go_on(self) -> None:
        """Play the script up to its next pause."""
        while self._actions and self.lost is None:
            action = self._actions.pop(0)
            if isinstance(action, Send):
                self.transport.write(action.data)
            elif isinstance(action, Wait):
                self._timer = self._upstream.clock.callLater(action.seconds, self.go_on)
                return
            elif isinstance(action, Gate):
                action.reached = True
                if not action.opened:
                    action.waiting.append(self.go_on)
                    return
            elif isinstance(action, Pour):
                action.connection = self
                self.transport.registerProducer(action, False)
                return
            elif isinstance(action, Close):
                self.transport.loseConnection()
            elif isinstance(action, Reset):
                self.transport.abortConnection()
            else:
                return
        self._busy = False
        self._next()


def _take(buffer: bytes, connection: int, *, head_alone: bool) -> tuple[Received, bytes] | None:
    """The first request in *buffer* and what follows it, ``None`` while it is not whole."""
    start, end, rest = buffer.partition(b"\r\n\r\n")
    if not end:
        return None
    line, *lines = start.split(b"\r\n")
    method, target, version = line.split(b" ")
    headers = [(name, value.strip()) for name, _, value in (one.partition(b":") for one in lines)]
    lower = {name.lower(): value for name, value in headers}
    if head_alone:
        return Received(method, target, version, headers, b"", start + end, connection), b""
    if lower.get(b"transfer-encoding") == b"chunked":
        body = b""
        while True:
            size, newline, after = rest.partition(b"\r\n")
            if not newline or len(after) < int(size, 16) + 2:
                return None
            length = int(size, 16)
            body, rest = body + after[:length], after[length + 2 :]
            if not length:
                break
    else:
        length = int(lower.get(b"content-length", b"0"))
        if len(rest) < length:
            return None
        body, rest = rest[:length], rest[length:]
    raw = buffer[: len(buffer) - len(rest)]
    return Received(method, target, version, headers, body, raw, connection), rest

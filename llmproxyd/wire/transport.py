"""What Twisted's socket transports do not do by themselves.  All use of their inner parts is here.

* A write is tried at once when nothing is queued before it; stock transports wait for the
  next turn of the reactor, which costs two more system calls and a turn.
* What a peer sent before it broke off is delivered before the loss is: stock transports drop
  it when they find out by a failed write, or while reading is paused.
* The peer's end can be noticed while reading is paused.
* An end that TLS has told stays one, although a reset follows it.

Used of :class:`twisted.internet.tcp.Connection` (and so of its kin for UNIX sockets): ``socket``,
``bufferSize``, ``dataBuffer``, ``offset``, ``_tempDataBuffer``, ``_tempDataLen``, ``_maybePauseProducer``,
``_writeDisconnected``, ``_aborting``; of :class:`twisted.protocols.tls.BufferingTLSTransport`:
``write`` as an attribute of the instance, ``_aggregator``, ``_appSendBuffer``, ``_tlsConnection``.  A
transport of any other class serves as it is.
"""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

log = Logger()

LAST_READ = 64 * 1024
"""Bytes per read of what is left behind a broken connection."""

LAST_BYTES = 16 * 1024 * 1024
"""At most so many of them: more than a socket's buffer holds."""

_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class _Eager:
    """Mixed into the class of a connected transport."""

    # What the mixed-in class has.
    connected: Any
    disconnecting: Any
    socket: Any
    protocol: Any
    bufferSize: int
    dataBuffer: bytes
    offset: int
    TLS: bool
    _tempDataBuffer: list[bytes]
    _tempDataLen: int
    _writeDisconnected: bool
    _aborting: bool

    sent = 0
    """Bytes that the operating system has taken so far."""

    _deaf = False
    """The peer takes no more; what it sent is still read."""

    def doRead(self) -> object:
        """Read once; what the stock method does for each event, in fewer steps.

        :returns: why the connection is over, if it is.
        """
        try:
            data = self.socket.recv(self.bufferSize)
        except OSError as error:
            return None if isinstance(error, BlockingIOError) else CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def write(self, data: bytes) -> None:
        """Send *data* now, as far as that is possible, and the rest when it is."""
        if self._tempDataLen or self.dataBuffer or self.TLS:
            if not self._deaf:
                super().write(data)  # type: ignore[misc]
            return
        if not self.connected or self._writeDisconnected or self._deaf or not data:
            return
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._lose_ear()
            return
        self.sent += sent
        if sent < len(data):
            rest = data[sent:]
            self._tempDataBuffer.append(rest)
            self._tempDataLen += len(rest)
            self._maybePauseProducer()  # type: ignore[attr-defined]
            self.startWriting()  # type: ignore[attr-defined]

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of *data* as one piece."""
        self.write(b"".join(data))

    def writeSomeData(self, data: bytes) -> int | BaseException:
        """Send from the queue."""
        if self._deaf:
            return len(data)
        sent: int | BaseException = super().writeSomeData(data)  # type: ignore[misc]
        if isinstance(sent, int):
            self.sent += sent
            return sent
        self._lose_ear()
        return len(data)

    def connectionLost(self, reason: Failure) -> None:
        """Read what is left, unless it was us who broke off, and then be lost."""
        if not (self._aborting or self.disconnecting or reason.check(ConnectionAborted)):
            self._read_rest()
        if reason.check(ConnectionLost) and _has_said_goodbye(getattr(self, "protocol", None)):
            reason = connectionDone
        super().connectionLost(reason)  # type: ignore[misc]

    def _lose_ear(self) -> None:
        self._deaf = True
        if not self.disconnecting:
            # The end is found by reading, after all that came before it.
            self.startReading()  # type: ignore[attr-defined]

    def _read_rest(self) -> None:
        left = LAST_BYTES
        try:
            while left > 0 and hasattr(self, "socket"):
                data = self.socket.recv(LAST_READ)
                if not data:
                    return
                left -= len(data)
                self.protocol.dataReceived(data)
                if self._aborting:
                    return
        except OSError:
            return
        except Exception:
            log.failure("what a lost connection had brought could not be handled")


def _has_said_goodbye(protocol: Any) -> bool:
    """Whether *protocol* is TLS and the peer has ended it: no reset that follows takes anything back.

    Most servers close right behind their goodbye, and then our answer to it meets a reset.
    """
    connection = getattr(protocol, "_tlsConnection", None)
    return connection is not None and bool(connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN)


_eager_classes: dict[type, type] = {}


def _eager_class(known: type) -> type:
    made = _eager_classes.get(known)
    if made is None:
        made = _eager_classes[known] = type(known.__name__, (_Eager, known), {})
    return made


def socket_of(transport: Any) -> Any:
    """The socket's transport, below TLS."""
    while isinstance(transport, TLSMemoryBIOProtocol):
        transport = transport.transport
    return transport


def prepare(transport: Any) -> None:
    """Make writes of *transport* eager, without Nagle's delay; once, when it is connected."""
    while isinstance(transport, TLSMemoryBIOProtocol):
        if isinstance(transport, BufferingTLSTransport):
            transport.write = partial(TLSMemoryBIOProtocol.write, transport)  # type: ignore[method-assign]
            transport.writeSequence = partial(  # type: ignore[method-assign]
                TLSMemoryBIOProtocol.writeSequence, transport
            )
        transport = transport.transport
    if isinstance(transport, tcp.Connection):
        if not isinstance(transport, _Eager):
            transport.__class__ = _eager_class(type(transport))
        with suppress(OSError):  # a UNIX socket has no such delay
            transport.setTcpNoDelay(True)


def unsent(transport: Any) -> int:
    """Bytes written to *transport* that the operating system has not taken yet."""
    if isinstance(transport, _Eager):  # asked after each answer: the usual one first
        return len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    count = 0
    while isinstance(transport, TLSMemoryBIOProtocol):
        count += sum(map(len, transport._appSendBuffer))
        transport = transport.transport
    if isinstance(transport, tcp.Connection):
        count += len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return count


def sent(transport: Any) -> int:
    """Bytes that the operating system has taken from *transport*."""
    if isinstance(transport, _Eager):  # asked before each request on a kept connection
        return transport.sent
    count: int = getattr(socket_of(transport), "sent", 0)
    return count


def taken(transport: Any) -> int:
    """Bytes that the peer's system has taken: whether a slow peer moves at all.

    The operating system takes megabytes and then none for a long time, although the peer reads.
    Where it does not tell what waits there, the number is :func:`sent`.
    """
    below = getattr(socket_of(transport), "socket", None)
    if below is None:
        return sent(transport)
    try:
        (waiting,) = struct.unpack("i", fcntl.ioctl(below, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # asked of a socket it is known on Linux alone
        waiting = 0
    return sent(transport) - int(waiting)


def hung_up(transport: Any) -> bool:
    """Whether the peer has ended the connection, while nothing is read from it."""
    return _polled(transport, _GONE)


def stirs(transport: Any) -> bool:
    """Whether an idle connection has anything to read: data that nobody asked for, or its end."""
    return _polled(transport, _GONE | select.POLLIN)


def _polled(transport: Any, events: int) -> bool:
    socket = getattr(socket_of(transport), "socket", None)
    if socket is None:
        return True
    poll = select.poll()
    poll.register(socket, events)
    return bool(poll.poll(0))


def half_close(transport: Any) -> None:
    """Send our end after what is written; what the peer still sends is received."""
    if isinstance(transport, TLSMemoryBIOProtocol) or not hasattr(transport, "loseWriteConnection"):
        # With TLS that is its closing alert; the connection stays until the peer's comes.
        transport.loseConnection()
    else:
        transport.loseWriteConnection()


def abort(transport: Any) -> None:
    """Break the connection off, what is not sent included.

    Over TLS without its closing alert: sent at once, as writes are here, that would pass for an end.
    """
    socket_of(transport).abortConnection()


def dissolve(connector: Any, transport: Any) -> None:
    """Untie what a connection that is over, or never was, leaves bound in a circle.

    Twisted's connector and transport hold each other, and one that did not connect holds its
    own methods; only the collector would take them away.
    """
    connector.transport = None
    if transport is not None:
        # The reactor may be about to call the second of them.
        vars(transport).update(doRead=_nothing, doWrite=_nothing)


def _nothing() -> None:
    """Neither reads nor writes."""

"""The connections to one origin: so many at most, kept for a while, lent out one request at a time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxyd.wire.call import Call
from llmproxyd.wire.connect import Attempt, Route, attach
from llmproxyd.wire.connection import Connection
from llmproxyd.wire.transport import stirs
from llmproxyd.wire.wheel import Timer, Wheel

TRUSTED = 1.0
"""Seconds for which an idle connection is believed to be open: its end would have been noticed."""


class PoolTimeout(Exception):
    """No connection came free in time, or too many wait for one already.

    :param granted: seconds.
    :param limit: how many connections there may be, and how many may wait.
    """

    def __init__(self, granted: float, limit: int) -> None:
        super().__init__(granted, limit)
        self.granted = granted
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Limits:
    """What one origin may have.

    :param connect_timeout: seconds until there is a connection, and in the queue for one.
    :param max_connections: open at once; as many requests may wait.
    :param max_idle: connections that are kept.
    :param idle: seconds for which one is kept.
    """

    connect_timeout: float
    max_connections: int = 256
    max_idle: int = 64
    idle: float = 90.0


class _Opening:
    """A call whose connection is being made."""

    __slots__ = ("_attempt", "_call", "_pool")

    def __init__(self, pool: Pool, call: Call, route: Route) -> None:
        self._pool = pool
        self._call: Call | None = call
        call.place = self
        self._attempt: Attempt | None = route.connect(self)

    def connected(self, transport: Any) -> None:
        """The way is open."""
        call = self._done()
        connection = Connection(self._pool)
        attach(transport, connection)
        if call is None:  # cannot be: it would have been given up
            connection.abort()
        else:
            connection.send(call)

    def failed(self, reason: Failure) -> None:
        """There is no way."""
        call = self._done()
        self._pool.not_opened()
        if call is not None:
            call.fail(reason)

    def abandon(self, call: Call) -> None:
        """Nobody waits any more."""
        attempt = self._attempt
        self._done()
        if attempt is not None:
            attempt.cancel()
        self._pool.not_opened()

    def _done(self) -> Call | None:
        call, self._call = self._call, None
        self._attempt = None
        return call


class _Queue:
    """Calls that wait until one of the connections is free, first come first served."""

    __slots__ = ("_limits", "_wheel", "calls")

    def __init__(self, wheel: Wheel, limits: Limits) -> None:
        self._wheel = wheel
        self._limits = limits
        self.calls: deque[tuple[Call, Timer]] = deque()

    def __len__(self) -> int:
        return len(self.calls)

    def put(self, call: Call) -> None:
        """Wait."""
        if len(self.calls) >= self._limits.max_connections:
            self._refuse(call)
            return
        call.place = self
        timer = self._wheel.start(self._limits.connect_timeout, partial(self._late, call))
        self.calls.append((call, timer))

    def get(self) -> Call | None:
        """The one that has waited longest."""
        if not self.calls:
            return None
        call, timer = self.calls.popleft()
        timer.cancel()
        return call

    def abandon(self, call: Call) -> None:
        """*call* does not wait any more."""
        for one in self.calls:
            if one[0] is call:
                one[1].cancel()
                self.calls.remove(one)
                return

    def _late(self, call: Call) -> None:
        self.abandon(call)
        self._refuse(call)

    def _refuse(self, call: Call) -> None:
        limits = self._limits
        call.fail(Failure(PoolTimeout(limits.connect_timeout, limits.max_connections)))


class Pool:
    """Lends connections to calls.

    The one that was used last is taken first, so that the others grow old and are closed.

    :ivar open: connections that are open or being made.
    """

    def __init__(self, route: Route, wheel: Wheel, limits: Limits) -> None:
        self.open = 0
        self._route = route
        self._wheel = wheel
        self._limits = limits
        self._idle: list[Connection] = []
        self._queue = _Queue(wheel, limits)
        self._leaving: set[Connection] = set()
        self._closed: list[Deferred[None]] | None = None

    @property
    def idle(self) -> int:
        """How many connections are kept for use."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many calls wait for a connection."""
        return len(self._queue)

    def send(self, call: Call) -> None:
        """Over a kept connection, else over a new one, else when one is free."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if self._is_open(connection):
                connection.send(call)
                return
        if self.open < self._limits.max_connections:
            self._open(call)
        else:
            self._queue.put(call)

    def close(self) -> Deferred[None]:
        """Close what is idle, and keep nothing from now on; fires when that is gone."""
        if self._closed is None:
            self._closed = []
        idle, self._idle = self._idle, []
        for connection in idle:
            self._dismiss(connection)
        gone: Deferred[None] = Deferred()
        self._closed.append(gone)
        self._tell_closed()
        return gone

    # From the connections.

    def free(self, connection: Connection) -> None:
        """*connection* has answered, and can take another request."""
        if not connection.served:
            self._remember(connection)
        if self._queue.calls:
            call = self._queue.get()
            assert call is not None
            connection.send(call)
            return
        limits, idle = self._limits, self._idle
        if self._closed is not None or not limits.max_idle:
            self._dismiss(connection)
            return
        if len(idle) >= limits.max_idle:
            self._dismiss(idle.pop(0))
        idle.append(connection)
        timer = connection.timer
        if timer is not None and timer.active:
            timer.restart(limits.idle)
        else:
            connection.timer = self._wheel.start(limits.idle, partial(self._expired, connection))

    def spent(self, connection: Connection) -> None:
        """*connection* has answered, and is to be closed."""
        if not connection.served:
            self._remember(connection)
        self._dismiss(connection)

    def gone(self, connection: Connection) -> None:
        """*connection* is closed; its place is free."""
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        if connection in self._idle:
            self._idle.remove(connection)
        self._leaving.discard(connection)
        self.not_opened()
        self._tell_closed()

    def not_opened(self) -> None:
        """There is room for one more."""
        self.open -= 1
        if self.open < self._limits.max_connections:
            call = self._queue.get()
            if call is not None:
                self._open(call)

    def again(self, call: Call) -> None:
        """On a new connection: a kept one has just failed *call*, and others may be as old."""
        if self.open < self._limits.max_connections:
            self._open(call)
        else:
            self._queue.put(call)

    # Within.

    def _remember(self, connection: Connection) -> None:
        connection.served = True
        # With an answer a TLS 1.3 server has sent its ticket too.
        self._route.remember(connection.transport)

    def _open(self, call: Call) -> None:
        self.open += 1
        _Opening(self, call, self._route)

    def _is_open(self, connection: Connection) -> bool:
        """Whether *connection* can be lent; one that stirs has something that nobody asked for."""
        timer = connection.timer
        assert timer is not None
        if timer.due - self._wheel.seconds() > self._limits.idle - TRUSTED or not stirs(connection.transport):
            return True
        self._leaving.add(connection)
        connection.abort()
        return False

    def _expired(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
            self._dismiss(connection)

    def _dismiss(self, connection: Connection) -> None:
        self._leaving.add(connection)
        connection.close()

    def _tell_closed(self) -> None:
        if self._closed and not self._leaving:
            told, self._closed = self._closed, []
            for one in told:
                one.callback(None)

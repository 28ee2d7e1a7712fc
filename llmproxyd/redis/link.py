"""A few connections to one Redis server, every call bounded in time.

What uses it (cache, limits, events) must do without: a call that fails says so at once and the
connection is tried again behind its back.

Protocol and replies are those of txredisapi.  Its own pool is not used: there a call waits without
bound for a server that is down, and a password that is refused once is never tried again.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from hashlib import sha1
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.redaction import Secret
from llmproxyd.redis.address import address_of
from llmproxyd.redis.connection import Call, Connection, library, load, protocol
from llmproxyd.redis.interface import RedisRefused, RedisUnavailable

CONNECTIONS = 4
"""Connections of one link: a long reply holds up what comes behind it on its own alone."""

PENDING = 2_000
"""Calls that may be under way on one link; further ones fail at once."""

FIRST_DELAY = 0.05
"""Seconds until a lost connection is tried again; doubled with each failure."""

LAST_DELAY = 2.0
"""Seconds beyond which that does not grow: an outage is over within as long."""


class RedisLink:
    """A few connections to one server, made again behind its users' backs.

    Nothing is connected before :meth:`open` or the first call.  Until the first attempt has come to
    something, calls wait for it within their time; after that one that cannot be sent fails at once.

    :param url: see :func:`address_of`.
    :param timeout: seconds in which a call is answered, or fails.
    :param connect_timeout: seconds for one attempt to connect, log in and be greeted.
    :param connections: how many, when all is well.
    :raises ValueError: *url* is none.
    :raises ImportError: txredisapi is not installed; in one line, with what to do.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: Secret,
        *,
        timeout: float = 0.1,
        connect_timeout: float = 2.0,
        connections: int = CONNECTIONS,
    ) -> None:
        self.address = address_of(url)
        library()
        self._reactor = reactor
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._size = connections
        self._ready: list[Connection] = []
        self._attempts: set[Deferred[Any]] = set()
        self._waiting: deque[tuple[Call, tuple[str | bytes | int, ...]]] | None = deque()
        self._retry: Any = None
        self._failures = 0
        self._patience: Any = None
        self._closed = False
        self._said_down = False
        self.up = False

    def open(self) -> None:
        """Begin to connect, as the first call does."""
        if self._patience is not None or self._closed:
            return
        self._patience = self._reactor.callLater(self._timeout, self._release)
        self._fill()

    # Calls.

    def call(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """One command; see :class:`Redis`."""
        self.open()
        call = Call(self._reactor.seconds() + self._timeout)
        if self._ready:
            connection = min(self._ready, key=load)
            if len(connection.calls) * len(self._ready) < PENDING:
                connection.send(call, arguments)
            else:
                call.result.errback(RedisUnavailable("too many calls are under way"))
        elif self._waiting is not None and not self._closed and len(self._waiting) < PENDING:
            self._waiting.append((call, arguments))
        else:
            call.result.errback(RedisUnavailable("closed" if self._closed else "not connected"))
        return call.result

    def script(self, source: str, keys: list[bytes], arguments: list[bytes | int | str]) -> Deferred[Any]:
        """Run a Lua script; see :class:`Redis`."""
        rest = (len(keys), *keys, *arguments)

        def unknown(failure: Failure) -> Any:
            if failure.check(RedisRefused) and str(failure.value).startswith("NOSCRIPT"):
                return self.call("EVAL", source, *rest)
            return failure

        return self.call("EVALSHA", _digest(source), *rest).addErrback(unknown)

    def close(self) -> Deferred[None]:
        """End all connections; what was sent is sent, what is not yet answered fails."""
        self._closed = True
        self.up = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for attempt in tuple(self._attempts):
            attempt.cancel()
        self._release()
        ready, self._ready = self._ready, []
        for connection in ready:
            connection.close()
        late = [self._reactor.callLater(self._timeout, one.end, "closed") for one in ready]

        def all_gone(_: object) -> None:
            for timer in late:
                if timer.active():
                    timer.cancel()

        return gatherResults([one.gone for one in ready]).addCallback(all_gone)

    # Connections.

    def _fill(self) -> None:
        """Connect: one at first, all once the server has answered."""
        while not self._closed and len(self._ready) + len(self._attempts) < (
            self._size if self._ready else 1
        ):
            attempt = Deferred.fromCoroutine(self._connect())
            self._attempts.add(attempt)
            attempt.addTimeout(self._connect_timeout, self._reactor)
            attempt.addBoth(self._ended, attempt)
            if self._retry is not None:
                return

    async def _connect(self) -> Any:
        """A connection on which the server has answered."""
        address = self.address
        wire = await self._endpoint().connect(Factory.forProtocol(protocol))
        try:
            if address.password is not None:
                await wire.auth(address.password.reveal(), address.user or None)
            if address.db:
                await wire.execute_command("SELECT", address.db)
            await wire.execute_command("PING")
        except BaseException:
            wire.transport.abortConnection()
            raise
        return wire

    def _endpoint(self) -> Any:
        address = self.address
        if address.path:
            return UNIXClientEndpoint(self._reactor, address.path, self._connect_timeout)
        # A name may stand for several addresses, whose endpoint takes its time to give up.
        kind: Any = HostnameEndpoint
        if isIPAddress(address.host):
            kind = TCP4ClientEndpoint
        elif isIPv6Address(address.host):
            kind = TCP6ClientEndpoint
        endpoint = kind(self._reactor, address.host, address.port, self._connect_timeout)
        if address.tls:
            return wrapClientTLS(optionsForClientTLS(address.host), endpoint)
        return endpoint

    def _ended(self, result: Any, attempt: Deferred[Any]) -> None:
        """An attempt came to *result*."""
        self._attempts.discard(attempt)
        if self._closed:
            if not isinstance(result, Failure):
                result.transport.abortConnection()
            return
        if isinstance(result, Failure):
            self._failed(_reason(result))
            return
        self._ready.append(Connection(self._reactor, result, self._timeout, self._lose))
        if not self.up:
            self.up = True
            if self._said_down:
                self._said_down = False
                self.log.info("Redis at {place} answers again", place=self.address.place)
        self._release()
        self._fill()

    def _lose(self, connection: Connection, why: str) -> None:
        """*connection* is no more."""
        self._ready.remove(connection)
        if connection.served:
            self._failures = 0
        now = self._reactor.seconds()
        if why.startswith("no answer"):
            # The others are no better, unless one of them was answered meanwhile.
            for other in tuple(self._ready):
                if other.answered <= now - self._timeout:
                    other.end(why)
        self._failed(why)

    def _failed(self, why: str) -> None:
        """An attempt failed, or a connection was lost: try again, later each time."""
        if not self._ready:
            self.up = False
            if not self._said_down:
                self._said_down = True
                self.log.warn(
                    "Redis at {place} does not answer: {why}; going on without it",
                    place=self.address.place,
                    why=why,
                )
        if self._retry is None and not self._closed:
            delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 16))
            self._failures += 1
            self._retry = self._reactor.callLater(delay, self._again)
        self._release()

    def _again(self) -> None:
        self._retry = None
        self._fill()

    def _release(self) -> None:
        """The first attempt has come to something, or took too long: nobody waits for it any more."""
        waiting, self._waiting = self._waiting, None
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        for call, arguments in waiting or ():
            if self._ready:
                min(self._ready, key=load).send(call, arguments)
            else:
                call.result.errback(RedisUnavailable("not connected"))


@lru_cache(maxsize=64)
def _digest(source: str) -> str:
    """What the server knows a script by."""
    return sha1(source.encode()).hexdigest()


def _reason(failure: Failure) -> str:
    """Why an attempt failed, in words."""
    if failure.check(CancelledError, TimeoutError):
        return "no answer in time"
    return failure.getErrorMessage().strip().rstrip(".")[:200] or type(failure.value).__name__

"""One connection pool to a Redis server, every call bounded in time.

What uses it (cache, limits, events) must do without: a call that fails says so at once and the
connection is tried again behind its back.

Protocol and replies are those of txredisapi.  Its own pool is not used: there a call waits without
bound for a server that is down, and a password that is refused once is never tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha1
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, gatherResults
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

CONNECTIONS = 4
"""Connections of one link: a long reply holds up what comes behind it on its own alone."""

PENDING = 2_000
"""Calls that may be under way on one link; further ones fail at once."""

FIRST_DELAY = 0.05
"""Seconds until a lost connection is tried again; doubled with each failure."""

LAST_DELAY = 2.0
"""Seconds beyond which that does not grow: an outage is over within as long."""


class RedisUnavailable(Exception):
    """The server does not answer, or not in time."""


class RedisRefused(RedisUnavailable):
    """The server answered with an error: out of memory, still loading, not allowed."""


class Redis(Protocol):
    """What the users of a server need."""

    up: bool
    """Whether a call would be sent: a connection stands on which the server has answered."""

    def call(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """One command, binary-safe; fails with :exc:`RedisUnavailable` within the time granted.

        Bulk replies are bytes, status replies (``OK``) are text or bytes.
        """
        ...

    def script(self, source: str, keys: list[bytes], arguments: list[bytes | int | str]) -> Deferred[Any]:
        """Run a Lua script by its hash; sent whole where the server does not know it.

        That second round trip has as much time again.
        """
        ...

    def close(self) -> Deferred[None]:
        """End all connections."""
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what it asks for.

    :param path: of a unix socket; *host* and *port* say nothing then.
    :param db: number of the database.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    tls: bool = False
    user: str = ""
    password: Secret | None = None
    db: int = 0

    @property
    def place(self) -> str:
        """For the log."""
        where = f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"
        return f"{where}/{self.db}" if self.db else where


def address_of(url: Secret) -> Address:
    """What *url* says: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, ``rediss://`` the same over
    TLS, ``unix://[[USER]:PASSWORD@]/PATH[?db=DB]`` or ``redis+unix://`` the same.

    :raises ValueError: in words that do not repeat it.
    """
    wrong = "must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… or unix:///PATH[?db=DB]"
    text = url.reveal()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    local = parts.scheme in ("unix", "redis+unix")
    if parts.scheme not in ("redis", "rediss") and not local:
        raise ValueError(wrong)
    if parts.fragment or "#" in text:
        raise ValueError(f"{wrong}; a # within the password is written %23")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    db = options.pop("db", "") if local else parts.path.removeprefix("/") or options.pop("db", "")
    known = parts.hostname is None and parts.path if local else parts.hostname
    if options or not known or (db and not (db.isascii() and db.isdigit() and len(db) < 6)):
        raise ValueError(wrong)
    return Address(
        host=parts.hostname or "",
        port=port or 6379,
        path=unquote(parts.path) if local else "",
        tls=parts.scheme == "rediss",
        user=unquote(parts.username or ""),
        password=Secret(unquote(parts.password)) if parts.password else None,
        db=int(db or 0),
    )


@cache
def _library() -> Any:
    """txredisapi, which is an extra.  It imports the reactor: not before there is one.

    :raises ImportError: in one line, with what to do.
    """
    try:
        import txredisapi  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError("Redis needs a package more: pip install 'llmproxyd[redis]'") from None
    return txredisapi


def _wire() -> Any:
    """A protocol of the library that takes and gives bytes, and ends on what it cannot read."""
    wire = _library().RedisProtocol(charset=None, convertNumbers=False)
    read = wire.dataReceived

    def guarded(data: bytes, unpause: bool = False) -> None:
        try:
            read(data, unpause)
        except Exception:  # whatever answers there is no Redis
            wire.transport.abortConnection()

    wire.dataReceived = guarded
    return wire


@lru_cache(maxsize=64)
def _digest(source: str) -> str:
    """What the server knows a script by."""
    return sha1(source.encode()).hexdigest()


def _reason(failure: Failure) -> str:
    """Why an attempt failed, in words."""
    if failure.check(CancelledError, TimeoutError):
        return "no answer in time"
    return failure.getErrorMessage().strip().rstrip(".")[:200] or type(failure.value).__name__


class _Call:
    """One command under way.  Where the caller cancels *result*, the reply still has its place here."""

    __slots__ = ("due", "result")

    def __init__(self, due: float) -> None:
        self.due = due
        self.result: Deferred[Any] = Deferred()


class _Connection:
    """One connection, whose replies come in the order of its calls.

    A call that is not answered in time ends it.  Were it kept, the late reply would be taken for
    that of the next call.

    :param wire: a protocol of txredisapi that is connected.
    :param patience: seconds that are added at most where we are late ourselves.
    :param lost: called once it can be used no more, with why.
    :ivar answered: when the server was last heard, seconds of the reactor.
    :ivar served: whether it answered a call, and not only the greeting.
    """

    def __init__(
        self, reactor: Any, wire: Any, patience: float, lost: Callable[[_Connection, str], None]
    ) -> None:
        self._reactor = reactor
        self._patience = patience
        self._wire = wire
        self._lost = lost
        self._timer: Any = None
        self.calls: deque[_Call] = deque()
        self.answered = reactor.seconds()
        self.served = False
        self.gone: Deferred[Any] = wire.whenDisconnected()
        self.gone.addCallback(lambda _: self.end("the connection was lost"))

    def send(self, call: _Call, arguments: tuple[str | bytes | int, ...]) -> None:
        """Send one command; its reply, or why there is none, is told to *call*."""
        self.calls.append(call)
        if self._timer is None:
            self._timer = self._reactor.callLater(call.due - self._reactor.seconds(), self._is_late)
        try:
            reply = self._wire.execute_command(*arguments)
        except Exception as error:  # not connected any more, and nobody has told us yet
            reply = fail(error)
        reply.addCallbacks(self._replied, self._failed)

    def _replied(self, reply: Any) -> None:
        if self.calls:
            self.answered = self._reactor.seconds()
            self.served = True
            self.calls.popleft().result.callback(reply)

    def _failed(self, failure: Failure) -> None:
        if not self.calls:
            return  # it has ended, and all were told
        if failure.check(_library().ResponseError):
            self.answered = self._reactor.seconds()
            self.served = True
            self.calls.popleft().result.errback(RedisRefused(str(failure.value).strip()[:200]))
        else:
            self.end("the connection was lost")

    def _is_late(self) -> None:
        """The first call is due.  If it is we who are late, it is not the server's fault.

        The command may still lie in our buffer, the reply in the socket: as long as the reactor was
        kept busy, they are waited for.
        """
        self._timer = None
        late = self._reactor.seconds() - self.calls[0].due if self.calls else -1.0
        if late >= 0:
            self._timer = self._reactor.callLater(min(late, self._patience), self._judge, self.calls[0])
        else:
            self._rearm()

    def _judge(self, first: _Call) -> None:
        self._timer = None
        if self.calls and self.calls[0] is first:
            self.end("no answer in time")
        else:
            self._rearm()

    def _rearm(self) -> None:
        if self.calls:
            delay = max(0.0, self.calls[0].due - self._reactor.seconds())
            self._timer = self._reactor.callLater(delay, self._is_late)

    def end(self, why: str) -> None:
        """Use it no more: all that is under way fails."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self.calls = self.calls, deque()
        self._wire.transport.abortConnection()
        lost, self._lost = self._lost, _nothing
        lost(self, why)
        for call in calls:
            call.result.errback(RedisUnavailable(why))

    def close(self) -> None:
        """Send what was written, then end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost = _nothing
        self._wire.transport.loseConnection()


def _nothing(connection: _Connection, why: str) -> None:
    """Nobody is to be told."""


def _load(connection: _Connection) -> int:
    return len(connection.calls)


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
        _library()
        self._reactor = reactor
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._size = connections
        self._ready: list[_Connection] = []
        self._attempts: set[Deferred[Any]] = set()
        self._waiting: deque[tuple[_Call, tuple[str | bytes | int, ...]]] | None = deque()
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
        call = _Call(self._reactor.seconds() + self._timeout)
        if self._ready:
            connection = min(self._ready, key=_load)
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
        wire = await self._endpoint().connect(Factory.forProtocol(_wire))
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
        self._ready.append(_Connection(self._reactor, result, self._timeout, self._lose))
        if not self.up:
            self.up = True
            if self._said_down:
                self._said_down = False
                self.log.info("Redis at {place} answers again", place=self.address.place)
        self._release()
        self._fill()

    def _lose(self, connection: _Connection, why: str) -> None:
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
                min(self._ready, key=_load).send(call, arguments)
            else:
                call.result.errback(RedisUnavailable("not connected"))

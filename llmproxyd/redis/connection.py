"""One connection, over the protocol of txredisapi; its replies come in the order of its calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from llmproxyd.redis.interface import RedisRefused, RedisUnavailable


@cache
def library() -> Any:
    """txredisapi, which is an extra.  It imports the reactor: not before there is one.

    :raises ImportError: in one line, with what to do.
    """
    try:
        import txredisapi  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError("Redis needs a package more: pip install 'llmproxyd[redis]'") from None
    return txredisapi


def protocol() -> Any:
    """A protocol of the library that takes and gives bytes, and ends on what it cannot read."""
    wire = library().RedisProtocol(charset=None, convertNumbers=False)
    read = wire.dataReceived

    def guarded(data: bytes, unpause: bool = False) -> None:
        try:
            read(data, unpause)
        except Exception:  # whatever answers there is no Redis
            wire.transport.abortConnection()

    wire.dataReceived = guarded
    return wire


class Call:
    """One command under way.  Where the caller cancels *result*, the reply still has its place here."""

    __slots__ = ("due", "result")

    def __init__(self, due: float) -> None:
        self.due = due
        self.result: Deferred[Any] = Deferred()


class Connection:
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
        self, reactor: Any, wire: Any, patience: float, lost: Callable[[Connection, str], None]
    ) -> None:
        self._reactor = reactor
        self._patience = patience
        self._wire = wire
        self._lost = lost
        self._timer: Any = None
        self.calls: deque[Call] = deque()
        self.answered = reactor.seconds()
        self.served = False
        self.gone: Deferred[Any] = wire.whenDisconnected()
        self.gone.addCallback(lambda _: self.end("the connection was lost"))

    def send(self, call: Call, arguments: tuple[str | bytes | int, ...]) -> None:
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
        if failure.check(library().ResponseError):
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

    def _judge(self, first: Call) -> None:
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


def _nothing(connection: Connection, why: str) -> None:
    """Nobody is to be told."""


def load(connection: Connection) -> int:
    """How many calls wait for their replies."""
    return len(connection.calls)

"""Rehearsed faults as though an upstream had them: retries, the hold and the breaker see them.

:func:`send` stands in for that of a :class:`~llmproxyd.pipeline.sends.Sends` in one attempt, and gives what a
real one would: an answer whose body comes, or the failure that there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from llmproxyd.errors import ClientGone
from llmproxyd.faults.choose import Chosen
from llmproxyd.faults.render import kind_at, render
from llmproxyd.faults.rules import Breakage, Side
from llmproxyd.model import Reply, Response
from llmproxyd.pipeline.answer import reason_of, status_reply
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.playback import Altered, Playback, Rehearsal, altered, missed, subject_of
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.sends import Sends
from llmproxyd.pipeline.upstream import Outgoing, explain, head_of, headers_timeout, readable
from llmproxyd.wire.agent import abort
from llmproxyd.wire.outgoing import BODILESS
from llmproxyd.wire.response import DONE, HTTP_1_1, WireResponse
from llmproxyd.wire.wheel import Timer, Wheel

Ask = Callable[[], Deferred[WireResponse]]


def send(
    exchange: Exchange,
    upstream: Upstream,
    going: Outgoing,
    produce: Callable[[], IBodyProducer | None],
    interim: Callable[[Response], None] | None,
    sender: Sends,
    rehearsal: Rehearsal,
) -> Deferred[WireResponse] | None:
    """One attempt with the fault that is chosen for it; ``None`` where none is.

    :param produce: makes what writes the request's body.
    """
    chosen = rehearsal.engine.choose(subject_of(exchange, upstream.name), Side.UPSTREAM)
    if chosen is None:
        return None
    exchange.fault, exchange.unreached = chosen, False
    kind, manner, granted = chosen.rule.kind, chosen.rule.manner, upstream.timeouts.headers
    later = partial(_Later, rehearsal.wheel, granted)

    def truly(going: Outgoing = going) -> Deferred[WireResponse]:
        return sender.send(going, produce(), interim)

    if not isinstance(kind, Breakage) or kind is Breakage.STATUS:
        return later(0.0, lambda: succeed(_reply(exchange, chosen, rehearsal.wall()))).begin()
    if kind is Breakage.REFUSE:
        return later(0.0, _refused).begin()
    if kind is Breakage.NEVER or kind is Breakage.DELAY:
        return later(manner.silence if kind is Breakage.DELAY else None, truly).begin()
    going = going if kind is Breakage.WRONG_LENGTH else readable(going)
    return truly(going).addCallback(partial(_broken, exchange, chosen, rehearsal))


# No answer, or one that is made here.


class _Later:
    """An answer that is asked for in *seconds*, unless nobody waits for it any more.

    :param granted: seconds in which its head must come.
    :param seconds: ``None`` for never.
    """

    def __init__(self, wheel: Wheel, granted: float, seconds: float | None, ask: Ask) -> None:
        self._wheel = wheel
        self._granted = granted
        self._seconds = seconds
        self._ask: Ask | None = ask
        self._answer: Deferred[WireResponse] | None = None
        self._asked: Deferred[WireResponse] | None = None
        self._timer: IDelayedCall | None = None
        self._limit: Timer | None = None

    def begin(self) -> Deferred[WireResponse]:
        answer = self._answer = Deferred(self._cancel)
        self._limit = self._wheel.start(self._granted, self._expire)
        if self._seconds is not None:
            self._timer = self._wheel.exactly(self._seconds, self._go_on)
        return answer

    def _go_on(self) -> None:
        self._timer = None
        ask, self._ask = self._ask, None
        assert ask is not None
        asked = self._asked = ask()
        asked.addCallbacks(self._answered, self._failed)

    def _answered(self, response: WireResponse) -> None:
        answer = self._settle()
        if answer is None:
            abort(response)
        else:
            answer.callback(response)

    def _failed(self, reason: Failure) -> None:
        answer = self._settle()
        if answer is not None:
            answer.errback(reason)

    def _expire(self) -> None:
        self._limit = None
        self._end(headers_timeout(self._granted))

    def _cancel(self, _: Deferred[WireResponse]) -> None:
        self._end(ClientGone())

    def _end(self, error: Exception) -> None:
        answer, asked = self._settle(), self._asked
        if asked is not None:
            asked.cancel()
        if answer is not None:
            answer.errback(Failure(error))

    def _settle(self) -> Deferred[WireResponse] | None:
        """Wait for nothing more; who waits for the answer, if somebody still does."""
        answer, self._answer = self._answer, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
        self._ask = None
        return answer


def _refused() -> Deferred[WireResponse]:
    return fail(explain(Failure(ConnectionRefusedError())))


def _reply(exchange: Exchange, chosen: Chosen, wall: float) -> WireResponse:
    """The provider's own error, or any status and body, as though it came from the upstream."""
    kind = chosen.rule.kind
    if kind is Breakage.STATUS:
        reply = status_reply(chosen)
    else:
        known = kind_at(kind, exchange.dialect)
        context = exchange.error_context(wall, known, chosen.rule.retry_after)
        reply = render(exchange.dialect, context)
    return _whole(reply, wall, bodiless=exchange.request.method == b"HEAD")


def _whole(reply: Reply, wall: float, *, bodiless: bool) -> WireResponse:
    fields = [*reply.headers, (b"date", formatdate(wall, usegmt=True).encode())]
    body = b"" if bodiless else reply.body
    if reply.status not in BODILESS:
        fields.append((b"content-length", b"%d" % len(reply.body)))
    answer = WireResponse(HTTP_1_1, reply.status, reason_of(reply.status), fields, len(body))
    answer.came_whole(body)
    return answer


# A real answer that is broken.


def _broken(exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal, real: WireResponse) -> WireResponse:
    made = altered(exchange, chosen, head_of(real), rehearsal)
    if made is None:
        missed(exchange, chosen, rehearsal)
        return real
    return Staged(exchange, chosen, rehearsal, real, made)


class Staged(WireResponse):
    """A real answer as it would be if the upstream had broken it.  Its body comes when it is asked for."""

    __slots__ = ("_feeder",)

    def __init__(
        self, exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal, real: WireResponse, made: Altered
    ) -> None:
        head = made.head
        length = UNKNOWN_LENGTH if head.length is None else head.length
        super().__init__(real.version, head.status, head.reason, head.headers, length)
        self._feeder: _Feeder | None = _Feeder(exchange, chosen, rehearsal, real, made, self)
        self.come_from(self._feeder)

    def deliverBody(self, protocol: IProtocol) -> None:
        """See :class:`~llmproxyd.wire.response.WireResponse`."""
        super().deliverBody(protocol)
        feeder, self._feeder = self._feeder, None
        if feeder is not None:
            feeder.begin()


@implementer(IProtocol)
class _Feeder(Playback):
    """Reads a real answer, and feeds a :class:`Staged` one: its source."""

    __slots__ = ("_given", "_real", "_staged", "_transport")

    def __init__(
        self,
        exchange: Exchange,
        chosen: Chosen,
        rehearsal: Rehearsal,
        real: WireResponse,
        made: Altered,
        staged: Staged,
    ) -> None:
        super().__init__(exchange, chosen, rehearsal)
        self._player, self._reader = made.player, made.reader
        self._real = real
        self._staged: Staged | None = staged
        self._transport: WireResponse | None = None
        self._given = 0

    def begin(self) -> None:
        """Somebody reads."""
        if not self.over:
            self._real.forget_fields()
            self._real.deliverBody(self)

    # From the upstream.

    def makeConnection(self, transport: Any) -> None:
        """The body begins to flow."""
        self._transport = transport

    def connectionMade(self) -> None:
        """See :meth:`makeConnection`."""

    def dataReceived(self, data: bytes) -> None:
        """A piece of the body."""
        self._take(data)

    def connectionLost(self, reason: Failure) -> None:
        """The body is over, or broke off in truth."""
        self._transport = None
        if reason is DONE:
            self._end()
        else:
            self._tell(reason)

    # From whoever reads the staged answer.

    def pause(self) -> None:
        """Let nothing more come."""
        self._taken(slowly=True)

    def resume(self) -> None:
        """Go on."""
        self._taken(slowly=False)

    def abort(self) -> None:
        """Nobody reads any more."""
        if not self.over:
            self._tell(Failure(ResponseFailed([Failure(ConnectionAborted())])))

    # What the player wants.

    def _send(self, data: bytes) -> None:
        if self._staged is not None:
            self._given += len(data)
            self._staged.receive(data)

    def _break(self, *, reset: bool) -> None:
        staged = self._staged
        if staged is not None and staged.length == self._given:
            # As much has come as was announced: what is more is nobody's.
            self._finish()
        else:
            self._tell(Failure(ResponseFailed([Failure(ConnectionLost())])))

    def _finish(self) -> None:
        if self._staged is not None:
            self._staged.completed()
        self._tell(DONE)

    def _pace(self, *, blocked: bool) -> None:
        if self._transport is None:
            return
        if blocked:
            self._transport.pauseProducing()
        else:
            self._transport.resumeProducing()

    def _tell(self, reason: Failure) -> None:
        """The staged answer ends."""
        staged, self._staged = self._staged, None
        if staged is None:
            return
        if not self.reached:
            self._missed()
        self._stop()
        self._transport = None
        abort(self._real)
        staged.end(reason)

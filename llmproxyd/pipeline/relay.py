"""The answer's body, from the upstream to the client as it comes.

It begins with the commit: the head is sent, at once or when the gate before it has opened
(:mod:`~llmproxyd.pipeline.gate`).  Pieces are handed on unchanged, at the client's pace.  A stream
that breaks off is made visible: where it ended between two events, the provider's own error
event comes first; the connection is cut in any case, so a truncated stream never looks whole.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.errors import ProxyError, Retryable, UpstreamError
from llmproxyd.http.framing import Framing, Tracker, tracker
from llmproxyd.inspection.content import StreamWatch
from llmproxyd.model import End, RawHeaders, Response, WallClock
from llmproxyd.pipeline.answer import stream_error
from llmproxyd.pipeline.commit import commit
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gather import Gather
from llmproxyd.pipeline.refusals import first_content_timeout, idle_timeout
from llmproxyd.pipeline.upstream import explain
from llmproxyd.providers.base import StreamForm
from llmproxyd.wire.agent import BadAnswer, abort
from llmproxyd.wire.body import BodyTooLarge
from llmproxyd.wire.head import BadRequest
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Timer, Wheel

KEEPALIVE = b": keep-alive\n\n"
"""A comment in a stream of server-sent events: every client skips it."""


@implementer(IProtocol, IPushProducer)
class Relay:
    """Receives one answer's body and hands it on.

    :param idle: seconds without a piece after which the upstream is given up; time in which
        the client does not read does not count.
    :param gather: seconds for which pieces of a stream wait for others.
    :param keepalive: seconds of silence after which the client of a stream is sent a comment.
    """

    __slots__ = (
        "_error",
        "_exchange",
        "_first",
        "_form",
        "_gather",
        "_idle",
        "_keepalive",
        "_last_word",
        "_quiet",
        "_timer",
        "_tracker",
        "_wall",
        "_watch",
        "_wheel",
        "transport",
    )

    def __init__(
        self,
        exchange: Exchange,
        wheel: Wheel,
        wall: WallClock,
        idle: float,
        keepalive: float | None = None,
        *,
        gather: float = 0.0,
    ) -> None:
        self._exchange = exchange
        self._wheel = wheel
        self._wall = wall
        self._idle = idle
        self._keepalive = keepalive
        self._timer: Timer | None = None
        self._quiet: Timer | None = None
        self._first: Timer | None = None
        self._watch: StreamWatch | None = None
        self._error: UpstreamError | None = None
        self._form: StreamForm | None = None
        self._last_word: bytes | None = None
        self._gather = Gather(gather, wheel, self._write) if gather > 0 else None
        self._tracker: Tracker | None = None
        self.transport: WireResponse | None = None

    def begin(self, response: Response, more: RawHeaders = ()) -> None:
        """Send the head; see :func:`~llmproxyd.pipeline.commit.commit`."""
        exchange = self._exchange
        stream, coding = commit(exchange, response, self._wheel.seconds, more)
        # An event of ours could not be read in a coded stream.
        form = self._form = None if coding else stream
        if stream is None:
            self._gather = None
        if form is not None:
            self._tracker = tracker(form.framing)
            # The bracket that closes an array closes much else, too.
            self._last_word = form.terminator if form.framing is Framing.SSE else None
            if exchange.stage is not None:
                self._last_word = None  # what the client gets is for the stage to say

    def expect_content(self, watch: StreamWatch, granted: float, left: float) -> None:
        """Give the upstream up unless the stream's first content comes in time.

        :param granted: seconds in all (``timeouts.first_content``).
        :param left: seconds of them that are left.
        """

        def expire() -> None:
            self._first = None
            self._error = first_content_timeout(granted)
            self._abandon()

        self._watch = watch
        self._first = self._wheel.start(max(left, 0), expire)

    def connectionMade(self) -> None:
        """See :meth:`makeConnection`, which leaves nothing to do here."""

    def makeConnection(self, transport: Any) -> None:
        """The body begins to flow: each side's pace now binds the other.

        :param transport: the answer, a :class:`~llmproxyd.wire.response.WireResponse`.
        """
        exchange = self._exchange
        self.transport = transport
        if exchange.done or exchange.responder is None:
            self._abandon()
        elif not transport.complete:
            exchange.work = self._abandon
            exchange.give_up = self._give_up
            exchange.responder.feed_from(self)
            self._timer = self._wheel.start(self._idle, self._stalled)
            if self._keepalive is not None and self._form is not None and self._form.framing is Framing.SSE:
                self._quiet = self._wheel.start(self._keepalive, self._silent)

    def dataReceived(self, data: bytes) -> None:
        """A piece of the body."""
        exchange, transport = self._exchange, self.transport
        if exchange.done:
            return
        if self._timer is not None:
            self._timer.restart(self._idle)
        if self._tracker is not None:
            self._tracker.feed(data)
        if self._watch is not None and (self._watch.feed(data) is not None or self._watch.blind):
            self._content_came()
        if self._quiet is not None and self._keepalive is not None:
            self._quiet.restart(self._keepalive)
        last = transport is not None and transport.complete
        if self._gather is not None:
            if not last:
                self._gather.add(data)
                return
            data = self._gather.take() + data
        exchange.write(data, last=last)
        if self._last_word is not None and not exchange.orphan:
            exchange.said_all = data.endswith(self._last_word)

    def _write(self, data: bytes) -> None:
        exchange = self._exchange
        if data and not exchange.done:
            exchange.write(data)
            if self._last_word is not None and not exchange.orphan:
                exchange.said_all = data.endswith(self._last_word)

    def connectionLost(self, reason: Failure) -> None:
        """The body is over, or broke off."""
        self._stop_timers()
        self.transport = None
        exchange = self._exchange
        if self._gather is not None:
            self._write(self._gather.take())
        if exchange.done:
            return
        if exchange.responder is not None:
            exchange.responder.fed()
        if reason is DONE and self._error is None:
            exchange.finish(self._wheel.seconds())
            return
        error = self._error or broken_off(reason)
        failed = isinstance(error, UpstreamError)
        self._break_off(error, End.IDLE if self._error else End.TRUNCATED, failed=failed)

    def _give_up(self, error: ProxyError) -> None:
        """Break off from our side, as visibly as when the upstream does."""
        exchange = self._exchange
        if exchange.responder is not None:
            exchange.responder.fed()
            # What a fault has held up for the client speaks against nobody.
            held_up = exchange.stage is not None and exchange.stage.waited
            self._break_off(error, End.TRUNCATED, failed=isinstance(error, UpstreamError) and not held_up)
        self._abandon()

    def _break_off(self, error: ProxyError, end: End, *, failed: bool) -> None:
        exchange = self._exchange
        if self._gather is not None:
            self._write(self._gather.take())
        responder = exchange.responder
        assert responder is not None
        if responder.chunked and self._form is not None and self._tracker is not None:
            event = (
                stream_error(exchange, self._form, error, self._wall()) if self._tracker.at_boundary else None
            )
            if event is not None:
                exchange.write(_placed(event, self._form, self._tracker), ours=True)
        exchange.failed = failed
        exchange.cut(end, error.code, error.message, self._wheel.seconds())

    def _silent(self) -> None:
        """Tell the client that the stream is still there, where a comment can stand."""
        assert self._keepalive is not None
        self._quiet = self._wheel.start(self._keepalive, self._silent)
        responder = self._exchange.responder
        if responder is None or self._timer is None or not responder.chunked:
            return
        if self._tracker is not None and self._tracker.at_boundary:
            self._exchange.write(KEEPALIVE, ours=True)

    def _content_came(self) -> None:
        self._watch = None
        timer, self._first = self._first, None
        if timer is not None:
            timer.cancel()

    def _stalled(self) -> None:
        self._timer = None
        self._error = idle_timeout(self._idle)
        self._abandon()

    def _abandon(self) -> None:
        """Close the upstream's connection; :meth:`connectionLost` follows."""
        self._stop_timers()
        if self.transport is not None:
            abort(self.transport)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _stop_timers(self) -> None:
        self._stop_timer()
        if self._first is not None:
            self._content_came()
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            quiet.cancel()

    # The client's side calls these, at its pace.

    def pauseProducing(self) -> None:
        """The client does not keep up: stop reading from the upstream."""
        self._stop_timer()
        if self._exchange.stage is not None and self._first is not None:
            # A fault keeps the upstream from saying more; it cannot be late.
            self._content_came()
        if self.transport is not None:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client reads again."""
        if self.transport is not None and not self._exchange.done:
            self._stop_timer()
            self._timer = self._wheel.start(self._idle, self._stalled)
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client is gone; :meth:`Exchange.client_gone` does what follows.

        Where others wait for the answer, it goes on coming.
        """
        self.resumeProducing()


def broken_off(reason: Failure) -> ProxyError:
    """What became of a body that ended too soon."""
    if isinstance(reason.value, BadAnswer | BadRequest | BodyTooLarge):
        error = explain(reason)
        assert isinstance(error, ProxyError)
        return error
    return Retryable(502, "upstream_protocol_error", "The upstream broke off in the middle of its answer.")


def _placed(event: bytes, form: StreamForm, position: Tracker) -> bytes:
    """*event* as it must stand after what was relayed: the first array element has no comma."""
    if form.framing is Framing.JSON_ARRAY and position.empty:
        return event.lstrip(b",\r\n ")
    return event

"""The answer's body, from the upstream to the client as it comes.

Two parts: the gate, which decides when the head is sent (here at once; that is the commit
point), and what follows it: pieces are handed on unchanged, at the client's pace.  A stream
that breaks off is made visible: where it ended between two events, the provider's own error
event comes first; the connection is cut in any case, so a truncated stream never looks whole.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from llmproxyd.errors import ProxyError, Retryable, UpstreamError
from llmproxyd.http.framing import Framing, Tracker, tracker
from llmproxyd.http.headers import end_to_end, first
from llmproxyd.model import End, Response, WallClock
from llmproxyd.pipeline.answer import stream_error
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.providers.base import StreamForm
from llmproxyd.units import format_duration
from llmproxyd.wire.agent import abort


@implementer(IPushProducer)
class Relay(Protocol):
    """Receives one answer's body and hands it on.

    :param idle: seconds without a piece after which the upstream is given up; time in which
        the client does not read does not count.
    """

    def __init__(
        self, exchange: Exchange, response: Response, clock: IReactorTime, wall: WallClock, idle: float
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._wall = wall
        self._idle = idle
        self._timer: IDelayedCall | None = None
        self._error: UpstreamError | None = None
        self._form = _form_of(exchange, response)
        self._tracker: Tracker | None = None if self._form is None else tracker(self._form.framing)

    def begin(self, response: Response) -> None:
        """Commit: the upstream's head goes to the client, less what belongs to the connection."""
        headers = end_to_end(response.headers)
        exchange = self._exchange
        exchange.start(Response(response.status, response.reason, headers, response.length, response.version))

    def connectionMade(self) -> None:
        """The body begins to flow: each side's pace now binds the other."""
        exchange = self._exchange
        if exchange.done or exchange.responder is None:
            self._abandon()
            return
        exchange.work = self._abandon
        exchange.give_up = self._give_up
        exchange.responder.feed_from(self)
        self._timer = self._clock.callLater(self._idle, self._stalled)

    def dataReceived(self, data: bytes) -> None:
        """A piece of the body."""
        if self._exchange.done:
            return
        if self._timer is not None:
            self._timer.reset(self._idle)
        if self._tracker is not None:
            self._tracker.feed(data)
        self._exchange.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body is over, or broke off."""
        self._stop_timer()
        exchange = self._exchange
        if exchange.done:
            return
        if exchange.responder is not None:
            exchange.responder.fed()
        now = self._clock.seconds()
        if self._error is None and reason.check(ResponseDone, PotentialDataLoss):
            exchange.finish(now)
            return
        error = self._error or Retryable(
            502, "upstream_protocol_error", "The upstream broke off in the middle of its answer."
        )
        self._break_off(error, End.IDLE if self._error else End.TRUNCATED)

    def _give_up(self, error: ProxyError) -> None:
        """Break off from our side, as visibly as when the upstream does."""
        if self._exchange.responder is not None:
            self._exchange.responder.fed()
            self._break_off(error, End.TRUNCATED)
        self._abandon()

    def _break_off(self, error: ProxyError, end: End) -> None:
        exchange = self._exchange
        responder = exchange.responder
        assert responder is not None
        if responder.chunked and self._form is not None and self._tracker is not None:
            event = (
                stream_error(exchange, self._form, error, self._wall()) if self._tracker.at_boundary else None
            )
            if event is not None:
                exchange.write(_placed(event, self._form, self._tracker))
        exchange.cut(end, error.code, error.message, self._clock.seconds())

    def _stalled(self) -> None:
        self._timer = None
        self._error = Retryable(
            504,
            "upstream_timeout",
            f"The upstream sent nothing for {format_duration(self._idle)} (timeouts.idle).",
        )
        self._abandon()

    def _abandon(self) -> None:
        """Close the upstream's connection; :meth:`connectionLost` follows."""
        self._stop_timer()
        abort(self.transport)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # The client's side calls these, at its pace.

    def pauseProducing(self) -> None:
        """The client does not keep up: stop reading from the upstream."""
        self._stop_timer()
        if self.transport is not None:
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        """The client reads again."""
        if self.transport is not None and not self._exchange.done:
            self._stop_timer()
            self._timer = self._clock.callLater(self._idle, self._stalled)
            self.transport.resumeProducing()  # type: ignore[attr-defined]

    def stopProducing(self) -> None:
        """The client is gone; :meth:`Exchange.client_gone` does what follows."""


def _form_of(exchange: Exchange, response: Response) -> StreamForm | None:
    """The form of *response* if it is a stream in which an event of ours could be read."""
    route = exchange.route
    if route is None or route.endpoint is None or first(response.headers, b"content-encoding"):
        return None
    return route.endpoint.form_of(first(response.headers, b"content-type") or b"")


def _placed(event: bytes, form: StreamForm, position: Tracker) -> bytes:
    """*event* as it must stand after what was relayed: the first array element has no comma."""
    if form.framing is Framing.JSON_ARRAY and position.empty:
        return event.lstrip(b",\r\n ")
    return event

"""A sender that answers from recordings: no network, the same bytes in the same pieces at the same times.

What the answer is handed to sees no difference to an upstream: pieces come at its pace, and it may
ask for the body late or break off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from llmproxyd.cassettes.format import Asked
from llmproxyd.cassettes.matching import LONGEST, Library
from llmproxyd.errors import ClientGone, Refused, Retryable
from llmproxyd.model import Response
from llmproxyd.pipeline.rerun import Rerun
from llmproxyd.pipeline.sends import Sends, target_of
from llmproxyd.pipeline.upstream import Outgoing, explain
from llmproxyd.redaction import printable
from llmproxyd.units import format_duration
from llmproxyd.wire.body import BytesBody
from llmproxyd.wire.response import WireResponse
from llmproxyd.wire.wheel import Wheel

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request's body that is held against recordings."""


class Player:
    """Answers requests from recordings.

    :param speed: how many times as fast as it was; 0 for without any wait.
    :param otherwise: sends what has no recording; ``None`` refuses it.
    """

    def __init__(self, library: Library, wheel: Wheel, speed: float, otherwise: Sends | None = None) -> None:
        self._library = library
        self._wheel = wheel
        self._pace = 1 / speed if speed else 0.0
        self._otherwise = otherwise
        self._played = self._missed = 0

    def state(self) -> Mapping[str, object]:
        """For ``/health/detailed``."""
        return {"recordings": len(self._library), "played": self._played, "missed": self._missed}

    def send(
        self,
        going: Outgoing,
        body: IBodyProducer | None,
        interim: Callable[[Response], None] | None = None,
    ) -> Deferred[WireResponse]:
        """See :class:`~llmproxyd.pipeline.sends.Sends`."""
        turn = _Turn(self._wheel)

        def asked(data: bytes) -> None:
            wanted = Asked(
                going.upstream.provider.name,
                going.upstream.name,
                going.method.decode("latin-1"),
                target_of(going),
                going.headers.raw,
                data,
            )
            found = self._library.find(wanted)
            if found is not None:
                self._played += 1
                exchange = found.exchange
                rerun = Rerun(exchange.asked.method, exchange.answered, self._wheel, self._pace)
                turn.play(rerun, exchange.answered.after * self._pace, going.upstream.timeouts.headers)
                return
            self._missed += 1
            if self._otherwise is None:
                turn.fail(Failure(_nothing(wanted, self._library)))
                return
            again = None
            if body is not None:
                again = BytesBody(data, chunked=body.length is UNKNOWN_LENGTH)
            turn.follow(self._otherwise.send(going, again, interim))

        turn.collect(body, asked)
        return turn.result


def _nothing(asked: Asked, library: Library) -> Refused:
    target = printable(asked.target.partition("?")[0])
    shown = target if len(target) <= LONGEST else target[:LONGEST] + "…"
    said = f"No recording answers this request ({asked.provider}, {printable(asked.method)} {shown}). "
    return Refused(404, "no_recording", said + library.nearest(asked))


class _Turn:
    """One request, until the head of its answer.

    :ivar result: fires with the answer.
    """

    def __init__(self, wheel: Wheel) -> None:
        self.result: Deferred[WireResponse] = Deferred(self._cancelled)
        self._wheel = wheel
        self._stop: Callable[[], object] = _nothing_to_stop

    def collect(self, body: IBodyProducer | None, then: Callable[[bytes], None]) -> None:
        """Take all of *body*, and go on."""
        data = b"" if body is None else getattr(body, "data", None)
        if data is not None:
            then(data)
            return
        assert body is not None
        collector = _Collector(body)
        self._stop = collector.stop

        def whole(_: object) -> None:
            if self.result.called:
                return
            self._stop = _nothing_to_stop
            try:
                if collector.full:
                    told = f"Bodies of more than {MAX_BODY >> 20} MiB are not looked for among recordings."
                    raise Refused(404, "no_recording", told)
                then(b"".join(collector.pieces))
            except Exception:
                self.fail(Failure())

        body.startProducing(collector).addCallbacks(whole, lambda why: self.fail(Failure(explain(why))))

    def play(self, rerun: Rerun, delay: float, granted: float) -> None:
        """Give the head of *rerun* in *delay* seconds, unless that is more than is *granted*."""
        if delay > granted:
            expired = Retryable(
                504,
                "headers_timeout",
                "The recorded answer does not begin within "
                f"{format_duration(granted)} (timeouts.headers, replay.speed).",
            )
            call = self._wheel.exactly(granted, lambda: self.fail(Failure(expired)))
        else:
            call = self._wheel.exactly(delay, lambda: rerun.begin(self._fire))
        self._stop = call.cancel

    def follow(self, sending: Deferred[WireResponse]) -> None:
        """The answer comes from elsewhere."""
        self._stop = sending.cancel

        def answered(incoming: WireResponse) -> None:
            self._fire(incoming)
            incoming.hold()

        sending.addCallbacks(answered, self.fail)

    def fail(self, failure: Failure) -> None:
        """There is no answer."""
        self._stop = _nothing_to_stop
        if not self.result.called:
            self.result.errback(failure)

    def _fire(self, response: WireResponse) -> None:
        self._stop = _nothing_to_stop
        self.result.callback(response)

    def _cancelled(self, result: Deferred[WireResponse]) -> None:
        stop, self._stop = self._stop, _nothing_to_stop
        stop()
        if not result.called:
            result.errback(Failure(ClientGone()))


def _nothing_to_stop() -> None:
    return None


@implementer(IConsumer)
class _Collector:
    """Takes a request's body in.

    :ivar full: it is longer than is looked at; the rest is taken and forgotten.
    """

    def __init__(self, body: IBodyProducer) -> None:
        self.pieces: list[bytes] = []
        self.full = False
        self.stop = body.stopProducing
        self._left = MAX_BODY

    def write(self, data: bytes) -> None:
        """A piece of it."""
        self._left -= len(data)
        if self._left < 0:
            self.full = True
            self.pieces = []
        else:
            self.pieces.append(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The body is its own producer."""

    def unregisterProducer(self) -> None:
        """See :meth:`registerProducer`."""

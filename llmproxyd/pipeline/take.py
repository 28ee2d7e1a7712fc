"""The copy of one exchange, made while it passes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IConsumer, IProtocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from llmproxyd.cassettes.ending import said_all
from llmproxyd.cassettes.format import LEAST_GAP, Answered, Asked, Exchange, Piece
from llmproxyd.pipeline.sends import target_of
from llmproxyd.pipeline.tape import Tape
from llmproxyd.pipeline.upstream import Outgoing
from llmproxyd.providers.base import Endpoint
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Timer, Wheel

LINGER = 1.0
"""Seconds for the end of a stream whose client left at its last word."""


OVERHEAD = 200
"""Bytes that a piece takes beside its own."""


class Take:
    """The copy of one exchange."""

    __slots__ = (
        "_began",
        "_going",
        "_head",
        "_now",
        "_number",
        "_over",
        "_pieces",
        "_sent",
        "_size",
        "_sizes",
        "_tape",
        "_uploaded",
        "_wall",
        "_wheel",
    )

    def __init__(self, tape: Tape, number: int, going: Outgoing, wheel: Wheel, wall: float) -> None:
        self._tape = tape
        self._number = number
        self._going = going
        self._now = wheel.seconds
        self._wheel = wheel
        self._wall = wall
        self._began = wheel.seconds()
        self._size = 0
        self._sizes = [0, 0]
        self._sent: list[bytes] = []
        self._pieces: list[Piece] = []
        self._uploaded = True
        self._over = False
        self._head: tuple[float, int, bytes, tuple[int, int], Any] | None = None

    # The request.

    def overhear(self, body: IBodyProducer | None) -> IBodyProducer | None:
        """*body* as it is to be sent."""
        if body is None:
            return None
        data = getattr(body, "data", None)
        if data is not None:
            self.sent(data)
            return body
        self._uploaded = False
        return _Overheard(body, self)

    def sent(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self._room(0, len(data)):
            self._sent.append(data)

    def uploaded(self) -> None:
        """The request's body is whole."""
        self._uploaded = True

    # The answer.

    def head(self, incoming: WireResponse) -> WireResponse:
        """The head of the answer is here; what is handed on in its place."""
        _, major, minor = incoming.version
        self._head = self._now(), incoming.code, incoming.phrase, (major, minor), incoming.raw
        handed = WireResponse(incoming.version, incoming.code, incoming.phrase, incoming.raw, incoming.length)
        whole = incoming.whole
        if whole is not None:
            self.came(whole, together=True)
            handed.came_whole(whole)
            self.ended(whole=True, together=True)
            return handed
        copy = _Copy(incoming, handed, self, self._wheel)
        handed.come_from(copy)
        incoming.deliverBody(copy)
        copy.together = False
        return handed

    def came(self, data: bytes, *, together: bool) -> None:
        """A piece of the answer's body.

        :param together: with the head.
        """
        if data and self._room(1, len(data)):
            self._pieces.append(Piece(0.0 if together else self._after(), data))

    @property
    def said_all(self) -> bool:
        """Whether the answer is a stream, and closed by its last word."""
        assert self._head is not None
        fields = self._head[-1]
        return not self._over and said_all(self._endpoint, fields, [piece.data for piece in self._pieces])

    def ended(self, *, whole: bool, together: bool = False) -> None:
        """Nothing more comes."""
        if self._over:
            return
        if not self._uploaded:
            self.forget("the answer was over before the request was")
            return
        assert self._head is not None
        self._over = True
        at, status, reason, version, fields = self._head
        ended = 0.0 if together else self._after()
        if self._pieces and whole and ended - self._pieces[-1].after < LEAST_GAP:
            ended = self._pieces[-1].after
        after = max(at - self._began, 0.0)
        answered = Answered(status, reason, version, tuple(fields), after, tuple(self._pieces), whole, ended)
        upstream = self._going.upstream
        target = target_of(self._going)
        method = self._going.method
        asked = Asked(
            upstream.provider.name,
            upstream.name,
            method.decode("latin-1"),
            target,
            tuple(self._going.headers.raw),
            b"".join(self._sent),
        )
        endpoint = self._endpoint
        last = target.partition("?")[0].rpartition("/")[2]
        operation = last if endpoint is None else endpoint.operation
        self._sent, self._pieces = [], []
        self._tape.keep(self._number, operation, Exchange(self._wall, asked, answered), self._size)

    @property
    def _endpoint(self) -> Endpoint | None:
        path = target_of(self._going).partition("?")[0].encode("latin-1")
        return self._going.upstream.provider.endpoint(self._going.method, path)

    def forget(self, why: str | None) -> None:
        """It is not kept."""
        if not self._over:
            self._over = True
            self._sent, self._pieces = [], []
            self._tape.forget(self._size, why)

    def _after(self) -> float:
        assert self._head is not None
        return round(max(self._now() - self._head[0], LEAST_GAP), 6)

    def _room(self, side: int, size: int) -> bool:
        """Whether *size* bytes more of a body may be held; of one that is too long nothing is kept."""
        if self._over:
            return False
        self._sizes[side] += size
        if self._sizes[side] > self._tape.max_body:
            self.forget("a body is longer than is recorded (record.max_body)")
        elif not self._tape.take(size + OVERHEAD):
            self.forget("too much is under way at once")
        else:
            self._size += size + OVERHEAD
        return not self._over


@implementer(IProtocol)
class _Copy:
    """Hands an answer's body on, and is the source that it comes from.

    :ivar together: what comes came with the head.
    """

    __slots__ = ("_aborted", "_handed", "_incoming", "_lingers", "_take", "_wheel", "together")

    def __init__(self, incoming: WireResponse, handed: WireResponse, take: Take, wheel: Wheel) -> None:
        self._incoming = incoming
        self._handed = handed
        self._take = take
        self._wheel = wheel
        self._aborted = False
        self._lingers: Timer | None = None
        self.together = True

    def makeConnection(self, transport: Any) -> None:
        """The body begins."""

    def connectionMade(self) -> None:
        """See :meth:`makeConnection`."""

    def dataReceived(self, data: bytes) -> None:
        """A piece of it."""
        self._take.came(data, together=self.together)
        if self._lingers is not None:
            return
        if self._incoming.complete:
            self._handed.completed()
        self._handed.receive(data)

    def connectionLost(self, reason: Failure) -> None:
        """It is over."""
        lingers, aborted = self._lingers, self._aborted
        if lingers is not None:
            # If nothing has ended it but the clock, it was whole as far as anybody knows.
            self._take.ended(whole=reason is DONE or not lingers.active)
            lingers.cancel()
            return
        if self._incoming.complete:
            self._handed.completed()
        self._handed.end(reason)
        if aborted:
            self._take.forget("it was broken off from here before the upstream had ended it")
        else:
            self._take.ended(whole=reason is DONE, together=self.together)

    # As the source.

    def pause(self) -> None:
        """Read no more for now."""
        self._incoming.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self._incoming.resumeProducing()

    def abort(self) -> None:
        """Close at once."""
        if self._aborted:
            return
        self._aborted = True
        if not self._take.said_all:
            self._incoming.stopProducing()
            return
        self._lingers = self._wheel.start(LINGER, self._incoming.stopProducing)
        broken = Failure(ResponseFailed([Failure(ConnectionAborted())]))
        # In a moment, as from a connection.
        self._wheel.exactly(0, lambda: self._handed.end(broken))
        self._incoming.resumeProducing()


@implementer(IBodyProducer, IConsumer)
class _Overheard:
    """A request's body on its way, and the consumer in the middle."""

    __slots__ = ("_consumer", "_producer", "_take", "length")

    def __init__(self, producer: IBodyProducer, take: Take) -> None:
        self._producer = producer
        self._take = take
        self._consumer: Any = None
        self.length = producer.length

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write what comes to *consumer*."""
        self._consumer = consumer
        done: Deferred[None] = self._producer.startProducing(self)
        return done.addCallback(self._ended)

    def _ended(self, result: None) -> None:
        self._take.uploaded()

    def write(self, data: bytes) -> None:
        """A piece of it."""
        self._take.sent(data)
        self._consumer.write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The body is its own producer."""
        self._consumer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See :meth:`registerProducer`."""
        self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """The upstream is slow."""
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on."""
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The upstream wants no more."""
        self._producer.stopProducing()

"""One request under way, and the sending of a body that comes in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from llmproxyd.model import Response

LAST_CHUNK = b"0\r\n\r\n"
"""Ends a body in chunks."""


def chunked(data: bytes) -> bytes:
    """*data* as one chunk, nothing as none: an empty one would end the body.  RFC 9112 §7.1."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Place(Protocol):
    """Where a call is at the moment: in a queue, with an attempt to connect, on a connection."""

    def abandon(self, call: Call) -> None:
        """Forget *call* and do no more for it."""


class Receiver(Protocol):
    """Makes of what becomes of a request what its Deferred fires with.

    Callbacks on the Deferred would do the same for several times the cost.  Neither may fail.
    """

    def answered(self, response: Any) -> Any:
        """The head of an answer is here, a :class:`~llmproxyd.wire.response.WireResponse`."""

    def failed(self, reason: Failure) -> Failure:
        """There will be none; of a request that was cancelled, ``CancelledError``."""


class Call:
    """One request and who waits for its answer.

    :param data: what is written first: the head, and the body if it is at hand.
    :param body: what comes after it, ``None`` when *data* is all.
    :param bodiless: ``HEAD``: the answer has no body.
    :param idempotent: it may be sent twice (RFC 9110 §9.2.2).
    :param close: it asks for the connection to be closed.
    :param receiver: makes of the answer, or the failure, what is fired with; ``None`` for just that.
    :ivar repeated: it was sent before, on a connection that turned out to be stale.
    """

    __slots__ = (
        "answered",
        "bodiless",
        "body",
        "close",
        "data",
        "idempotent",
        "interim",
        "place",
        "receiver",
        "repeated",
    )

    def __init__(
        self,
        data: bytes,
        body: IBodyProducer | None,
        bodiless: bool,
        idempotent: bool,
        close: bool,
        interim: Callable[[Response], None] | None,
        receiver: Receiver | None = None,
    ) -> None:
        self.data = data
        self.body = body
        self.bodiless = bodiless
        self.idempotent = idempotent
        self.close = close
        self.interim = interim
        self.receiver = receiver
        self.repeated = False
        self.place: Place | None = None
        self.answered: Deferred[IResponse] | None = Deferred(self._cancel)

    def _cancel(self, cancelled: Deferred[IResponse]) -> None:
        self.answered = None
        place, self.place = self.place, None
        receiver, self.receiver = self.receiver, None
        if place is not None:
            place.abandon(self)
        if receiver is not None:
            cancelled.errback(receiver.failed(Failure(CancelledError())))
        # Else the Deferred itself fails with CancelledError.

    def answer(self, response: IResponse) -> None:
        """The head of the answer is here."""
        self.place = None
        self.data = b""  # it is not sent again
        answered, self.answered = self.answered, None
        receiver, self.receiver = self.receiver, None
        if answered is not None:
            answered.callback(response if receiver is None else receiver.answered(response))

    def fail(self, reason: Failure) -> None:
        """There will be no answer."""
        self.place = None
        answered, self.answered = self.answered, None
        receiver, self.receiver = self.receiver, None
        if answered is not None:
            answered.errback(reason if receiver is None else receiver.failed(reason))


class Uploader(Protocol):
    """Whose body is sent."""

    def uploaded(self) -> None:
        """All of it is written."""

    def upload_failed(self, reason: Failure) -> None:
        """It broke off, or was not as long as was said."""


@implementer(IConsumer, IPushProducer)
class Upload:
    """Writes one body that comes in pieces, at the pace of the network.

    A body that was announced with a length must have exactly that; one without goes out in
    chunks, and its end is written only when it really ended.

    :param owner: told how it ends, unless :meth:`stop` came first.
    """

    __slots__ = ("_left", "_owner", "_producer", "_transport")

    def __init__(self, transport: Any, producer: IBodyProducer, owner: Uploader) -> None:
        length = producer.length
        self._left: int | None = None if length is UNKNOWN_LENGTH else int(length)
        self._transport = transport
        self._producer: IBodyProducer | None = producer
        self._owner: Uploader | None = owner

    def begin(self) -> None:
        """Ask for the first piece."""
        producer = self._producer
        assert producer is not None
        self._transport.registerProducer(self, True)
        if self._owner is None:  # the connection was gone already
            return
        try:
            done = producer.startProducing(self)
        except Exception:
            self._fail(Failure())
        else:
            done.addCallbacks(self._ended, self._fail)

    def stop(self) -> None:
        """The rest is not wanted."""
        producer = self._let_go()
        if producer is not None:
            producer.stopProducing()

    def _let_go(self) -> IBodyProducer | None:
        """Break off all ties; the producer, if it was still at work."""
        producer, self._producer = self._producer, None
        self._owner = None
        if producer is not None:
            self._transport.unregisterProducer()
        return producer

    def _ended(self, _: object) -> None:
        owner = self._owner
        if owner is None:
            return
        if self._left:
            self._fail(Failure(ValueError(f"the request's body ended {self._left} bytes too early")))
            return
        self._let_go()
        if self._left is None:
            self._transport.write(LAST_CHUNK)
        owner.uploaded()

    def _fail(self, reason: Failure) -> None:
        owner = self._owner
        if owner is not None:
            self._let_go()
            owner.upload_failed(reason)

    # As the body's consumer.

    def write(self, data: bytes) -> None:
        """The next piece."""
        owner, left = self._owner, self._left
        if owner is None or not data:
            return
        if left is None:
            self._transport.write(chunked(data))
        elif len(data) > left:
            self.stop()
            owner.upload_failed(Failure(ValueError("the request's body is longer than its length")))
        else:
            self._left = left - len(data)
            self._transport.write(data)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """The body is its own producer; another has no place here."""

    def unregisterProducer(self) -> None:
        """See :meth:`registerProducer`."""

    # As the transport's producer.

    def pauseProducing(self) -> None:
        """The network does not keep up."""
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """It does again."""
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone; who owns it is told by the connection."""
        self.stop()

"""One connection to an upstream: one request at a time, each with its answer.

What may happen in which order: a request is written whole at once, or its body follows in
pieces while the answer may already come; an answer may be whole before its request is, and then
the connection is of no more use; a kept connection may be closed by the other side at any time,
also while a request is on its way to it.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from llmproxyd.wire.answer import AnswerReader, BadAnswer
from llmproxyd.wire.call import Call, Upload
from llmproxyd.wire.layout import Layout
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.transport import prepare, sent, socket_of, unsent
from llmproxyd.wire.wheel import Timer


class Stale(ConnectionLost):
    """A kept connection was closed after a request was sent on it, before a byte of an answer.

    Nobody knows whether the upstream acted on it, and it is not safe to send it twice.
    """


class Keeper(Protocol):
    """Who owns connections."""

    def free(self, connection: Connection) -> None:
        """It can take another request."""

    def spent(self, connection: Connection) -> None:
        """It has answered, and is to be closed."""

    def gone(self, connection: Connection) -> None:
        """It is closed."""

    def again(self, call: Call) -> None:
        """Send *call* once more, on a new connection."""


class Connection(TwistedProtocol):
    """HTTP/1.1, the client's side.

    :ivar served: it has answered a request: it is a kept one from then on.
    :ivar timer: until when it is kept, while it is idle; its keeper's.
    """

    transport: Any

    def __init__(self, keeper: Keeper) -> None:
        self.served = False
        self.timer: Timer | None = None
        self._keeper = keeper
        self._call: Call | None = None
        self._reader: AnswerReader | None = None
        self._response: WireResponse | None = None
        self._upload: Upload | None = None
        self._paused = False
        self._mark = 0  # what had been sent before this request
        self._layout: Layout | None = None  # of the answer before

    def connectionMade(self) -> None:
        """Ready at once."""
        prepare(self.transport)

    def send(self, call: Call) -> None:
        """Write the request; the answer goes to *call*."""
        self._call = call
        self._reader = AnswerReader(call.bodiless, self._layout)
        call.place = self
        transport = self.transport
        if self.served:
            self._mark = sent(transport)
        transport.write(call.data)
        if call.body is not None:
            self._upload = Upload(transport, call.body, self)
            self._upload.begin()

    def close(self) -> None:
        """An end in good manners: TLS says goodbye, but does not wait for an answer to it."""
        self.transport.loseConnection()
        socket_of(self.transport).loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def pause(self) -> None:
        """Read no more for now."""
        self._paused = True
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        self.transport.resumeProducing()

    def abandon(self, call: Call) -> None:
        """Nobody waits for the answer any more."""
        self._forget()
        self.abort()

    # What comes.

    def dataReceived(self, data: bytes) -> None:
        """A part of an answer; all of it is understood before anybody is told."""
        reader = self._reader
        if reader is None:
            # Nobody has asked: whatever it is, it would be taken for the next answer.
            self.abort()
            return
        piece = reader.feed(data)
        response = self._response
        if response is None:
            if reader.interims:
                self._pass_interims(reader)
                if self._reader is not reader:
                    return
            response = reader.response
            if response is None:
                if reader.problem is not None:
                    self._fail(Failure(reader.problem))
                return
            self._begin(reader, response, piece)
            return
        if reader.complete:
            response.completed()
            self._settle(reader)
            if piece:
                response.receive(piece)
            response.end(DONE)
            return
        if piece:
            response.receive(piece)
        if reader.problem is not None:
            self._fail(Failure(reader.problem))

    def _begin(self, reader: AnswerReader, response: WireResponse, piece: bytes) -> None:
        """The head is here, and perhaps more than that."""
        call = self._call
        assert call is not None
        self._layout = reader.layout
        if reader.complete:
            response.came_whole(piece)
            self._settle(reader)
            call.answer(response)
            return
        if piece:
            response.receive(piece)
        if reader.problem is not None:
            response.end(Failure(reader.problem))
            self._forget()
            self.abort()
            call.answer(response)
            return
        self._response = response
        response.come_from(self)
        call.answer(response)
        response.hold()

    def _pass_interims(self, reader: AnswerReader) -> None:
        interims, reader.interims = reader.interims, None
        call = self._call
        assert call is not None
        if call.interim is not None:
            for interim in interims or ():
                if call.answered is not None:
                    call.interim(interim)

    def _settle(self, reader: AnswerReader) -> None:
        """The answer is whole: may this connection serve again?"""
        call = self._call
        assert call is not None
        whole = self._upload is None and not unsent(self.transport)
        self._forget()
        if self._paused:
            # It came while nobody wanted it; the next one who asks will.
            self.resume()
        if not whole or reader.surplus:
            self.abort()
        elif reader.persistent and not call.close:
            self._keeper.free(self)
        else:
            self._keeper.spent(self)

    def _forget(self) -> None:
        """Break off all ties with the request."""
        self._call = self._reader = self._response = None
        if self._upload is not None:
            upload, self._upload = self._upload, None
            upload.stop()

    def _fail(self, reason: Failure) -> None:
        """The request comes to no good end, and neither may the connection."""
        call, response = self._call, self._response
        self._forget()
        self.abort()
        if response is not None:
            response.end(reason)
        elif call is not None:
            call.fail(reason)

    # The body that is sent.

    def uploaded(self) -> None:
        """The request is whole."""
        self._upload = None

    def upload_failed(self, reason: Failure) -> None:
        """The upstream must not take what it has for a whole request."""
        self._upload = None
        self._fail(reason)

    # The end.

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed; by whom and how decides what that means."""
        call, reader, response = self._call, self._reader, self._response
        self._forget()
        self._keeper.gone(self)
        if call is None or reader is None:
            return
        if response is not None:
            if reader.ends_with_connection and reason.check(ConnectionDone):
                response.completed()
                response.end(DONE)
            else:
                response.end(Failure(ResponseFailed([reason])))
        elif reader.begun:
            call.fail(Failure(BadAnswer("the connection ended within its head")))
        else:
            self._unanswered(call, reader, reason)

    def _unanswered(self, call: Call, reader: AnswerReader, reason: Failure) -> None:
        """A kept connection was closed: is it safe to send the request again?  RFC 9112 §9.3.1."""
        if not self.served or reader.heads or not reason.check(ConnectionDone, ConnectionLost):
            call.fail(reason)
        elif (
            call.body is None
            and not call.repeated
            and (call.idempotent or sent(self.transport) == self._mark)
        ):
            call.repeated = True
            self._keeper.again(call)
        else:
            call.fail(Failure(Stale()))

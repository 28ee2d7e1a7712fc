"""An answer as its receiver sees it: a head, and a body that comes when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IClientRequest, IResponse
from zope.interface import implementer

from llmproxyd.wire.headers import WireHeaders

HTTP_1_1: Final = (b"HTTP", 1, 1)
HTTP_1_0: Final = (b"HTTP", 1, 0)

DONE: Final = Failure(ResponseDone("the answer is whole"))
"""The one end that is good."""


class Source(Protocol):
    """The connection that a body comes from."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""

    def abort(self) -> None:
        """Close at once."""


@implementer(IResponse, IPushProducer)
class WireResponse:
    """The answer to one request; also the transport that its body's protocol is given.

    :ivar raw: all fields as received: order, case, duplicates and those of the connection kept.
    :ivar length: bytes of the body, ``UNKNOWN_LENGTH`` when nobody said; 0 where none can be.
    :ivar complete: the whole message has come.  Already true while its last piece is handed on.
    """

    __slots__ = (
        "_end",
        "_given",
        "_headers",
        "_held",
        "_pending",
        "_protocol",
        "_source",
        "code",
        "complete",
        "length",
        "phrase",
        "previousResponse",
        "raw",
        "request",
        "version",
    )

    def __init__(
        self,
        version: tuple[bytes, int, int],
        code: int,
        phrase: bytes,
        raw: Sequence[tuple[bytes, bytes]],
        length: Any,
    ) -> None:
        self.version = version
        self.code = code
        self.phrase = phrase
        self.raw = raw
        self.length = length
        self.request: IClientRequest | None = None
        self.previousResponse: IResponse | None = None
        self.complete = False
        self._headers: WireHeaders | None = None
        self._source: Source | None = None
        self._protocol: IProtocol | None = None
        self._given = False
        self._held = False
        self._pending = b""
        self._end: Failure | None = None

    def __repr__(self) -> str:
        return f"<WireResponse {self.code}>"

    @property
    def headers(self) -> Headers:
        """The fields, to look up by name."""
        if self._headers is None:
            self._headers = WireHeaders(self.raw)
        return self._headers

    @property
    def whole(self) -> bytes | None:
        """The body, as long as nobody was given it, if all of it has come."""
        return None if self._given or not self.complete else self._pending

    def forget_fields(self) -> None:
        """Nobody will ask for them any more; the body may take hours."""
        self.raw = ()
        self._headers = None

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember the answer that led here (a redirect's)."""
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """Give the body to *protocol*, once: what has come at once, the rest when it comes.

        Its ``connectionLost`` is called with :data:`DONE` when the body was whole, with
        another failure when it was not.
        """
        if self._given:
            raise RuntimeError("the body was delivered already")
        self._given = True
        if self._held:
            self._held = False
            self.resumeProducing()
        if self._end is None:
            self._protocol = protocol
        protocol.makeConnection(cast(ITransport, self))
        pending, self._pending = self._pending, b""
        if pending:
            protocol.dataReceived(pending)
        if self._end is not None:
            protocol.connectionLost(self._end)

    # From the connection.

    def come_from(self, source: Source) -> None:
        """More of the body will come, from *source*."""
        self._source = source

    def came_whole(self, body: bytes) -> None:
        """The whole message has come at once, *body* with its head."""
        self._pending = body
        self.complete = True
        self._end = DONE

    def completed(self) -> None:
        """The whole message has come; its connection is somebody else's now."""
        self.complete = True
        self._source = None

    def hold(self) -> None:
        """Let nothing more come until the body is asked for, if it was not yet."""
        if not self._given and self._source is not None:
            self._held = True
            self._source.pause()

    def receive(self, piece: bytes) -> None:
        """The next piece of the body."""
        if self._protocol is not None:
            self._protocol.dataReceived(piece)
        else:
            self._pending += piece

    def end(self, reason: Failure) -> None:
        """Nothing more comes."""
        self._source = None
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            self._end = reason
        else:
            protocol.connectionLost(reason)

    # As a transport.

    def pauseProducing(self) -> None:
        """Read no more from the upstream for now."""
        if self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """Read again."""
        if self._source is not None:
            self._source.resume()

    def stopProducing(self) -> None:
        """Close the upstream's connection at once, unless the answer is whole."""
        if self._source is not None:
            self._source.abort()

    abortConnection = stopProducing
    loseConnection = stopProducing

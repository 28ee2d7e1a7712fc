"""Bodies of requests: as they arrive, as they were spooled, as bytes at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Protocol
from weakref import ref

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.task import Cooperator, SchedulerError
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

AHEAD = 64 * 1024
"""Bytes that are taken in before somebody reads."""

IN_MEMORY = 256 * 1024
"""Bytes of a spooled body that need no file."""

PIECE = 64 * 1024


class BodyTooLarge(Exception):
    """A body without a length turned out to be too long.

    :param limit: bytes allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class Origin(Protocol):
    """Where a body comes from: the connection."""

    def body_wanted(self) -> None:
        """Somebody begins to read: the client may send (``100 Continue``)."""

    def body_pause(self) -> None:
        """Take no more from the client for now."""

    def body_resume(self) -> None:
        """Go on."""


@implementer(IBodyProducer)
class BytesBody:
    """A whole body in memory.

    :ivar data: all of it; an agent may send it along with the head.
    """

    __slots__ = ("data", "length")

    def __init__(self, data: bytes, *, chunked: bool = False) -> None:
        self.data = data
        self.length: int | str = UNKNOWN_LENGTH if chunked else len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write it."""
        consumer.write(self.data)
        return succeed(None)

    def stopProducing(self) -> None:
        """Nothing is under way."""

    def pauseProducing(self) -> None:
        """Nothing is under way."""

    def resumeProducing(self) -> None:
        """Nothing is under way."""


class KeptBytes:
    """A whole body in memory, to be sent as often as it takes: a :class:`~llmproxyd.http.body.Kept`.

    :param chunked: it came without a length, and is sent on so.
    """

    __slots__ = ("_chunked", "data")

    def __init__(self, data: bytes, *, chunked: bool = False) -> None:
        self.data = data
        self._chunked = chunked

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.data)

    def read(self, limit: int) -> bytes:
        """Its first *limit* bytes."""
        return self.data[:limit]

    def producer(self) -> IBodyProducer | None:
        """A new one."""
        return BytesBody(self.data, chunked=self._chunked) if self.data else None


class KeptFile:
    """A whole body in a file, to be sent as often as it takes, one after the other."""

    __slots__ = ("_clock", "_file", "_sending", "length")

    def __init__(self, file: IO[bytes], length: int, clock: IReactorTime) -> None:
        self._file = file
        self._clock = clock
        self._sending: Callable[[], IBodyProducer | None] = lambda: None
        self.length = length

    def read(self, limit: int) -> bytes:
        """Its first *limit* bytes."""
        self._file.seek(0)
        return self._file.read(limit)

    def producer(self) -> IBodyProducer | None:
        """A new one; one that was not done does nothing more, as they share their place in the file."""
        before = self._sending()
        if before is not None:
            # It may not have begun, or be over.
            with suppress(AttributeError, SchedulerError):
                before.stopProducing()
        producer = _from_file(_Unclosed(self._file), self._clock)
        self._sending = ref(producer)
        return producer


class _Unclosed:
    """A file that its reader does not close when it has read it."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def close(self) -> None:
        """It may be read again."""


def _from_file(file: Any, clock: IReactorTime) -> IBodyProducer:
    cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))
    return FileBodyProducer(file, cooperator=cooperator, readSize=PIECE)


class IncomingBody:
    """The body of a request on its way: a :class:`~llmproxyd.http.body.BodySource`.

    It is read once, by whoever asked for its producer; before that it can be spooled, and then
    be looked at.  Until somebody reads at most :data:`AHEAD` bytes are taken from the client.

    :ivar length: bytes, ``None`` when it comes in chunks.
    :ivar limit: bytes after which a body without a length is refused.
    :ivar received: bytes so far.
    """

    __slots__ = (
        "_clock",
        "_consumer",
        "_ended",
        "_error",
        "_file",
        "_finished",
        "_origin",
        "_paused",
        "_pieces",
        "_spooled",
        "_thrown",
        "length",
        "limit",
        "received",
    )

    def __init__(self, length: int | None, limit: int, origin: Origin, clock: IReactorTime) -> None:
        self.length: int | None = length
        self.limit = limit
        self.received = 0
        self._clock = clock
        self._origin: Origin | None = origin
        self._pieces: list[bytes] = []
        self._ended = length == 0
        self._error: Failure | None = None
        self._consumer: IConsumer | None = None
        self._finished: Deferred[None] | None = None
        self._file: IO[bytes] | None = None
        self._spooled: Deferred[None] | None = None
        self._paused = False
        self._thrown = False

    # The connection's side.

    @property
    def ended(self) -> bool:
        """Whether all of it has arrived."""
        return self._ended

    def came_whole(self, data: bytes) -> None:
        """All of it came along with the head."""
        self.received = len(data)
        self._pieces.append(data)
        self._ended = True
        self._origin = None

    def receive(self, data: bytes) -> None:
        """A piece has arrived."""
        self.received += len(data)
        if self._thrown or self._error is not None:
            return
        if self.length is None and self.received > self.limit:
            self.fail(Failure(BodyTooLarge(self.limit)))
        elif self._consumer is not None:
            self._consumer.write(data)
        elif self._file is not None:
            try:
                self._file.write(data)
            except OSError:
                self.fail(Failure())
        else:
            self._pieces.append(data)
            if self.received > AHEAD and not self._ended and self._origin is not None:
                self._origin.body_pause()
                self._paused = True

    def end(self) -> None:
        """All of it has arrived."""
        self._ended = True
        self._origin = None
        finished, self._finished = self._finished, None
        spooled, self._spooled = self._spooled, None
        self._consumer = None
        if finished is not None:
            finished.callback(None)
        if spooled is not None:
            spooled.callback(None)

    def fail(self, reason: Failure) -> None:
        """The rest will not come."""
        if self._error is not None or self._ended:
            return
        self._error = reason
        self._origin = None
        self._pieces = []
        finished, self._finished = self._finished, None
        spooled, self._spooled = self._spooled, None
        self._consumer = None
        if finished is not None:
            finished.errback(reason)
        if spooled is not None:
            spooled.errback(reason)

    def throw_away(self) -> None:
        """Nobody wants what is left: take it and forget it."""
        self._thrown = True
        self._consumer = None
        self._finished = None
        self._pieces = []
        self.resume()
        self._origin = None
        if self._file is not None and self._spooled is None:
            self._file.close()
            self._file = None

    # The reader's side.

    def spool(self) -> Deferred[None]:
        """Fires when the whole body is at hand; fails as the connection did."""
        if self._error is not None:
            return fail(self._error)
        if self._file is None:
            self._file = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115
            try:
                self._file.write(b"".join(self._pieces))
            except OSError:
                self._error = Failure()
                return fail(self._error)
            self._pieces = []
        if self._ended:
            return succeed(None)
        self._spooled = Deferred(self._not_spooled)
        self._want()
        return self._spooled

    @property
    def file(self) -> IO[bytes]:
        """The spooled body, at its beginning."""
        assert self._file is not None, "it was not spooled"
        self._file.seek(0)
        return self._file

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        if self._ended and self._file is None and self._error is None and self.received <= whole:
            data = b"".join(self._pieces)
            self._pieces = [data]
            return succeed(data)
        return self.spool().addCallback(lambda _: self._ends(whole, end))

    def at_hand(self) -> KeptBytes | None:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        if not self._ended or self._file is not None or self._error is not None:
            return None
        data = b"".join(self._pieces)
        self._pieces = [data]
        return KeptBytes(data, chunked=self.length is None)

    def keep(self) -> Deferred[Any]:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        kept = self.at_hand()
        return self.spool().addCallback(lambda _: self._kept()) if kept is None else succeed(kept)

    def producer(self) -> IBodyProducer | None:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        if self._error is not None:
            return _Flow(self)  # which fails with it
        if self._file is not None:
            length = self.received
            if length <= IN_MEMORY:
                data = self.file.read()
                self._file.close()
                return BytesBody(data, chunked=self.length is None)
            return _from_file(self.file, self._clock)
        if self._ended:
            if not self.received:
                return None
            data = b"".join(self._pieces)
            self._pieces = []
            return BytesBody(data, chunked=self.length is None)
        return _Flow(self)

    def flow(self, consumer: IConsumer) -> Deferred[None]:
        """Write what comes to *consumer*, as it comes."""
        if self._error is not None:
            return fail(self._error)
        pieces, self._pieces = self._pieces, []
        finished: Deferred[None] = Deferred()
        self._finished = finished
        self._consumer = consumer
        if pieces:
            consumer.write(b"".join(pieces))
        if self._ended:
            self.end()
        else:
            self._want()
        return finished

    def pause(self) -> None:
        """The upstream is slow, so the client must be."""
        if self._origin is not None and not self._paused:
            self._paused = True
            self._origin.body_pause()

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._paused = False
            if self._origin is not None:
                self._origin.body_resume()

    def _want(self) -> None:
        if self._origin is not None:
            self._origin.body_wanted()
        self.resume()

    def _not_spooled(self, _: object) -> None:
        self._spooled = None
        self.throw_away()

    def _kept(self) -> KeptBytes | KeptFile:
        if self.received <= IN_MEMORY:
            return KeptBytes(self.file.read(), chunked=self.length is None)
        return KeptFile(self.file, self.received, self._clock)

    def _ends(self, whole: int, end: int) -> bytes:
        file = self.file
        if self.received <= whole:
            return file.read()
        data = file.read(end)
        file.seek(-end, 2)
        return data + file.read(end)


@implementer(IBodyProducer)
class _Flow:
    """A body on its way, as an agent wants it."""

    __slots__ = ("_body", "length")

    def __init__(self, body: IncomingBody) -> None:
        self._body = body
        self.length: int | str = UNKNOWN_LENGTH if body.length is None else body.length

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write what comes to *consumer*."""
        return self._body.flow(consumer)

    def pauseProducing(self) -> None:
        """The upstream is slow."""
        self._body.pause()

    def resumeProducing(self) -> None:
        """Go on."""
        self._body.resume()

    def stopProducing(self) -> None:
        """The upstream wants no more."""
        self._body.throw_away()

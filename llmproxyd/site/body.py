"""The body that twisted.web has read to its end before it asks a resource to render."""

from __future__ import annotations

from typing import BinaryIO

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import IBodyProducer

PIECE = 64 * 1024


class BufferedBody:
    """A :class:`~llmproxyd.http.body.BodySource` over ``request.content``."""

    def __init__(self, content: BinaryIO, clock: IReactorTime) -> None:
        self.length: int | None = content.seek(0, 2)
        content.seek(0)
        self._content = content
        self._clock = clock

    def excerpt(self, whole: int, end: int) -> Deferred[bytes]:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        content = self._content
        if (self.length or 0) <= whole:
            data = content.read()
        else:
            data = content.read(end)
            content.seek(-end, 2)
            data += content.read(end)
        content.seek(0)
        return succeed(data)

    def producer(self) -> IBodyProducer | None:
        """See :class:`~llmproxyd.http.body.BodySource`."""
        if not self.length:
            return None
        cooperator = Cooperator(scheduler=lambda step: self._clock.callLater(0, step))
        return FileBodyProducer(self._content, cooperator=cooperator, readSize=PIECE)

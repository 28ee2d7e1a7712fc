"""A site of twisted.web whose connections are ours."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.web.resource import IResource
from twisted.web.server import Site

from llmproxyd.model import Request, Response, WallClock
from llmproxyd.wire.channel import Channel
from llmproxyd.wire.head import BadRequest, Limits
from llmproxyd.wire.outgoing import Answer
from llmproxyd.wire.wheel import TICK, Timer, Wheel


class WireSite(Site):
    """A site of twisted.web whose connections are ours.

    :param wall: for the ``Date`` of answers.
    :ivar channels: the open connections.
    :ivar closing: no connection outlives the answer under way.
    """

    noisy = False

    def __init__(
        self, resource: IResource, *, clock: Any, wall: WallClock, wheel: Wheel, limits: Limits
    ) -> None:
        super().__init__(resource, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.wall = wall
        self.wheel = wheel
        self.limits = limits
        self.channels: set[Channel] = set()
        self.closing = False
        self._waiting: Deferred[None] | None = None
        self._look_again: Timer | None = None

    def startFactory(self) -> None:
        """A port was opened.  There is no access log here, so none is opened."""

    def stopFactory(self) -> None:
        """The last port was closed."""

    def log(self, request: object) -> None:
        """Nothing: what is to be told of requests is told by whoever answers them."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection."""
        return Channel(self)

    def refuse(self, error: BadRequest, request: Request, answer: Answer) -> None:
        """Answer a request that is not valid; *request* is what could be read of it."""
        body = f"{error.message}\n".encode()
        fields = [
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Date", formatdate(self.wall(), usegmt=True).encode()),
        ]
        answer.start(Response(error.status, HTTPStatus(error.status).phrase.encode(), fields, len(body)))
        answer.write(body)
        answer.finish()

    def close_idle(self) -> None:
        """Keep no connection beyond the answer under way, and end those that have none."""
        self.closing = True
        for channel in list(self.channels):
            channel.close_idle()

    def quiet(self) -> Deferred[None]:
        """Keep no connection beyond the answer under way, and end those that bring no further request.

        Nobody must connect any more, but for what the operating system has accepted already.

        :returns: fires when no connection has anything to be waited for, or after :meth:`hurry`.
        """
        self.closing = True
        waiting = self._waiting = Deferred()
        self._look()
        return waiting

    def hurry(self) -> None:
        """Wait for none of them any more."""
        self.close_idle()
        self._be_quiet()

    def left(self) -> None:
        """A connection is over, while the site closes."""
        if not self.channels:
            self._be_quiet()

    def _look(self) -> None:
        self._look_again = None
        if sum([channel.leave() for channel in list(self.channels)]):
            self._look_again = self.wheel.start(TICK, self._look)
        else:
            self._be_quiet()

    def _be_quiet(self) -> None:
        again, self._look_again = self._look_again, None
        if again is not None:
            again.cancel()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

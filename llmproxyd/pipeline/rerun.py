"""One recorded answer, given again at its own pace and that of whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxyd.cassettes.format import Answered, bodiless
from llmproxyd.http.headers import first
from llmproxyd.wire.response import DONE, WireResponse
from llmproxyd.wire.wheel import Wheel


class Rerun:
    """One answer, given again: the source of its body.

    :param method: of the recorded request.
    :param pace: seconds for each recorded one.
    """

    def __init__(self, method: str, answered: Answered, wheel: Wheel, pace: float) -> None:
        self._pieces = answered.pieces
        self._whole = answered.whole
        self._ended = answered.ended
        self._wheel = wheel
        self._pace = pace
        self._next = 0
        self._began = 0.0
        self._paused = False
        self._over = False
        self._timer: IDelayedCall | None = None
        major, minor = answered.version
        length: Any = _length(answered, method)
        self._response = WireResponse(
            (b"HTTP", major, minor), answered.status, answered.reason, answered.fields, length
        )

    def begin(self, take: Callable[[WireResponse], object]) -> None:
        """Give *take* the head, then the body as it is asked for."""
        response, pieces = self._response, self._pieces
        while self._next < len(pieces) and pieces[self._next].after == 0:
            self._next += 1
        together = b"".join(piece.data for piece in pieces[: self._next])
        if self._whole and self._ended == 0 and self._next == len(pieces):
            self._over = True
            response.came_whole(together)
            take(response)
            return
        if together:
            response.receive(together)
        response.come_from(self)
        self._began = self._wheel.seconds()
        take(response)
        response.hold()
        self._wait()

    def _wait(self) -> None:
        """Wait for what is next."""
        if self._paused or self._over or self._timer is not None:
            return
        left = self._next < len(self._pieces)
        due = self._began + (self._pieces[self._next].after if left else self._ended) * self._pace
        self._timer = self._wheel.exactly(max(due - self._wheel.seconds(), 0.0), self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        response, pieces = self._response, self._pieces
        if self._next == len(pieces):
            self._end()
            return
        piece = pieces[self._next]
        self._next += 1
        if self._whole and self._next == len(pieces) and self._ended <= piece.after:
            response.completed()
            response.receive(piece.data)
            self._end()
            return
        response.receive(piece.data)
        self._wait()

    def _end(self) -> None:
        self._over = True
        if self._whole:
            self._response.completed()
            self._response.end(DONE)
        else:
            self._response.end(Failure(ResponseFailed([Failure(ConnectionLost())])))

    # As the source.

    def pause(self) -> None:
        """Nothing more for now."""
        self._paused = True
        self._stop()

    def resume(self) -> None:
        """Go on; what was due meanwhile comes at once."""
        self._paused = False
        self._wait()

    def abort(self) -> None:
        """Nothing more."""
        if self._over:
            return
        self._over = True
        self._stop()
        # In a moment, as from a connection.
        broken = Failure(ResponseFailed([Failure(ConnectionAborted())]))
        self._wheel.exactly(0, lambda: self._response.end(broken))

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _length(answered: Answered, method: str) -> object:
    """Bytes of the body as the head tells them."""
    if bodiless(method, answered.status):
        return 0
    told = first(answered.fields, b"content-length")
    coded = first(answered.fields, b"transfer-encoding")
    if told is None or coded is not None or not told.strip().isdigit():
        return UNKNOWN_LENGTH
    return int(told)

"""A sender that remembers: what goes to an upstream and what comes back are copied as they pass.

Nothing is held up, and no byte is another one.  An exchange is kept when it is over, whole or broken
off by the upstream; one that was broken off from here (the client left, a time was up, a rehearsed
failure cut it) says nothing of the upstream and is not.  But clients leave a stream at its last word:
its end is then awaited for a moment.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer

from llmproxyd.model import Response, WallClock
from llmproxyd.pipeline.sends import Sends
from llmproxyd.pipeline.take import Take
from llmproxyd.pipeline.tape import Tape
from llmproxyd.pipeline.upstream import Outgoing
from llmproxyd.wire.response import WireResponse
from llmproxyd.wire.wheel import Wheel


class Recorder:
    """Sends through another sender, and keeps what passed."""

    def __init__(self, inner: Sends, tape: Tape, wheel: Wheel, wall: WallClock) -> None:
        self._inner = inner
        self._tape = tape
        self._wheel = wheel
        self._wall = wall

    def send(
        self,
        going: Outgoing,
        body: IBodyProducer | None,
        interim: Callable[[Response], None] | None = None,
    ) -> Deferred[WireResponse]:
        """See :class:`~llmproxyd.pipeline.sends.Sends`."""
        number = self._tape.begin()
        if number is None:
            return self._inner.send(going, body, interim)
        take = Take(self._tape, number, going, self._wheel, self._wall())
        result: Deferred[WireResponse] = Deferred(lambda _: sending.cancel())

        def answered(incoming: WireResponse) -> None:
            handed = take.head(incoming)
            result.callback(handed)
            handed.hold()

        def failed(failure: Failure) -> None:
            take.forget(None)
            result.errback(failure)

        sending = self._inner.send(going, take.overhear(body), interim)
        sending.addCallbacks(answered, failed)
        return result

"""Rehearsed faults as the client sees them: in front of everything, so that nobody else does.

Those that need no answer of the upstream's are done at once (:func:`play`).  For the others a
:class:`Stage` stands between the answer and the client, wherever the answer comes from.  Taps read what
was answered in truth; what is recorded and counted as sent is what the client gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxyd.errors import ProxyError
from llmproxyd.faults.choose import Chosen
from llmproxyd.faults.rules import Breakage
from llmproxyd.http.framing import Framing
from llmproxyd.model import End, Response
from llmproxyd.pipeline import answer
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.playback import Playback, Rehearsal, altered
from llmproxyd.pipeline.roles import NOBODY, Responder
from llmproxyd.pipeline.upstream import readable, readable_fields

ENDS = {Breakage.TRUNCATE: End.TRUNCATED, Breakage.STREAM_ERROR: End.IN_BAND_ERROR}
"""How an answer ended that was ended well, on the face of it, by a fault."""


def play(exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal, go: Callable[[], None]) -> None:
    """Do to *exchange* what was *chosen* for its client to see.

    :param go: lets the request go on to its answer.
    """
    exchange.fault = chosen
    kind, now = chosen.rule.kind, rehearsal.wheel.seconds()
    if not isinstance(kind, Breakage):
        answer.inject(exchange, chosen, rehearsal.wall(), now)
    elif kind is Breakage.STATUS:
        answer.inject_status(exchange, chosen, rehearsal.wall(), now)
    elif kind is Breakage.REFUSE:
        exchange.hang_up(now)
    elif kind is Breakage.NEVER:
        _keep_silent(exchange, rehearsal)
    elif kind is Breakage.DELAY:
        _delay(exchange, chosen.rule.manner.silence, rehearsal, go)
    else:
        _set_stage(exchange, chosen, rehearsal)
        go()


def _keep_silent(exchange: Exchange, rehearsal: Rehearsal) -> None:
    """Take the request, and answer nothing until the client leaves."""

    def give_up(_: ProxyError) -> None:
        exchange.hang_up(rehearsal.wheel.seconds())

    exchange.give_up = give_up
    if exchange.body.at_hand() is None:
        # It must come whole and well, or whoever sends it is told.
        taking = exchange.body.keep()
        exchange.work = taking.cancel
        taking.addCallbacks(_nothing, rehearsal.failed, (), {}, (exchange,), {})


def _nothing(_: object) -> None:
    return None


def _delay(exchange: Exchange, seconds: float | None, rehearsal: Rehearsal, go: Callable[[], None]) -> None:
    if seconds is None:
        _keep_silent(exchange, rehearsal)
        return

    def go_on() -> None:
        exchange.work = None
        try:
            go()
        except Exception:
            rehearsal.failed(Failure(), exchange)

    exchange.work = rehearsal.wheel.exactly(seconds, go_on).cancel


def _set_stage(exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal) -> None:
    """Have the answer broken when it comes, and ask for one that can be read."""
    stage = Stage(exchange, chosen, rehearsal)
    exchange.stage = exchange.responder = stage
    if exchange.policy.cache is not None:
        # Nobody else must wait for an answer that is held up here.
        exchange.policy = replace(exchange.policy, cache=replace(exchange.policy.cache, coalesce=False))
    if chosen.rule.kind is Breakage.WRONG_LENGTH:
        return
    request = exchange.request
    exchange.request = replace(request, headers=readable_fields(request.headers), memo=request.memo)
    if exchange.outgoing is not None:
        exchange.outgoing = readable(exchange.outgoing)


@implementer(IPushProducer)
class Stage(Playback):
    """Breaks one answer on its way to the client.

    :ivar chunked: never: what the proxy would say itself within a stream has no place in a broken one.
    """

    __slots__ = ("_last_word", "_producer", "_real")

    chunked = False

    def __init__(self, exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal) -> None:
        super().__init__(exchange, chosen, rehearsal)
        assert exchange.responder is not None
        self._real: Responder = exchange.responder
        self._producer: IPushProducer | None = None
        self._last_word: bytes | None = None

    # As the exchange's responder.

    def start(self, response: Response) -> None:
        """The head of the answer, which becomes what the client gets."""
        exchange, real = self._exchange, self._real
        made = altered(exchange, self.chosen, response, self._rehearsal)
        if made is None:
            self.stand_aside()
        else:
            response, self._player, self._reader, form = made
            if form is not None and form.framing is Framing.SSE:
                self._last_word = form.terminator
        if exchange.record is not None:
            exchange.record.head(response)
        real.start(response)
        if made is not None:
            real.feed_from(self)

    def inform(self, response: Response) -> None:
        """Interim answers are none of ours."""
        self._real.inform(response)

    def write(self, data: bytes, *, last: bool = False) -> None:
        """A piece of the answer in truth."""
        self._take(data)

    def flush(self) -> None:
        """See :class:`~llmproxyd.pipeline.roles.Responder`."""
        self._real.flush()

    def finish(self) -> None:
        """Nobody calls this: see :meth:`ended`."""

    def cut(self) -> None:
        """The answer breaks off in truth."""
        self._real.cut()

    def reset(self) -> None:
        """See :meth:`cut`."""
        self._real.reset()

    def hang_up(self) -> None:
        """See :meth:`cut`."""
        self._real.hang_up()

    def feed_from(self, producer: IPushProducer) -> None:
        """Let what is held here pause and resume *producer*."""
        self._producer = producer
        if self._blocked:
            producer.pauseProducing()

    def fed(self) -> None:
        """There is no more producer."""
        self._producer = None

    # For the exchange.

    def ended(self) -> None:
        """The answer is whole; the rest of it may take its time here."""
        self._exchange.give_up = self._give_up
        self._end()

    def stand_aside(self) -> None:
        """Nothing can be broken here."""
        exchange = self._exchange
        exchange.stage, exchange.responder = None, self._real
        self._missed()

    def closed(self) -> None:
        """The exchange is over, in whatever way."""
        if not self.reached:
            self._missed()
        self._stop()
        self._producer = None
        self._real = NOBODY

    def _give_up(self, error: ProxyError) -> None:
        self._exchange.cut(End.TRUNCATED, error.code, error.message, self._rehearsal.wheel.seconds())

    # What the player wants.

    def _send(self, data: bytes) -> None:
        exchange = self._exchange
        exchange.sent += len(data)
        if exchange.record is not None:
            exchange.record.piece(data)
        self._real.write(data)
        if self._last_word is not None:
            exchange.said_all = data.endswith(self._last_word)

    def _flush(self) -> None:
        self._real.flush()

    def _break(self, *, reset: bool) -> None:
        if reset:
            self._real.reset()
        else:
            self._real.cut()
        self._over(End.TRUNCATED)

    def _finish(self) -> None:
        self._real.finish()
        kind = self.chosen.rule.kind
        self._over(ENDS.get(Breakage(kind), End.COMPLETE) if self.reached else End.COMPLETE)

    def _over(self, end: End) -> None:
        self._exchange.over(end, self._rehearsal.wheel.seconds(), whole=self._ended)

    def _pace(self, *, blocked: bool) -> None:
        if self._producer is None:
            return
        if blocked:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()

    # The client's side calls these, at its pace.

    def pauseProducing(self) -> None:
        """The client does not keep up."""
        self._taken(slowly=True)

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._taken(slowly=False)

    def stopProducing(self) -> None:
        """The client is gone; :meth:`Exchange.client_gone` does what follows."""

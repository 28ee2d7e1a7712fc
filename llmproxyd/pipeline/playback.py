"""A breakage as it is played on the body of one answer, whichever side sees it.

What becomes of the bytes is decided by a pure player (:mod:`~llmproxyd.faults.stream`).  Here are its
timers, the pace of both sides, and a coded body in the clear: its events could not be told otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from llmproxyd.faults.choose import Chosen, Engine
from llmproxyd.faults.render import render_event
from llmproxyd.faults.rules import Breakage, Subject
from llmproxyd.faults.stream import (
    ANYWHERE,
    KEEP_LENGTH,
    Break,
    Finish,
    Player,
    Send,
    Step,
    Wait,
    wrong_length,
)
from llmproxyd.http.headers import content_of
from llmproxyd.inspection.inflate import Inflater, inflater
from llmproxyd.model import Response, WallClock
from llmproxyd.pipeline.commit import form_of
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.providers.base import StreamForm
from llmproxyd.wire.wheel import Wheel

SLICE = 4 * 1024
"""Bytes of a coded body that are inflated at once: a thousand times as many may come of them."""

_NO_BOUND = 1 << 40
_EXCESS = 10
"""Bytes by which a length is wrong where the operator does not say."""

_IN_ONE_PIECE = ANYWHERE | {Breakage.NO_USAGE}
"""Kinds that can happen to an answer that is no stream."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_OF_CODING = _FRAMING | {
    b"content-encoding",
    b"content-digest",
    b"content-md5",
    b"digest",
    b"etag",
    b"repr-digest",
}
"""What holds for a body in its coding, and no longer (RFC 9110 §8.4, §8.8.3; RFC 9530)."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What rehearsed faults are done with.

    :param failed: takes what nothing here accounts for.
    """

    engine: Engine
    wheel: Wheel
    wall: WallClock
    failed: Callable[[Failure, Exchange], None]


def subject_of(exchange: Exchange, upstream: str) -> Subject:
    """What a rule may look at of *exchange*, where it goes to *upstream*."""
    route, plan = exchange.route, exchange.plan
    assert route is not None
    return Subject(
        route.kind,
        upstream,
        route.target.partition(b"?")[0].decode("latin-1"),
        exchange.model,
        exchange.streaming,
        None if plan is None else plan.test,
    )


class Plays(Protocol):
    """A :class:`~llmproxyd.faults.stream.Player`, or what does as one."""

    @property
    def reached(self) -> bool: ...

    def feed(self, data: bytes) -> list[Step]: ...

    def end(self) -> list[Step]: ...


class Altered(NamedTuple):
    """An answer on which a breakage is played.

    :param head: as it is sent.
    :param reader: undoes the coding of the body.
    :param form: how it streams.
    """

    head: Response
    player: Plays
    reader: Inflater | None
    form: StreamForm | None


def altered(exchange: Exchange, chosen: Chosen, head: Response, rehearsal: Rehearsal) -> Altered | None:
    """How the answer that begins with *head* is broken; ``None`` where it cannot be: it has no body, no
    events, or one that cannot be read.
    """
    if exchange.request.method == b"HEAD" or head.status in (204, 304):
        return None
    kind, manner = Breakage(chosen.rule.kind), chosen.rule.manner
    if kind is Breakage.WRONG_LENGTH:
        return _misjudged(head, manner.excess or _EXCESS)
    media, coding = content_of(head.headers)
    coded = coding.strip().lower() not in (b"", b"identity")
    reader = inflater(coding, _NO_BOUND) if coded else None
    if coded and (reader is None or head.status == 206):
        return None
    form, route = form_of(exchange, media), exchange.route
    if form is None and kind not in _IN_ONE_PIECE:
        return None
    player = Player(
        kind,
        manner,
        form=form,
        length=None if coded else head.length,
        usage=None if route is None or route.endpoint is None else route.endpoint.usage,
        error_event=lambda: _error_event(exchange, chosen, form, rehearsal.wall()),
        draw=chosen.draw or rehearsal.engine.draw,
    )
    if coded or kind not in KEEP_LENGTH:
        dropped = _OF_CODING if coded else _FRAMING
        fields = [pair for pair in head.headers if pair[0].lower() not in dropped]
        head = Response(head.status, head.reason, fields, None, head.version)
    return Altered(head, player, reader, form)


def _error_event(exchange: Exchange, chosen: Chosen, form: StreamForm | None, wall: float) -> bytes | None:
    if form is None:
        return None
    dialect = exchange.dialect
    kind = chosen.rule.manner.error or dialect.unknown
    return render_event(dialect, form, exchange.error_context(wall, kind, chosen.rule.retry_after))


def _misjudged(head: Response, excess: int) -> Altered | None:
    length = head.length
    told = length if length is None else wrong_length(length, excess)
    if told is None or told == length:
        return None
    fields = [
        (name, b"%d" % told if name.lower() == b"content-length" else value) for name, value in head.headers
    ]
    head = Response(head.status, head.reason, fields, told, head.version, head.told)
    return Altered(head, _Misjudged(told), None, None)


class _Misjudged:
    """Sends no more than was announced, and closes the connection behind it, or where there is no more."""

    def __init__(self, length: int) -> None:
        self.reached = True
        self._left = length

    def feed(self, data: bytes) -> list[Step]:
        data = data[: self._left]
        self._left -= len(data)
        steps: list[Step] = [Send(data)] if data else []
        return steps if self._left else [*steps, Break(reset=False)]

    def end(self) -> list[Step]:
        return [Break(reset=False)]


def missed(exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal) -> None:
    """What was *chosen* for *exchange* came to nothing."""
    if exchange.fault is chosen:
        exchange.unreached = True
    rehearsal.engine.missed(chosen)


class Playback:
    """Does the steps of one player, each in its time and no faster than they are taken.

    :ivar over: the last step is done.
    :ivar waited: it has held the answer up.
    """

    __slots__ = (
        "_blocked",
        "_ended",
        "_exchange",
        "_full",
        "_kept",
        "_player",
        "_reader",
        "_rehearsal",
        "_running",
        "_steps",
        "_timer",
        "_told",
        "_waiting",
        "chosen",
        "over",
        "waited",
    )

    def __init__(self, exchange: Exchange, chosen: Chosen, rehearsal: Rehearsal) -> None:
        self._exchange = exchange
        self.chosen = chosen
        self._rehearsal = rehearsal
        self._player: Plays | None = None
        self._reader: Inflater | None = None
        self._kept: deque[bytes] = deque()
        self._steps: deque[Step] = deque()
        self._timer: IDelayedCall | None = None
        self._ended = self._told = False
        self._full = self._waiting = self._running = self._blocked = False
        self.over = self.waited = False

    @property
    def reached(self) -> bool:
        """Whether anything was done to the answer."""
        return self._player is not None and self._player.reached

    def _missed(self) -> None:
        """The fault came to nothing."""
        missed(self._exchange, self.chosen, self._rehearsal)

    # For whoever plays.

    def _send(self, data: bytes) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        """A silence begins."""

    def _break(self, *, reset: bool) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _pace(self, *, blocked: bool) -> None:
        """The source is to pause, or to go on."""

    # Bytes in, steps out.

    def _take(self, data: bytes) -> None:
        """The next piece of the body."""
        if data and not self.over:
            self._kept.append(data)
            self._run()

    def _end(self) -> None:
        """The body is whole."""
        self._ended = True
        self._run()

    def _taken(self, *, slowly: bool) -> None:
        """Whoever takes the bytes cannot keep up, or can again."""
        self._full = slowly
        self._run()

    def _run(self) -> None:
        """Do what can be done now."""
        if self._running:
            return
        self._running = True
        try:
            while not (self.over or self._full or self._waiting):
                if not self._steps and not self._decide():
                    break
                if self._steps:
                    self._do(self._steps.popleft())
        except Exception:
            self._stop()
            work, self._exchange.work = self._exchange.work, None
            self._rehearsal.failed(Failure(), self._exchange)
            if work is not None:
                work()
        finally:
            self._running = False
        self._repace()

    def _decide(self) -> bool:
        """Ask the player what becomes of the next bytes; whether there were any."""
        player = self._player
        if player is None:
            return False
        if self._kept:
            self._steps += player.feed(self._next())
            return True
        if not self._ended or self._told:
            return False
        self._told = True
        # A coded body that breaks off is none that ends here.
        whole = self._reader is None or self._reader.whole
        self._steps += player.end() if whole else [Break(reset=False)]
        return True

    def _next(self) -> bytes:
        data = self._kept.popleft()
        if self._reader is None:
            return data
        if len(data) > SLICE:
            self._kept.appendleft(data[SLICE:])
        return self._reader.feed(data[:SLICE])

    def _do(self, step: Step) -> None:
        if isinstance(step, Send):
            self._send(step.data)
        elif isinstance(step, Wait):
            self.waited = self._waiting = True
            if step.seconds is not None:
                self._timer = self._rehearsal.wheel.exactly(step.seconds, self._waited_out)
            self._flush()
        elif isinstance(step, Finish):
            self.over = True
            self._finish()
        else:
            self.over = True
            self._break(reset=step.reset)

    def _waited_out(self) -> None:
        self._timer = None
        self._waiting = False
        self._run()

    def _repace(self) -> None:
        blocked = not self.over and bool(self._full or self._waiting or self._steps or self._kept)
        if blocked is not self._blocked:
            self._blocked = blocked
            self._pace(blocked=blocked)

    def _stop(self) -> None:
        """Nothing more is done."""
        self.over = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._kept.clear()
        self._steps.clear()
        self._player = self._reader = None

"""What a rehearsed breakage makes of the bytes of one answer: bytes in, steps out.

Nothing here waits or closes anything.  A :class:`Player` is fed the body of an answer as it comes, in
the clear, and says what is to be done with it: send these bytes, wait so long, break off, end well.
Whoever drives it has the timers and the connection.

==================  ===================================================================================
``cut``, ``reset``  a :class:`Break` at the spot; at ``tool`` in the middle of the event in which the
                    arguments go on, or of the one that holds all of them
``stall``           a :class:`Wait` at the spot, then the rest
``stream_error``    the provider's error event at the spot, then a :class:`Finish`; a :class:`Break`
                    where it has no such event
``truncate``        a :class:`Finish` at the spot
``garbage``         the event at the spot, its JSON broken, in whole framing
``duplicate``       the event at the spot twice
``reorder``         the event at the spot behind the one that follows it
``no_usage``        all events, without their counts; an answer in one piece, too
``empty``           no event with content, and none that only makes sense with one
``slow``            a :class:`Wait` in front of each event with content
==================  ===================================================================================

The spots ``start`` and a number of events lie between events with content: what happens to an event
happens to the next one.  ``end`` is the event that says that the stream is complete
(``finish_reason``, ``message_stop``, ``response.completed``, ``done``…), or the terminator where no
event does.  Spots in bytes are exact for ``cut``, ``reset``, ``stall`` and ``truncate``; the other kinds
take the event in which the byte is, and ``stream_error`` comes behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxyd.faults.acts import Act, Change, Empty, Ending, NoUsage, Slow, Stop, error_ending
from llmproxyd.faults.pace import Pace
from llmproxyd.faults.plays import ByBytes, ByEvents, ByHalf, Passing, Play, Whole
from llmproxyd.faults.rules import At, Breakage, Manner, Spot
from llmproxyd.faults.spots import bytes_of, spot
from llmproxyd.faults.steps import Break as Break
from llmproxyd.faults.steps import Finish as Finish
from llmproxyd.faults.steps import Send as Send
from llmproxyd.faults.steps import Step as Step
from llmproxyd.faults.steps import Wait as Wait
from llmproxyd.faults.steps import joined
from llmproxyd.http.cutting import LIMIT
from llmproxyd.providers.base import StreamForm, Usage

ANYWHERE = frozenset({Breakage.CUT, Breakage.RESET, Breakage.STALL, Breakage.TRUNCATE})
"""Kinds that happen behind any byte, so in an answer in one piece, too."""

CHANGES = frozenset({Breakage.GARBAGE, Breakage.DUPLICATE, Breakage.REORDER})
"""Kinds that happen to an event."""

KEEP_LENGTH = frozenset({Breakage.CUT, Breakage.RESET, Breakage.STALL, Breakage.SLOW})
"""Kinds that send no other bytes than the answer's own, so that it may keep its ``Content-Length``.

For any other kind that a player plays it must be left out of the head: what is sent may be more or less.
"""

IN_BODY = ANYWHERE | CHANGES | {Breakage.STREAM_ERROR, Breakage.NO_USAGE, Breakage.EMPTY, Breakage.SLOW}
"""Kinds that happen in the bytes of a body; a player lets everything pass for all others."""

DEFAULT_AT: Mapping[Breakage, At] = dict.fromkeys(
    (*ANYWHERE, *CHANGES, Breakage.STREAM_ERROR), At(Spot.EVENTS, 1)
)
"""Where each kind happens in a stream if nothing else is said: the client has seen it begin.

An answer in one piece breaks in its middle.  The kinds that are not here have no spot.
"""


def wrong_length(length: int, excess: int) -> int:
    """The ``Content-Length`` to tell for a body of *length* bytes; never below 0."""
    return max(0, length + excess)


class Player:
    """Plays one breakage on the body of one answer.

    It gives out exactly one :class:`Break` or :class:`Finish`, as its last step: at the spot, or from
    :meth:`end`.  Kinds that do not concern the bytes of a body let everything pass.

    :param form: how the answer streams; ``None`` for one in one piece.
    :param length: bytes of the whole body in the clear, ``None`` where that is not known.
    :param usage: where the dialect tells counts, for ``no_usage``.
    :param error_event: the event of a ``stream_error``, called when it is needed; ``None`` where the
        form has none, so that the connection is cut in its place.
    :param draw: a number from 0 to below 1, for the jitter of ``slow``.
    :param limit: bytes of one event beyond which it passes as it is; of an answer in one piece, too.
    """

    def __init__(
        self,
        kind: Breakage,
        manner: Manner,
        *,
        form: StreamForm | None = None,
        length: int | None = None,
        usage: Usage | None = None,
        error_event: Callable[[], bytes | None] = lambda: None,
        draw: Callable[[], float] = lambda: 0.5,
        limit: int = LIMIT,
    ) -> None:
        self._manner = manner
        self._form = form
        self._length = length
        self._usage = usage
        self._error_event = error_event
        self._draw = draw
        self._play = self._of_one_piece(kind, limit) if form is None else self._of_stream(kind, form, limit)
        self._over = False

    @property
    def reached(self) -> bool:
        """Whether the spot was reached, so that something was done."""
        return self._play.reached

    @property
    def over(self) -> bool:
        """Whether the last step was given out: what is fed after that is dropped, :meth:`end` gives nothing.

        The rest of the upstream's answer is not needed.
        """
        return self._over

    def feed(self, data: bytes) -> list[Step]:
        """What becomes of the next piece of the body."""
        return [] if self._over or not data else self._given(self._play.feed(data))

    def end(self) -> list[Step]:
        """The answer is whole: what was held back, and its end."""
        return [] if self._over else self._given([*self._play.end(), Finish()])

    def _given(self, steps: list[Step]) -> list[Step]:
        steps = joined(steps)
        self._over = bool(steps) and isinstance(steps[-1], (Break, Finish))
        return steps

    def _of_one_piece(self, kind: Breakage, limit: int) -> Play:
        if kind is Breakage.NO_USAGE and self._usage is not None:
            return Whole(self._usage.counts, limit)
        if kind not in ANYWHERE:
            return Passing()
        at = self._manner.at
        if at is None and self._length is None:
            return ByHalf(self._ending(kind), limit, goes_on=kind is Breakage.STALL)
        number = bytes_of(at or At(Spot.PERCENT, 50), self._length)
        return Passing() if number is None else self._by_bytes(kind, number)

    def _of_stream(self, kind: Breakage, form: StreamForm, limit: int) -> Play:
        if kind not in IN_BODY:
            return Passing()
        at = self._manner.at
        number = None if at is None else bytes_of(at, self._length)
        if number is not None and kind in ANYWHERE:
            return self._by_bytes(kind, number)
        return ByEvents(self._act(kind, form), form, limit)

    def _by_bytes(self, kind: Breakage, number: int) -> Play:
        return ByBytes(self._ending(kind), number, goes_on=kind is Breakage.STALL)

    def _act(self, kind: Breakage, form: StreamForm) -> Act:
        """What is done to the pieces of a stream."""
        match kind:
            case Breakage.NO_USAGE:
                return NoUsage(form, frozenset() if self._usage is None else self._usage.counts)
            case Breakage.EMPTY:
                return Empty(form)
            case Breakage.SLOW:
                return Slow(Pace(self._manner, form, self._draw))
        at = self._manner.at or DEFAULT_AT[kind]
        breaks = kind in (Breakage.CUT, Breakage.RESET)
        look = spot(at, form, self._length, within=breaks or kind in CHANGES)
        if kind in CHANGES:
            return Change(look, kind, form.framing)
        goes_on = kind is Breakage.STALL
        ends = self._ending(kind) if kind in ANYWHERE else error_ending(form, self._error_event)
        return Stop(look, ends, goes_on=goes_on, breaks=breaks)

    def _ending(self, kind: Breakage) -> Ending:
        """What one of the kinds that happen anywhere does at its spot."""
        steps: dict[Breakage, Step] = {
            Breakage.CUT: Break(reset=False),
            Breakage.RESET: Break(reset=True),
            Breakage.STALL: Wait(self._manner.silence),
            Breakage.TRUNCATE: Finish(),
        }
        return lambda _: [steps[kind]]

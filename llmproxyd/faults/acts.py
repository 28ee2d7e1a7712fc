"""The breakages of a stream, one class for those that are done alike: pieces in, steps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llmproxyd.faults.omit import without
from llmproxyd.faults.pace import Pace
from llmproxyd.faults.rules import Breakage
from llmproxyd.faults.spots import Look, Seen, Where
from llmproxyd.faults.steps import Break, Finish, Send, Step, Wait, sent
from llmproxyd.http.framing import Framing
from llmproxyd.http.pieces import again, closed, lead_of, swapped, with_data
from llmproxyd.providers.base import Place, StreamForm, encode


class Act(Protocol):
    """One breakage at work on the pieces of one stream.

    :ivar reached: its spot was reached, so that something was done.
    :ivar done: nothing is left to do: what follows passes.
    """

    reached: bool
    done: bool

    def piece(self, seen: Seen) -> list[Step]:
        """What becomes of the next piece."""
        ...

    def last(self) -> list[Step]:
        """What was held back, when there is no further piece."""
        ...


Ending = Callable[[bytes], list[Step]]
"""What happens at a spot; it is told the piece of the stream in front of it, empty if there is none."""


class Stop:
    """Something happens at the spot, and the stream ends there or goes on.

    :param ending: what happens there.
    :param goes_on: the stream goes on behind it.
    :param breaks: it can happen in the middle of an event.
    """

    def __init__(self, look: Look, ending: Ending, *, goes_on: bool = False, breaks: bool = False) -> None:
        self._look = look
        self._ending = ending
        self._goes_on = goes_on
        self._breaks = breaks
        self._before = b""
        self.reached = False
        self.done = False

    def piece(self, seen: Seen) -> list[Step]:
        where = self._look(seen)
        before, self._before = self._before, seen.raw
        if where is None:
            return [Send(seen.raw)]
        self.reached = self.done = True
        if where is Where.BEFORE:
            return [*self._ending(before), *([Send(seen.raw)] if self._goes_on else [])]
        if where is Where.WITHIN and self._breaks:
            return [*sent(seen.raw[: len(seen.raw) // 2]), *self._ending(seen.raw)]
        return [Send(seen.raw), *self._ending(seen.raw)]

    def last(self) -> list[Step]:
        return []


def error_ending(form: StreamForm, error_event: Callable[[], bytes | None]) -> Ending:
    """What a ``stream_error`` does: the error event, then a clean end; a cut where there is no such event."""

    def ends(before: bytes) -> list[Step]:
        event = error_event()
        if not event:
            return [Break(reset=False)]
        if form.framing is Framing.JSON_ARRAY:
            # It is worded as an element behind another one.
            opened = event if before else b"[" + event[len(lead_of(form.framing, event)) :]
            event = opened + b"]"
        elif before:
            event = closed(form.framing, before)[len(before) :] + event
        return [Send(event), Finish()]

    return ends


class Change:
    """One event is broken, comes twice, or behind the next one.

    It is the event at the spot, or the first one with content behind it.
    """

    def __init__(self, look: Look, kind: Breakage, framing: Framing) -> None:
        self._look = look
        self._kind = kind
        self._framing = framing
        self._behind = False
        self._held: bytes | None = None
        self.reached = False
        self.done = False

    def piece(self, seen: Seen) -> list[Step]:
        if self._held is not None:
            return self._swap(self._held, seen)
        here = self._behind and seen.content
        if not self._behind:
            where = self._look(seen)
            self._behind = where is not None
            here = where in (Where.BEFORE, Where.WITHIN)
        if not here or seen.event is None:
            return [Send(seen.raw)]
        if self._kind is Breakage.REORDER:
            self._held = seen.raw
            return []
        self.reached = self.done = True
        if self._kind is Breakage.DUPLICATE:
            return [Send(again(self._framing, seen.raw))]
        old = seen.event.data
        return [Send(with_data(self._framing, seen.raw, old, garbled(self._framing, old)))]

    def _swap(self, held: bytes, seen: Seen) -> list[Step]:
        if seen.event is None and not seen.closing:
            return [Send(seen.raw)]
        self._held = None
        self.done = True
        if seen.event is None:
            return [Send(held), Send(seen.raw)]
        self.reached = True
        return [Send(swapped(self._framing, held, seen.raw))]

    def last(self) -> list[Step]:
        return sent(self._held or b"")


def garbled(framing: Framing, data: bytes) -> bytes:
    """*data* of an event as no JSON, but in a way that leaves the framing whole.

    It breaks off in the middle, not within a character; an element of an array gets a comma too
    many instead, as its brackets belong to the framing.
    """
    if framing is Framing.JSON_ARRAY:
        return data[:1] + b"," + data[1:]
    middle = len(data) // 2
    while middle and data[middle] & 0xC0 == 0x80:
        middle -= 1
    return data[:middle]


class _Dropping:
    """Leaves out events.  In an array what opened it goes to the first element that is left."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._sent = False
        self._lead = b""

    def drop(self, raw: bytes) -> list[Step]:
        if not self._sent:
            self._lead = self._lead or lead_of(self._framing, raw)
        return []

    def keep(self, raw: bytes) -> list[Step]:
        if self._lead and not self._sent:
            raw = self._lead + raw[len(lead_of(self._framing, raw)) :]
        self._sent = True
        return [Send(raw)]


class NoUsage:
    """Counts are left out: the members that hold them, and events that hold nothing else."""

    def __init__(self, form: StreamForm, places: frozenset[Place]) -> None:
        self._form = form
        self._places = places
        self._names = [place[-1].encode() for place in places]
        self._dropping = _Dropping(form.framing)
        self.reached = False
        self.done = False

    def piece(self, seen: Seen) -> list[Step]:
        event = seen.event
        if event is None or seen.value is None or not any(name in event.data for name in self._names):
            return self._dropping.keep(seen.raw)
        left = without(event.data, self._places)
        if left == event.data:
            return self._dropping.keep(seen.raw)
        self.reached = True
        if self._is_usage_alone(seen):
            return self._dropping.drop(seen.raw)
        return self._dropping.keep(with_data(self._form.framing, seen.raw, event.data, left))

    def _is_usage_alone(self, seen: Seen) -> bool:
        """Whether there is nothing beside the counts but texts and numbers that tell whose they are."""
        assert seen.value is not None
        counted = {place[0] for place in self._places if len(place) == 1}
        others = [value for name, value in seen.value.items() if name not in counted]
        return not (seen.content or seen.closing or any(isinstance(v, (dict, list)) and v for v in others))

    def last(self) -> list[Step]:
        return []


class Empty:
    """What the model says is left out."""

    def __init__(self, form: StreamForm) -> None:
        self._form = form
        self._dropping = _Dropping(form.framing)
        self.reached = False
        self.done = False

    def piece(self, seen: Seen) -> list[Step]:
        left = self._left(seen)
        if left == seen.raw:
            return self._dropping.keep(left)
        self.reached = True
        return self._dropping.drop(seen.raw) if left is None else self._dropping.keep(left)

    def _left(self, seen: Seen) -> bytes | None:
        """What is left of a piece, ``None`` for nothing."""
        form, event, value = self._form, seen.event, seen.value
        if event is None or value is None or form.empty is None:
            return None if seen.content and not seen.closing else seen.raw
        if form.failure(event.name, value) is not None:
            return seen.raw
        left = form.empty(event.name, value)
        if left is None or left is value:
            return None if left is None else seen.raw
        try:
            return with_data(form.framing, seen.raw, event.data, encode(left))
        except RecursionError:
            return None  # nested so deeply that it could be read but cannot be written

    def last(self) -> list[Step]:
        return []


class Slow:
    """Events with content come at a pace."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.reached = False
        self.done = False

    def piece(self, seen: Seen) -> list[Step]:
        if not (seen.content and seen.begins):
            return [Send(seen.raw)]
        self.reached = True
        seconds = self._pace.wait(seen)
        return [*([Wait(seconds)] if seconds > 0 else []), Send(seen.raw)]

    def last(self) -> list[Step]:
        return []

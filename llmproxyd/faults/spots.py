"""Where in a stream a breakage happens: each piece is looked at, and its spot recognised."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from llmproxyd.faults.rules import At, Spot
from llmproxyd.http.cutting import LastPart, Part
from llmproxyd.http.framing import Framing
from llmproxyd.http.pieces import event_of
from llmproxyd.http.sse import DONE, Event
from llmproxyd.providers.base import StreamForm
from llmproxyd.providers.events import JsonObject, objects


@dataclass(frozen=True, slots=True)
class Seen:
    """One piece of a stream.

    :param event: ``None`` for what is none, and for parts of one that is too large.
    :param value: its JSON object, ``None`` if it is none.
    :param content: it holds something that the model said, or why it ended; an event that is too
        large counts as such.
    :param closing: it says that the stream is complete, by its type, a member or as the terminator.
    :param begins: an event begins with it; ``False`` only for the later parts of a large one.
    :param ends: an event ends with it.
    """

    raw: bytes
    event: Event | None = None
    value: JsonObject | None = None
    content: bool = False
    closing: bool = False
    begins: bool = True
    ends: bool = True


class Watch:
    """Says of each piece of one stream what it is; it is asked once for each, in their order."""

    def __init__(self, form: StreamForm) -> None:
        self._form = form
        self._begins = True

    def look(self, piece: bytes) -> Seen:
        """What *piece* is."""
        begins, self._begins = self._begins, not isinstance(piece, Part) or isinstance(piece, LastPart)
        if isinstance(piece, Part):
            return Seen(piece, content=True, begins=begins, ends=self._begins)
        form = self._form
        event = event_of(form.framing, piece)
        if event is None:
            return Seen(piece, closing=form.framing is Framing.JSON_ARRAY and piece.strip()[-1:] == b"]")
        if event.data == DONE:
            return Seen(piece, event, closing=True)
        try:
            value = json.loads(event.data)
        except (ValueError, RecursionError):
            return Seen(
                piece, event, content=bool(event.data.strip()) and form.failure(event.name, {}) is None
            )
        if not isinstance(value, dict):
            # An array of objects is an error of Gemini's, as far as is known.
            return Seen(piece, event, content=bool(value) and not objects(value))
        content = form.failure(event.name, value) is None and form.content(event.name, value)
        return Seen(piece, event, value, content, form.closes(event.name, value))


class Where(Enum):
    """How a spot lies to a piece."""

    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


Look = Callable[[Seen], Where | None]
"""Whether the spot is at a piece, ``None`` if not.  It is asked for each, until it is found."""


def spot(at: At, form: StreamForm, length: int | None, within: bool) -> Look:
    """The spot *at* in a stream of *form*.

    :param length: bytes of the whole stream, where that is known.
    :param within: what happens there happens to an event, or within its bytes: then the spot ``tool``
        is the event in which arguments go on, else it is behind the event in which they begin.
    """
    match at.spot:
        case Spot.START:
            return _after_events(0)
        case Spot.EVENTS:
            return _after_events(int(at.number))
        case Spot.TOOL:
            return _Tool(form, within).look
        case Spot.END:
            return lambda seen: Where.BEFORE if seen.closing else None
    return _Bytes(bytes_of(at, length)).look


def bytes_of(at: At, length: int | None) -> int | None:
    """How many bytes are in front of a spot that is told in bytes or hundredths of *length*.

    ``None`` for any other spot, and for hundredths of what is not known.
    """
    if at.spot is Spot.BYTES:
        return int(at.number)
    if at.spot is Spot.PERCENT and length is not None:
        return int(length * at.number / 100)
    return None


def _after_events(number: int) -> Look:
    """Behind so many content events, in front of the first one if there are none."""
    left = number

    def look(seen: Seen) -> Where | None:
        nonlocal left
        if not number:
            return Where.BEFORE if seen.content and seen.begins else None
        left -= seen.content and seen.ends
        return Where.AFTER if not left else None

    return look


class _Bytes:
    """The piece in which so many bytes are over."""

    def __init__(self, number: int | None) -> None:
        self._left = number

    def look(self, seen: Seen) -> Where | None:
        if self._left is None:
            return None
        if self._left <= 0 and seen.begins:
            return Where.BEFORE
        self._left -= len(seen.raw)
        if self._left > 0 or not seen.ends:
            return None
        return Where.WITHIN if self._left else Where.AFTER


class _Tool:
    """The arguments of the first call that has some.

    Arguments that come in one piece are a JSON object: then this event is the spot.  Else they go on
    in another event.  One with content but without arguments in their place means that the rest
    is missing, so the spot is in front of it.
    """

    def __init__(self, form: StreamForm, within: bool) -> None:
        self._form = form
        self._within = within
        self._begun = False

    def look(self, seen: Seen) -> Where | None:
        piece = ""
        if seen.event is not None and seen.value is not None:
            piece = self._form.tool(seen.event.name, seen.value)
        if self._begun:
            return Where.WITHIN if piece else Where.BEFORE if seen.content or seen.closing else None
        if not piece:
            return None
        self._begun = True
        if not self._within:
            return Where.AFTER
        return Where.WITHIN if _whole(piece) else None


def _whole(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False

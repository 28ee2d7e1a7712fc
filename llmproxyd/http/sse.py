"""The events of a stream, read from a copy of its bytes in whatever pieces they come.

One reader for each :class:`~llmproxyd.http.framing.Framing`.  All keep at most one unfinished
event, and that up to a limit: a larger one is given up, and reading goes on behind it.  None
of them raises; a stream that is none gives no events.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from llmproxyd.http.frames import FrameReader
from llmproxyd.http.framing import Framing

LIMIT = 64 * 1024
"""Bytes that one event may have."""

DONE = b"[DONE]"
"""What OpenAI's chat streams say in place of a last event."""

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event.

    :param name: its type where the framing tells one, else empty; a frame of AWS's that is an
        exception has the name ``exception:`` and its kind.
    :param data: what it brings, as it came.
    """

    name: str
    data: bytes

    def __repr__(self) -> str:
        return f"Event({self.name!r}, {len(self.data)} bytes)"


class _Reader(Protocol):
    overflowed: bool

    def feed(self, data: bytes) -> list[Event]: ...

    def end(self) -> list[Event]: ...


class EventReader:
    """Reads the events of one stream.

    :param limit: bytes of one event: of its lines, its array element or its frame.
    """

    __slots__ = ("_reader",)

    def __init__(self, framing: Framing, limit: int = LIMIT) -> None:
        self._reader: _Reader = _READERS[framing](limit)

    @property
    def overflowed(self) -> bool:
        """Whether an event was given up: it was too large, or its frame made no sense."""
        return self._reader.overflowed

    def feed(self, data: bytes) -> list[Event]:
        """The events that the next piece of the body completes."""
        return self._reader.feed(data)

    def end(self) -> list[Event]:
        """What the end of the body completes.

        By the rules an event without its end is no event (WHATWG HTML §9.2.6).  Servers that
        fail in the middle seldom keep them, so one that is complete JSON is handed on.
        """
        return self._reader.end()


def _complete(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return data == DONE
    return True


class _ServerSent:
    """Server-sent events: https://html.spec.whatwg.org/#parsing-an-event-stream.

    Two things that browsers pass over are told, because errors come in them: the elder
    llama.cpp's field ``error``, and a JSON value that stands there bare (Gemini).
    """

    __slots__ = (
        "_after_cr",
        "_bare",
        "_begun",
        "_data",
        "_limit",
        "_name",
        "_part",
        "_size",
        "_skip",
        "overflowed",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._part = bytearray()  # the line that has no end yet
        self._after_cr = False
        self._begun = False
        self._skip = False  # up to the next blank line
        self.overflowed = False
        self._reset()

    def _reset(self) -> None:
        self._name = ""
        self._data: list[bytes] = []
        self._bare: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._after_cr and data:
            # A line ends with its CR, at once; the LF of a CRLF may come later.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return events
        lines = data.splitlines()
        last = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
        self._after_cr = data.endswith(b"\r")
        if lines and self._part:
            lines[0] = bytes(self._part) + lines[0]
            self._part.clear()
        for line in lines:
            self._line(line, events)
        self._part += last
        if len(self._part) > self._limit:
            self._give_up()
            # The rest of the line reads as a comment.
            self._part[:] = b":"
        return events

    def end(self) -> list[Event]:
        events: list[Event] = []
        self._line(bytes(self._part), events)
        self._part.clear()
        if not events:
            self._dispatch(events)
        return [event for event in events if _complete(event.data)]

    def _give_up(self) -> None:
        self.overflowed = self._skip = True
        self._reset()

    def _line(self, line: bytes, events: list[Event]) -> None:
        if len(line) > self._limit:
            self._give_up()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            self._skip = False
            self._dispatch(events)
        elif not self._skip:
            self._field(line)

    def _field(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field == b"data":
            self._keep(self._data, value.removeprefix(b" "), len(line))
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field == b"error":
            self._name = "error"
            self._keep(self._data, value.removeprefix(b" "), len(line))
        elif field not in (b"", b"id", b"retry") and (self._bare or line.lstrip()[:1] in (b"{", b"[")):
            self._keep(self._bare, line, len(line))

    def _keep(self, where: list[bytes], value: bytes, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            self._give_up()
        else:
            where.append(value)

    def _dispatch(self, events: list[Event]) -> None:
        if self._data:
            events.append(Event(self._name, b"\n".join(self._data)))
        elif self._bare:
            value = b"\n".join(self._bare)
            if _complete(value):
                events.append(Event("", value))
        self._reset()


class _Lines:
    """Newline-delimited JSON: one value a line; blank lines mean nothing."""

    __slots__ = ("_begun", "_limit", "_part", "_skip", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._part = bytearray()
        self._begun = False
        self._skip = False
        self.overflowed = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        lines = data.split(b"\n")
        last = lines.pop()
        if lines and self._part:
            lines[0] = bytes(self._part) + lines[0]
            self._part.clear()
        for line in lines:
            self._line(line, events)
        if not self._skip:
            self._part += last
            if len(self._part) > self._limit:
                self._part.clear()
                self._skip = self.overflowed = True
        return events

    def end(self) -> list[Event]:
        events: list[Event] = []
        self._line(bytes(self._part), events)
        self._part.clear()
        return [event for event in events if _complete(event.data)]

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._skip:
            self._skip = False
            return
        if len(line) > self._limit:
            self.overflowed = True
            return
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if line := line.strip():
            events.append(Event("", line))


# Brackets outside of strings; a string, even an unfinished one, is one match.
_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("|\\?\Z)|[\[\]{}]', re.DOTALL)
_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("|\\?\Z)', re.DOTALL)


class _Elements:
    """The objects of one JSON array; an object that stands alone is taken for the only one."""

    __slots__ = ("_depth", "_escaped", "_floor", "_in_string", "_limit", "_part", "_skip", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._part = bytearray()  # of the element that has no end yet
        self._depth = 0
        self._floor = 0  # the depth at which elements stand
        self._in_string = False
        self._escaped = False
        self._skip = False  # up to the end of the element
        self.overflowed = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        start = 0 if self._depth > self._floor else -1
        at = self._rest_of_string(data) if self._in_string else 0
        for match in _MARK.finditer(data, at):
            mark = match[0][:1]
            if mark == b'"':
                self._in_string = match[1] != b'"'
                self._escaped = match[1] == b"\\"
            elif mark in (b"[", b"{"):
                if not self._depth:
                    self._floor = 1 if mark == b"[" else 0
                if self._depth == self._floor:
                    start = match.start()
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if start >= 0 and self._depth == self._floor:
                    self._element(data[start : match.end()], events)
                    start = -1
        if start >= 0 and not self._skip:
            self._part += data[start:]
            if len(self._part) > self._limit:
                self._part.clear()
                self._skip = self.overflowed = True
        return events

    def end(self) -> list[Event]:
        return []

    def _element(self, rest: bytes, events: list[Event]) -> None:
        if self._skip:
            self._skip = False
        elif len(self._part) + len(rest) > self._limit:
            self.overflowed = True
        else:
            events.append(Event("", bytes(self._part) + rest))
        self._part.clear()

    def _rest_of_string(self, data: bytes) -> int:
        """Where *data* goes on behind the string that was left open."""
        if not data:
            return 0
        match = _REST.match(data, 1 if self._escaped else 0)
        assert match is not None
        self._in_string = match[1] != b'"'
        self._escaped = match[1] == b"\\"
        return match.end()


class _Frames(FrameReader):
    """AWS's event streams, one event a frame."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Event]:
        return [Event(name, payload) for name, payload in self.frames(data)]

    def end(self) -> list[Event]:
        return []


_READERS: dict[Framing, Callable[[int], _Reader]] = {
    Framing.SSE: _ServerSent,
    Framing.NDJSON: _Lines,
    Framing.JSON_ARRAY: _Elements,
    Framing.EVENT_STREAM: _Frames,
}

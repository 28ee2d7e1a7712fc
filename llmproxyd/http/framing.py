"""Where one event of a stream ends: enough to know whether a stream was cut between events.

A tracker is fed every piece of a body and answers one question, :attr:`at_boundary`.  It
keeps a few bytes of state, whatever the size of the stream.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Protocol


class Framing(StrEnum):
    """How a stream is cut into events."""

    SSE = "sse"
    NDJSON = "ndjson"
    JSON_ARRAY = "json_array"
    EVENT_STREAM = "event_stream"


class Tracker(Protocol):
    """Follows one stream."""

    @property
    def at_boundary(self) -> bool:
        """Whether the last byte fed ended an event (true before any byte)."""
        ...

    @property
    def empty(self) -> bool:
        """Whether no event has begun yet."""
        ...

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""


_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)\Z")


class SSETracker:
    """Server-sent events: a blank line ends one; lines end in CRLF, LF or CR."""

    def __init__(self) -> None:
        self._tail = b"\n\n"
        self.empty = True

    @property
    def at_boundary(self) -> bool:
        return _BLANK_LINE.search(self._tail) is not None

    def feed(self, data: bytes) -> None:
        self.empty = self.empty and not data
        self._tail = data[-4:] if len(data) >= 4 else (self._tail + data)[-4:]


class LineTracker:
    """Newline-delimited JSON: a line feed ends an object."""

    def __init__(self) -> None:
        self._last = b"\n"
        self.empty = True

    @property
    def at_boundary(self) -> bool:
        return self._last == b"\n"

    def feed(self, data: bytes) -> None:
        if data:
            self.empty = False
            self._last = data[-1:]


# Everything of interest in JSON outside of strings; a string, even an unfinished one, is one match.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+("|\\?\Z)|[\[\]{}]|,|[^\s"\[\]{},]+', re.DOTALL)


class ArrayTracker:
    """One JSON array whose elements are the events; an element ends when its depth is left."""

    def __init__(self) -> None:
        self._is_array = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._between = True
        self.empty = True

    @property
    def at_boundary(self) -> bool:
        return self._is_array and self._depth == 1 and self._between and not self._in_string

    def feed(self, data: bytes) -> None:
        if self._in_string:
            data = self._rest_of_string(data)
        for match in _TOKEN.finditer(data):
            token = match.group()
            first = token[:1]
            if first == b'"':
                self._begin()
                if match.group(1) != b'"':
                    self._in_string = True
                    self._escaped = match.group(1) == b"\\"
            elif first in (b"[", b"{"):
                if self._depth:
                    self._begin()
                elif first == b"[" and self.empty:
                    self._is_array = True
                self._depth += 1
            elif first in (b"]", b"}"):
                self._depth -= 1
                self._between = self._depth == 1
            elif first == b",":
                # After a comma another element must follow: an event of ours would need it gone.
                self._between = False
            else:
                self._begin()

    def _begin(self) -> None:
        self.empty = False
        self._between = False

    def _rest_of_string(self, data: bytes) -> bytes:
        match = _STRING_REST.match(data, 1 if self._escaped and data else 0)
        if match is None or match.group(1) != b'"':
            self._escaped = bool(match and match.group(1) == b"\\") if data else self._escaped
            return b""
        self._in_string = self._escaped = False
        return data[match.end() :]


_STRING_REST = re.compile(rb'(?:[^"\\]|\\.)*+("|\\?\Z)', re.DOTALL)


def tracker(framing: Framing) -> Tracker | None:
    """A tracker for streams of *framing*, ``None`` where no event of ours could be added."""
    if framing is Framing.SSE:
        return SSETracker()
    if framing is Framing.NDJSON:
        return LineTracker()
    if framing is Framing.JSON_ARRAY:
        return ArrayTracker()
    return None

"""A stream cut into its events, byte for byte, in whatever pieces it comes.

All that a cutter gives out, put together, is what it was fed: an event comes with everything that
belongs to its framing, and what stands between events is a piece of its own or goes with the event
behind it.  Where it cuts does not depend on how the bytes came.  What a piece holds is told in
:mod:`llmproxyd.http.pieces`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

from llmproxyd.http.framing import Framing

LIMIT = 1024 * 1024
"""Bytes that one event may have."""


class Part(bytes):
    """A piece of an event that is too large to be kept; others follow."""


class LastPart(Part):
    """The last one of them."""


class Cutter(Protocol):
    """Cuts one stream.  It keeps one unfinished event, of at most as many bytes as its limit."""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that the next bytes complete; of an event beyond the limit its parts."""
        ...

    def rest(self) -> bytes:
        """What is incomplete, handed out: after that nothing is kept."""
        ...


def cutter(framing: Framing, limit: int = LIMIT) -> Cutter:
    """A cutter for a stream of *framing*.

    :param limit: bytes that one event may have.
    """
    return _CUTTERS[framing](limit)


class _Cutter:
    """What all have in common: the bytes that are kept, and what is too large.

    :ivar _kept: bytes that belong to no complete piece yet.
    :ivar _large: parts of the event that they belong to were given out.
    """

    __slots__ = ("_kept", "_large", "_limit")

    def __init__(self, limit: int) -> None:
        self._kept = bytearray()
        self._limit = limit
        self._large = False

    def feed(self, data: bytes) -> list[bytes]:
        self._kept += data
        pieces = []
        start = 0
        for end in self._ends():
            pieces.append(self._piece(start, end))
            start = end
        if len(self._kept) - start > self._limit:
            large = len(self._kept) - self._undecided()
            pieces.append(Part(self._kept[start:large]))
            self._large = True
            start = large
        del self._kept[:start]
        self._drop(start)
        return pieces

    def rest(self) -> bytes:
        rest = self._piece(0, len(self._kept))
        self._kept.clear()
        return rest

    def _piece(self, start: int, end: int) -> bytes:
        """The piece that ends what was begun."""
        if self._large or end - start > self._limit:
            self._large = False
            return LastPart(self._kept[start:end])
        return bytes(self._kept[start:end])

    def _ends(self) -> Iterator[int]:
        """Where pieces end in what is kept, as far as was not looked at."""
        raise NotImplementedError

    def _undecided(self) -> int:
        """Bytes at the end of which it is not known yet what they are."""
        return 0

    def _drop(self, count: int) -> None:
        """So many of the bytes that were kept are gone."""
        raise NotImplementedError


_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
_COLON = ord(":")


class _ServerSent(_Cutter):
    """Server-sent events: a blank line ends one; lines end in CRLF, LF or CR.

    A comment between two events is a piece of its own, so that a sign of life is not held back, and
    so is a blank line too many.  A CR at the very end is kept until it is known whether it is half
    of a CRLF.

    :ivar _comment: the piece that was begun is a comment, as far as is known.
    :ivar _line: where the line that has no end yet begins, -1 if that is gone.
    :ivar _seen: from where on no end of a line was looked for.
    """

    __slots__ = ("_comment", "_line", "_seen")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._comment = False
        self._line = 0
        self._seen = 0

    def _ends(self) -> Iterator[int]:
        kept = self._kept
        first = -1 if self._large else 0  # where the piece begins
        for match in _LINE_END.finditer(kept, self._seen):
            begin, end = match.span()
            over = self._line == begin or self._is_comment(first)
            self._line = self._seen = end
            if over:
                first = end
                yield end
        self._seen = len(kept) - self._undecided()
        self._comment = self._is_comment(first)

    def _is_comment(self, first: int) -> bool:
        """Whether the line that was begun is a comment with which a piece begins."""
        if first < 0:
            return self._comment
        return self._line == first < len(self._kept) and self._kept[first] == _COLON

    def _undecided(self) -> int:
        return int(self._kept.endswith(b"\r"))

    def _drop(self, count: int) -> None:
        self._line = max(self._line - count, -1)
        self._seen -= count


class _Lines(_Cutter):
    """Newline-delimited JSON: a line feed ends a line."""

    __slots__ = ("_seen",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._seen = 0

    def _ends(self) -> Iterator[int]:
        while (at := self._kept.find(b"\n", self._seen)) >= 0:
            self._seen = at + 1
            yield self._seen
        self._seen = len(self._kept)

    def _drop(self, count: int) -> None:
        self._seen -= count


# Brackets outside of strings; a string, even an unfinished one, is one match.
_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("|\\?\Z)|[\[\]{}]', re.DOTALL)
_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("|\\?\Z)', re.DOTALL)
_QUOTE = ord('"')
_OPEN = b"[{"


class _Elements(_Cutter):
    """One JSON array, whose elements are objects or arrays.

    What stands in front of an element goes with it: the bracket or the comma, and white space.  The
    bracket that closes the array is the last piece.  An object that stands alone is a piece, too.
    """

    __slots__ = ("_depth", "_escaped", "_floor", "_in_string", "_seen")

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._depth = 0
        self._floor = 0  # the depth at which elements stand
        self._in_string = False
        self._escaped = False
        self._seen = 0

    def _ends(self) -> Iterator[int]:
        kept = self._kept
        if self._in_string and self._seen < len(kept):
            self._string(_REST.match(kept, self._seen + self._escaped))
        for match in _MARK.finditer(kept, self._seen):
            mark = kept[match.start()]
            if mark == _QUOTE:
                self._string(match)
            elif mark in _OPEN:
                if not self._depth:
                    self._floor = int(match[0] == b"[")
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if self._depth <= self._floor:
                    yield match.end()
        self._seen = len(kept)

    def _string(self, match: re.Match[bytes] | None) -> None:
        """A string goes as far as *match*; whether it ends there is told by what it ends with."""
        assert match is not None
        self._in_string = match[1] != b'"'
        self._escaped = match[1] == b"\\"
        self._seen = match.end()

    def _drop(self, count: int) -> None:
        self._seen -= count


_PRELUDE = 12
_CHECKSUM = 4
_MOST = 32 * 1024 * 1024
"""Bytes of a frame beyond which its length is not believed; AWS allows 24 MiB."""


class _Frames(_Cutter):
    """AWS's event streams: each frame begins with its length.

    Bytes that are no frame, and all that follow them, are parts of something too large.

    :ivar _end: where the frame ends that was begun, 0 while that is not known.
    """

    __slots__ = ("_end",)

    def __init__(self, limit: int) -> None:
        super().__init__(max(limit, _PRELUDE))  # the length must be read in any case
        self._end = 0

    def _ends(self) -> Iterator[int]:
        kept = self._kept
        begin = 0
        while self._limit:
            if not self._end:
                if len(kept) - begin < _PRELUDE:
                    return
                total = int.from_bytes(kept[begin : begin + 4], "big")
                headers = int.from_bytes(kept[begin + 4 : begin + 8], "big")
                if total > _MOST or headers > total - _PRELUDE - _CHECKSUM:
                    self._limit = 0  # nothing is kept any more
                    return
                self._end = begin + total
            if self._end > len(kept):
                return
            begin, self._end = self._end, 0
            yield begin

    def _drop(self, count: int) -> None:
        if self._end:
            self._end -= count


_CUTTERS: dict[Framing, Callable[[int], _Cutter]] = {
    Framing.SSE: _ServerSent,
    Framing.NDJSON: _Lines,
    Framing.JSON_ARRAY: _Elements,
    Framing.EVENT_STREAM: _Frames,
}

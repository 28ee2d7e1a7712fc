"""What a piece of a stream holds, and the same piece with something else in it.

The pieces are those of :mod:`llmproxyd.http.cutting`: whole events with their framing.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from zlib import crc32

from llmproxyd.http.framing import Framing
from llmproxyd.http.sse import Event, EventReader

_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:[\[,]\s*)?")
"""What stands in front of an element of an array."""
_CLOSE = re.compile(rb"\s*\[?\s*\]")
"""The end of an array, which may be all of it."""

_LINE = re.compile(rb"[^\r\n]++(?:\r\n|\n|\r)?|\r\n|\n|\r")
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)\Z")
_BOM = b"\xef\xbb\xbf"
_PRELUDE = 12
_CHECKSUM = 4


def lead_of(framing: Framing, piece: bytes) -> bytes:
    """What joins *piece* to the one before it: in an array its bracket or comma, nothing elsewhere.

    The bracket that closes an array has nothing in front of it.
    """
    return b"" if framing is not Framing.JSON_ARRAY or _CLOSE.match(piece) else _lead(piece)


def _lead(piece: bytes) -> bytes:
    match = _LEAD.match(piece)
    assert match is not None
    return match[0]


def event_of(framing: Framing, piece: bytes) -> Event | None:
    """The event that *piece* is, ``None`` if it is none (comments, blank lines, closing brackets)."""
    if framing is Framing.JSON_ARRAY:
        piece = b"" if _CLOSE.match(piece) else b"[" + piece[len(_lead(piece)) :]
    reader = EventReader(framing, len(piece))
    events = reader.feed(piece) or reader.end()
    return events[0] if events else None


def with_data(framing: Framing, piece: bytes, old: bytes, new: bytes) -> bytes:
    """*piece* with other data in the same framing.

    :param old: the data of its event, as :func:`event_of` tells them.
    """
    if framing is Framing.SSE:
        return _with_lines(piece, new)
    if framing is Framing.EVENT_STREAM:
        return _with_payload(piece, old, new)
    at = piece.index(old, len(lead_of(framing, piece)))
    return piece[:at] + new + piece[at + len(old) :]


def _with_lines(piece: bytes, new: bytes) -> bytes:
    """A server-sent event with the lines of *new* in place of its own lines of data."""
    lines: list[bytes] = _LINE.findall(piece)
    places = [at for at, line in enumerate(lines) if _field(line) in (b"data", b"error")]
    if not places:
        return piece
    # What has more lines than the event had goes on in the last one.
    values = new.split(b"\n", len(places) - 1)
    for at, value in zip_longest(places, values):
        line = lines[at]
        text = line.rstrip(b"\r\n")
        name, _, told = text.partition(b":")
        begin = name + (b": " if told.startswith(b" ") else b":")
        end = line[len(text) :]
        more = (end or b"\n").join(begin + part for part in (value or b"").split(b"\n"))
        lines[at] = b"" if value is None else more + end
    return b"".join(lines)


def _field(line: bytes) -> bytes:
    return line.removeprefix(_BOM).rstrip(b"\r\n").partition(b":")[0]


def _with_payload(piece: bytes, old: bytes, new: bytes) -> bytes:
    """A frame with another payload, its lengths and checksums put right."""
    headers = int.from_bytes(piece[4:8], "big")
    total = len(piece) - len(old) + len(new)
    prelude = total.to_bytes(4, "big") + piece[4:8]
    prelude += crc32(prelude).to_bytes(4, "big")
    frame = prelude + piece[_PRELUDE : _PRELUDE + headers] + new
    return frame + crc32(frame).to_bytes(_CHECKSUM, "big")


def closed(framing: Framing, piece: bytes) -> bytes:
    """*piece* with the end of an event, which the last one of a stream may lack."""
    if framing is Framing.SSE and _BLANK.search(piece) is None:
        return piece + (b"\n" if piece.endswith((b"\n", b"\r")) else b"\n\n")
    if framing is Framing.NDJSON and not piece.endswith(b"\n"):
        return piece + b"\n"
    return piece


def again(framing: Framing, piece: bytes) -> bytes:
    """*piece* and the same event once more."""
    lead = lead_of(framing, piece)
    joint = b",\n" if framing is Framing.JSON_ARRAY else b""
    return closed(framing, piece) + joint + piece[len(lead) :]


def swapped(framing: Framing, first: bytes, second: bytes) -> bytes:
    """Two events, the second one in front."""
    if framing is not Framing.JSON_ARRAY:
        return closed(framing, second) + first
    leads = lead_of(framing, first), lead_of(framing, second)
    return leads[0] + second[len(leads[1]) :] + leads[1] + first[len(leads[0]) :]

"""AWS's event streams: binary frames that begin with their length.

The checksums are left to the client.  Format: https://smithy.io/2.0/aws/amazon-eventstream.html.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

Frame = tuple[str, bytes]
"""The type of its event and its payload; ``exception:`` and its kind for an exception."""

_PRELUDE = 12
_CHECKSUM = 4
_MOST = 32 * 1024 * 1024
"""Bytes of a frame beyond which its length is not believed; AWS allows 24 MiB."""

# Bytes of a header's value by its type; 6 and 7 tell their length themselves.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class FrameReader:
    """Reads the frames of one stream.

    :param limit: bytes that one frame may have; a larger one is passed over.
    :ivar overflowed: a frame was passed over, or the bytes are no frames at all.
    """

    __slots__ = ("_limit", "_lost", "_part", "_skip", "overflowed")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._part = bytearray()
        self._skip = 0  # bytes of a frame that is given up
        self._lost = False  # where frames begin is not known any more
        self.overflowed = False

    def frames(self, data: bytes) -> list[Frame]:
        """The frames that the next piece of the body completes."""
        found: list[Frame] = []
        if self._lost:
            return found
        part = self._part
        part += data
        at = 0
        while True:
            step = min(self._skip, len(part) - at)
            self._skip -= step
            at += step
            if self._skip or len(part) - at < _PRELUDE:
                break
            total = int.from_bytes(part[at : at + 4], "big")
            headers = int.from_bytes(part[at + 4 : at + 8], "big")
            if total > _MOST or headers > total - _PRELUDE - _CHECKSUM:
                self._lost = self.overflowed = True
                part.clear()
                return found
            if total > self._limit:
                self._skip, self.overflowed = total, True
            elif len(part) - at < total:
                break
            else:
                found.append(_frame(bytes(part[at + _PRELUDE : at + total - _CHECKSUM]), headers))
                at += total
        del part[:at]
        return found


def _frame(content: bytes, size: int) -> Frame:
    """What is told by a frame with *size* bytes of headers in front of its payload."""
    headers = dict(_headers(content[:size]))
    payload = content[size:]
    kind = headers.get(":message-type", "event")
    if kind == "exception":
        return "exception:" + headers.get(":exception-type", ""), payload
    if kind == "error":
        # A failure of the protocol itself has its text in a header.
        text = json.dumps({"message": headers.get(":error-message", "")}).encode()
        return "exception:" + headers.get(":error-code", ""), payload or text
    return headers.get(":event-type", ""), payload


def _headers(block: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of the headers that are texts, up to the first that makes no sense."""
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        value_at = name_end + 1
        if value_at > len(block):
            return
        kind = block[name_end]
        if kind in (6, 7):
            size = int.from_bytes(block[value_at : value_at + 2], "big")
            value_at += 2
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            return
        if kind == 7:
            yield block[at + 1 : name_end].decode("latin-1"), _text(block[value_at : value_at + size])
        at = value_at + size


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")

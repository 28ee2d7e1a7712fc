"""What a coded body says, as far as it is needed to look at it: a bounded copy in the clear."""

from __future__ import annotations

import zlib

LIMIT = 1024 * 1024
"""Bytes in the clear that are kept of one body."""

_CODINGS = 3
"""So many codings on top of each other are undone; nobody sends more than one."""

_MEMBERS = 256
"""So many gzip members of one body are read.  They may be empty, so bytes alone bound nothing."""

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_BEGIN = 0x1F


class Inflater:
    """Undoes the content coding of one body, piece by piece.  It never raises once it is made.

    :param coding: the value of ``Content-Encoding``: gzip, x-gzip, deflate, identity or nothing,
        or several of these in the order in which they were applied (RFC 9110 §8.4).
    :param limit: bytes that it gives out in all.
    :raises ValueError: another coding.
    """

    __slots__ = ("_layers", "_left", "full")

    def __init__(self, coding: bytes, limit: int = LIMIT) -> None:
        names = [part.strip().lower() for part in coding.split(b",")]
        names = [name for name in names if name not in (b"", b"identity")]
        if len(names) > _CODINGS or not all(name in _WINDOW for name in names):
            raise ValueError("a content coding that is not read here")
        self._layers = [_Layer(_WINDOW[name], limit) for name in reversed(names)]
        self._left = limit
        self.full = False
        """Whether there was more than the limit; the rest is dropped."""

    @property
    def broken(self) -> bool:
        """Whether the body is not what its coding says; what came before that was given out."""
        return any(layer.broken for layer in self._layers)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing as it stands: each coding has come to its own end."""
        return not self.full and not self.broken and all(layer.ended for layer in self._layers)

    def feed(self, data: bytes) -> bytes:
        """The next piece of the body in the clear, nothing once :attr:`full` or :attr:`broken`."""
        if self.full:
            return b""
        for layer in self._layers:
            data = layer.feed(data)
            self.full = self.full or layer.full
        if len(data) > self._left:
            data = data[: self._left]
            self.full = True
        self._left -= len(data)
        return data


def inflater(coding: bytes, limit: int = LIMIT) -> Inflater | None:
    """An inflater for *coding*, ``None`` for one that cannot be read here (br, zstd)."""
    try:
        return Inflater(coding, limit)
    except ValueError:
        return None


def inflated(body: bytes, coding: bytes, limit: int = LIMIT) -> bytes | None:
    """A whole *body* in the clear; ``None`` if it cannot be read, is broken or exceeds *limit*."""
    source = inflater(coding, limit)
    if source is None:
        return None
    data = source.feed(body)
    return data if source.whole else None


_WINDOW = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": zlib.MAX_WBITS}
"""zlib's ``wbits`` by coding."""


class _Layer:
    """One coding: a stream of zlib's, for gzip maybe several, one after the other.

    :ivar ended: a stream has come to its end and no other has begun.
    """

    __slots__ = ("_head", "_left", "_members", "_over", "_window", "_zlib", "broken", "ended", "full")

    def __init__(self, window: int, limit: int) -> None:
        self._window = window
        self._zlib = zlib.decompressobj(window) if window == _GZIP else None
        self._head = b""
        self._left = limit
        self._members = 1
        self._over = False
        self.broken = False
        self.full = False
        self.ended = True  # nothing at all is nothing in any coding

    def feed(self, data: bytes) -> bytes:
        if self._zlib is None:
            data = self._begun(data)
        clear = []
        while data and not (self._over or self.broken or self.full):
            assert self._zlib is not None
            if self._zlib.eof:
                self._another(data)
            else:
                clear.append(self._inflate(data))
                data = self._zlib.unused_data
        return b"".join(clear)

    def _begun(self, data: bytes) -> bytes:
        """Tell from two bytes whether ``deflate`` is zlib's format (RFC 1950), as it ought to be.

        Some send bare deflate data (RFC 1951), and browsers read it.
        """
        self._head += data
        self.ended = not self._head
        if len(self._head) < 2:
            return b""
        proper = self._head[0] & 0x8F == 8 and int.from_bytes(self._head[:2], "big") % 31 == 0
        self._zlib = zlib.decompressobj(self._window if proper else -self._window)
        return self._head

    def _inflate(self, data: bytes) -> bytes:
        assert self._zlib is not None
        self.ended = False
        try:
            # A byte more than may be given out tells that there was more; 0 would mean no bound.
            clear = self._zlib.decompress(data, self._left + 1)
        except zlib.error:
            self.broken = True
            return b""
        if len(clear) > self._left:
            self.full = True
            clear = clear[: self._left]
        self._left -= len(clear)
        self.ended = self._zlib.eof
        return clear

    def _another(self, data: bytes) -> None:
        """Behind the end of a stream: another gzip member, or padding, which gzip skips too."""
        if self._window != _GZIP or data[0] != _GZIP_BEGIN:
            self._over = True
            return
        self._members += 1
        self.broken = self._members > _MEMBERS
        self._zlib = zlib.decompressobj(_GZIP)

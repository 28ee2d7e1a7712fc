"""Pieces of an answer, gathered for a while before they go on (``flush_interval``)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from llmproxyd.wire.wheel import Wheel

ENOUGH = 64 * 1024
"""Bytes that wait no longer."""


class Gather:
    """Gathers pieces.

    :param seconds: from the first one until they go on together.
    :param write: takes them.
    """

    __slots__ = ("_pieces", "_seconds", "_size", "_timer", "_wheel", "_write")

    def __init__(self, seconds: float, wheel: Wheel, write: Callable[[bytes], None]) -> None:
        self._seconds = seconds
        self._wheel = wheel
        self._write = write
        self._pieces: list[bytes] = []
        self._size = 0
        self._timer: IDelayedCall | None = None

    def add(self, data: bytes) -> None:
        """A piece, which goes on soon."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= ENOUGH:
            self._expire()
        elif self._timer is None:
            self._timer = self._wheel.exactly(self._seconds, self._expire)

    def take(self) -> bytes:
        """What waits; it does not any more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        data = b"".join(self._pieces)
        self._pieces = []
        self._size = 0
        return data

    def _expire(self) -> None:
        self._write(self.take())

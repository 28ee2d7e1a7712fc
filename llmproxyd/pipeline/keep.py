"""A body, as far as it is kept."""

from __future__ import annotations

from llmproxyd.model import Body


class Keep:
    """Keeps the first *limit* bytes of a body, and counts the rest."""

    __slots__ = ("_left", "_pieces", "length")

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._pieces: list[bytes] = []
        self.length = 0

    def add(self, data: bytes) -> None:
        """The next piece."""
        self.length += len(data)
        if self._left > 0:
            self._pieces.append(data[: self._left])
            self._left -= len(data)

    def body(self) -> Body:
        """What there is."""
        data = b"".join(self._pieces)
        return Body(data=data, cut=len(data) < self.length, length=self.length)

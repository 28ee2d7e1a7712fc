"""How much a model said in one answer, in characters; counted while it passes, on a bounded copy."""

from __future__ import annotations

import json

from llmproxyd.http.sse import EventReader
from llmproxyd.inspection.inflate import Inflater, inflater
from llmproxyd.providers.base import StreamForm
from llmproxyd.providers.events import length

LIMIT = 64 * 1024 * 1024
"""Bytes in the clear that are counted of one answer."""

_SLICE = 1024
"""Coded bytes that are inflated at once.  They may be a thousand times as many in the clear."""


class Spoken:
    """Counts one answer along.  It never raises, whatever the bytes.

    :param form: of a stream: what its events say is counted; ``None`` for an answer in one piece, of
        which all is.
    :param coding: the value of ``Content-Encoding``; of one that cannot be read nothing is counted.
    :ivar characters: so many so far; bytes of an answer in one piece.
    """

    __slots__ = ("_coded", "_form", "_inflater", "_reader", "characters")

    def __init__(self, form: StreamForm | None, coding: bytes) -> None:
        self._form = form
        self._reader = None if form is None else EventReader(form.framing)
        self._coded = coding.strip().lower() not in (b"", b"identity")
        self._inflater: Inflater | None = inflater(coding, LIMIT) if self._coded else None
        self.characters = 0

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        if not self._coded:
            self._clear(data)
        elif self._inflater is not None:
            for start in range(0, len(data), _SLICE):
                self._clear(self._inflater.feed(data[start : start + _SLICE]))

    def _clear(self, data: bytes) -> None:
        if self._reader is None:
            self.characters += len(data)
            return
        for event in self._reader.feed(data):
            self._count(event.name, event.data)

    def _count(self, name: str, data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return
        form = self._form
        for item in value if isinstance(value, list) else (value,):
            if form is not None and isinstance(item, dict) and form.content(name, item):
                self.characters += length(form.said(name, item))

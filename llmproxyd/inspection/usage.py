"""What an answer tells of itself: model, tokens, why it ended; read on a bounded copy.

It is read along while it passes, so it must cost next to nothing: of a stream only those events
are parsed that may tell something, and a piece that holds none of them is not even taken apart.
Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

from llmproxyd.http.framing import Framing
from llmproxyd.http.sse import DONE, Event, EventReader
from llmproxyd.inspection.excerpt import Excerpt
from llmproxyd.inspection.findings import Findings, parsed
from llmproxyd.inspection.inflate import Inflater, inflater
from llmproxyd.model import Reading
from llmproxyd.providers.base import StreamForm, Usage

LIMIT = 1024 * 1024
"""Bytes that are kept of an answer in one piece, and of one event of a stream."""

INFLATED = 64
"""So many times the limit are inflated of one answer: nobody keeps us at work with a few bytes."""

_SLICE = 1024
"""Coded bytes that are inflated at once.  They may be a thousand times as many in the clear."""

_NO_USAGE = Usage(model=(), tokens={})


class UsageReader:
    """Reads one answer along.

    :param usage: where its dialect tells what; ``None`` where it tells nothing.
    :param form: of a stream, ``None`` for an answer in one piece.
    :param coding: the value of ``Content-Encoding``, empty for none; what cannot be read (br,
        zstd, several on top of each other) gives an empty reading.
    :param limit: bytes that are kept: of an answer in one piece (of a longer one both ends are
        looked at), or of one event.
    """

    __slots__ = ("_findings", "_inflater", "_reader", "_stream", "_told")

    def __init__(
        self, usage: Usage | None, form: StreamForm | None, coding: bytes, *, limit: int = LIMIT
    ) -> None:
        usage = usage or _NO_USAGE
        self._findings = Findings(usage)
        self._stream = None if form is None else _Stream(usage, form, limit, self._findings)
        self._reader: _Stream | Excerpt | None = self._stream or Excerpt(usage.names, limit, self._findings)
        self._inflater: Inflater | None = None
        self._told = False
        if coding:
            codings = [one for one in coding.split(b",") if one.strip().lower() not in (b"", b"identity")]
            if codings:
                self._inflater = inflater(codings[0], INFLATED * limit) if len(codings) == 1 else None
                if self._inflater is None:
                    self._reader = None

    @property
    def began(self) -> bool:
        """Whether a stream's first content came; ``False`` for an answer in one piece."""
        return self._stream is not None and self._stream.began

    @property
    def cost(self) -> float | None:
        """What the answer cost by the provider's own account, in its currency."""
        return self._findings.cost

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        reader, source = self._reader, self._inflater
        if reader is None:
            return
        if source is None:
            reader.feed(data)
            return
        for start in range(0, len(data), _SLICE):
            clear = source.feed(data[start : start + _SLICE])
            if clear:
                reader.feed(clear)

    def reading(self, complete: bool) -> Reading:
        """What was told; to be asked once, when the body is over.

        :param complete: it ended as it should.
        """
        if self._reader is not None and not self._told:
            self._told = True
            self._reader.end(complete)
        return self._findings.reading(self._stream is not None and self._stream.failed)


_MODEL_EVENTS = 16
"""Events in which the model is looked for; servers that tell it tell it at once."""

_GAPS: dict[Framing, tuple[bytes, ...]] = {
    Framing.SSE: (b"\n\n", b"\r\n\r\n"),
    Framing.NDJSON: (b"\n",),
}
"""What a piece ends with that ends with an event, where that is known without reading it."""


class _Stream:
    """Reads the events of a stream.

    :ivar began: the first content came.
    :ivar failed: an event was an error.
    """

    __slots__ = ("_aligned", "_findings", "_form", "_gaps", "_left", "_reader", "_usage", "began", "failed")

    def __init__(self, usage: Usage, form: StreamForm, limit: int, findings: Findings) -> None:
        self._usage = usage
        self._form = form
        self._findings = findings
        self._reader = EventReader(form.framing, limit)
        self._gaps = _GAPS.get(form.framing)
        self._aligned = True  # the last piece ended with an event
        self._left = _MODEL_EVENTS if usage.model else 0
        self.began = False
        self.failed = False

    def feed(self, data: bytes) -> None:
        """The next piece, in the clear."""
        gaps = self._gaps
        if gaps is not None:
            before, self._aligned = self._aligned, data.endswith(gaps)
            if before and self._aligned and self.began and not self._left and not self._matters(data):
                return
        for event in self._reader.feed(data):
            self._event(event)
        if not self.began and self._reader.overflowed:
            self.began = True  # what is as long as that is content

    def end(self, complete: bool) -> None:
        """There is no more: errors are often left without the end of their event."""
        for event in self._reader.end():
            self._event(event)

    def _matters(self, data: bytes) -> bool:
        """Whether *data* may hold a count, a finish reason or an error."""
        return b"rror" in data or b"fail" in data or self._usage.telling.search(data) is not None

    def _event(self, event: Event) -> None:
        name, data = event
        if data == DONE:
            return
        if self.began and not self._left and not self._matters(data) and not _is_trouble(name):
            return
        value = parsed(data)
        if isinstance(value, (dict, list)):
            # Where an event is an array (Gemini's errors may be), each of its objects is one.
            for item in value if isinstance(value, list) else (value,):
                if isinstance(item, dict):
                    self._object(name, item)
        elif self._form.failure(name, {}) is not None:
            self.failed = True
        elif data.strip():
            self.began = True
        if self._left:
            self._left = 0 if self._findings.model is not None else self._left - 1

    def _object(self, name: str, value: dict[str, object]) -> None:
        if self._form.failure(name, value) is not None:
            self.failed = True
        elif not self.began and self._form.content(name, value):
            self.began = True
        self._findings.look(value)


def _is_trouble(name: str) -> bool:
    """Whether the name of an event says that it is an error."""
    return bool(name) and ("error" in name or name.startswith("exception"))

"""What reads an answer along, on a copy of what passes: its usage, and what events are to carry."""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.http.body import Kept
from llmproxyd.inspection.glance import glance
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.model import Body, Captured, End, Reading
from llmproxyd.pipeline.keep import Keep
from llmproxyd.providers.base import StreamForm, Usage

READ = 1024 * 1024
"""Bytes of an answer in one piece that are read for its usage at most."""


def read_whole(usage: Usage, data: bytes, *, complete: bool) -> Reading:
    """What the answer *data*, in one piece and uncoded, tells of itself.

    :param complete: there is no more of it.
    """
    reading = glance(usage, data) if complete else None
    if reading is None:
        reader = UsageReader(usage, None, b"", limit=READ)
        reader.feed(data)
        reading = reader.reading(complete)
    return reading


class UsageTap:
    """Reads the usage of one answer, and keeps as much of both bodies as events are to carry.

    :param capture: bytes of the bodies of request and answer.
    :param now: monotonic seconds.
    :param secrets: credentials that the client presented, and its project's once that is known.
    :ivar first: when the first content of a stream came.
    :ivar reading: what the answer told of itself, once it is over.
    """

    __slots__ = (
        "_body",
        "_capture",
        "_keep",
        "_now",
        "_reader",
        "_usage",
        "_whole",
        "first",
        "reading",
        "secrets",
    )

    def __init__(
        self, now: Callable[[], float], capture: tuple[int, int] = (0, 0), secrets: tuple[str, ...] = ()
    ) -> None:
        self._now = now
        self._capture = capture
        self._reader: UsageReader | None = None
        # Of an answer in one piece nothing is read as long as there is one piece of it.
        self._usage: Usage | None = None
        self._whole: bytes | None = None
        self._body: Body | None = None
        self._keep: Keep | None = None
        self.secrets = secrets
        self.first: float | None = None
        self.reading: Reading | None = None

    def request(self, kept: Kept) -> None:
        """The body of the request, which is at hand."""
        limit = self._capture[0]
        if limit:
            self._body = Body(data=kept.read(limit), cut=kept.length > limit, length=kept.length)

    def head(self, usage: Usage | None, form: StreamForm | None, coding: bytes) -> None:
        """The answer begins.

        :param usage: where it tells what was used; ``None`` where it tells nothing.
        :param form: of a stream, ``None`` for an answer in one piece.
        """
        if self._capture[1]:
            self._keep = Keep(self._capture[1])
        if usage is None:
            return
        if form is None and not coding:
            self._usage = usage
        else:
            self._reader = UsageReader(usage, form, coding, limit=READ)

    def piece(self, data: bytes) -> None:
        """A piece of the body."""
        if self._keep is not None:
            self._keep.add(data)
        if self._usage is not None:
            if self._whole is None:
                self._whole = data
                return
            self._reader = UsageReader(self._usage, None, b"", limit=READ)
            self._reader.feed(self._whole)
            self._usage = self._whole = None
        reader = self._reader
        if reader is not None:
            reader.feed(data)
            if self.first is None and reader.began:
                self.first = self._now()

    def ended(self, end: End) -> None:
        """There is no more of it."""
        complete = end is End.COMPLETE
        if self._usage is not None:
            self.reading = read_whole(self._usage, self._whole or b"", complete=complete)
        elif self._reader is not None:
            self.reading = self._reader.reading(complete)
        self._reader = self._usage = self._whole = None

    @property
    def captured(self) -> Captured | None:
        """What events are to carry."""
        if self._body is None and self._keep is None:
            return None
        kept = None if self._keep is None else self._keep.body()
        return Captured(request=self._body, response=kept, secrets=self.secrets)

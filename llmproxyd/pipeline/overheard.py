"""What a client was sent, as far as it matters for what the client does next."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.interfaces import IPushProducer

from llmproxyd.http.headers import content_of
from llmproxyd.inspection.content import StreamWatch, Trouble
from llmproxyd.inspection.inflate import Inflater, inflater
from llmproxyd.model import Response
from llmproxyd.pipeline.commit import form_of
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.roles import Responder
from llmproxyd.providers.base import StreamForm
from llmproxyd.verdicts.failure import Sent

READ = 16 * 1024
"""Bytes of an error that are read."""

_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")


class Overheard:
    """Stands before a responder and reads along.

    It is the last before the client, so that it sees what faults have made of an answer.

    :param now: monotonic seconds.
    :ivar sent: what the client was sent so far.
    :ivar finished: it ended cleanly, on the face of it.
    :ivar began: when its head was sent; ``None`` before.
    """

    def __init__(self, exchange: Exchange, responder: Responder, now: Callable[[], float]) -> None:
        self._exchange = exchange
        self._responder = responder
        self._now = now
        self._watch: StreamWatch | None = None
        self._form: StreamForm | None = None
        self._inflater: Inflater | None = None
        self._tail = b""
        self.sent = Sent()
        self.began: float | None = None
        self.finished = False

    @property
    def chunked(self) -> bool:
        """See :class:`~llmproxyd.pipeline.roles.Responder`, as with all that follows."""
        return self._responder.chunked

    def start(self, response: Response) -> None:
        """The head is sent."""
        sent = self.sent
        sent.status, sent.headers = response.status, list(response.headers)
        self.began = self._now()
        media, coding = content_of(sent.headers)
        self._inflater = inflater(coding)
        if response.status < 400:
            form = self._form = form_of(self._exchange, media)
            if form is not None:
                self._watch = StreamWatch(form, inflater(coding))
        self._responder.start(response)

    def inform(self, response: Response) -> None:
        """An interim answer is sent."""
        self._responder.inform(response)

    def write(self, data: bytes, *, last: bool = False) -> None:
        """A piece of the body is sent."""
        self._read(data)
        self._responder.write(data, last=last)

    def flush(self) -> None:
        """What waits is sent."""
        self._responder.flush()

    def finish(self) -> None:
        """It is over."""
        self.finished = True
        self._over()
        self._responder.finish()

    def cut(self) -> None:
        """It breaks off."""
        self._over()
        self._responder.cut()

    def reset(self) -> None:
        """It breaks off, by a reset."""
        self._over()
        self._responder.reset()

    def hang_up(self) -> None:
        """There is none."""
        self._responder.hang_up()

    def feed_from(self, producer: IPushProducer) -> None:
        """The client's pace binds *producer*."""
        self._responder.feed_from(producer)

    def fed(self) -> None:
        """There is no more producer."""
        self._responder.fed()

    def _read(self, data: bytes) -> None:
        sent, watch = self.sent, self._watch
        if watch is not None:
            self._tail = (self._tail + data)[-64:]
            # Line by line: of several events in one piece only the first sign would be told.
            for line in _LINE.findall(data):
                self._sign(watch.feed(line))
        elif sent.status >= 400:
            if self._inflater is not None and len(sent.body) < READ:
                sent.body = (sent.body + self._inflater.feed(data))[:READ]
        elif data:
            sent.said = True

    def _over(self) -> None:
        watch = self._watch
        if watch is None:
            return
        self._sign(watch.end())
        if not watch.blind:
            self.sent.complete = watch.finished
        self._watch = None

    def _sign(self, sign: object) -> None:
        if isinstance(sign, Trouble):
            if self.sent.trouble is None:
                self.sent.trouble = sign.value
        elif sign is not None:
            self.sent.said = True

    @property
    def closed(self) -> bool:
        """Whether the stream ended with the bytes that close one, where its form has such."""
        form = self._form
        if form is None or form.terminator is None:
            return bool(self.sent.complete)
        return self._tail.rstrip().endswith(form.terminator.strip())

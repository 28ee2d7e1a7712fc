"""Events in a Redis stream: one entry each, the oldest go when it is full.

An entry has two fields: ``id``, by which one that was written twice is known (the answer to the
first attempt was lost), and ``event``, the JSON object.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from llmproxyd.observe.dispatch.destination import Undelivered
from llmproxyd.observe.eventjson import EventFormat, Told
from llmproxyd.observe.worker import Work
from llmproxyd.redis.interface import Redis, RedisRefused

ENTRY = 1024
"""Bytes that an entry counts for."""

BATCH_BYTES = 128 * 1024
"""Bytes of one batch: it is to be answered in the time that any call has."""

ADD = """\
for place = 2, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'id', ARGV[place], 'event', ARGV[place + 1])
end
return (#ARGV - 1) / 2
"""
"""A whole batch in one round trip, in order, all of it or nothing."""


class RedisDestination:
    """Adds to *stream*.

    :param max_bytes: of the stream, about: entries of :data:`ENTRY` bytes.
    """

    def __init__(self, redis: Redis, stream: str, max_bytes: int, form: EventFormat, work: Work) -> None:
        self.name = f"redis stream {stream}"
        self._redis = redis
        self._stream = stream.encode()
        self._length = max(max_bytes // ENTRY, 1)
        self._form = form
        self._work = work

    def deliver(self, batch: Sequence[Told]) -> Deferred[None]:
        """Add *batch*."""
        rendering = self._work.do(lambda: [self._form.text(told) for told in batch])
        return rendering.addCallback(self._add, batch)

    def _add(self, texts: list[str], batch: Sequence[Told]) -> Deferred[None]:
        arguments: list[bytes | int | str] = [self._length]
        for told, text in zip(batch, texts, strict=True):
            arguments += (told.id, text.encode("utf-8", "backslashreplace"))
        adding = self._redis.script(ADD, [self._stream], arguments)
        return adding.addCallbacks(lambda _: None, _explained)

    def close(self) -> Deferred[None]:
        """End the thread; the connections are others' too."""
        self._work.close()
        return succeed(None)


def _explained(failure: Failure) -> None:
    if not failure.check(RedisRefused):
        raise Undelivered("the server does not answer")
    # Its first word tells what is wrong (WRONGTYPE, OOM, NOPERM); the rest may hold what was sent.
    word = str(failure.value).partition(" ")[0]
    known = word.isalpha() and word.isupper() and len(word) <= 32
    raise Undelivered(f"the server refuses: {word if known else 'an error'}")

"""Whether a stream whose end was not awaited had said all that it had to say."""

from __future__ import annotations

from collections.abc import Iterable

from llmproxyd.http.headers import content_of
from llmproxyd.inspection.content import StreamWatch
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import RawHeaders
from llmproxyd.providers.base import Endpoint

CLEAR = 64 * 1024 * 1024
"""Bytes in the clear that are read."""


def said_all(endpoint: Endpoint | None, fields: RawHeaders, pieces: Iterable[bytes]) -> bool:
    """Whether *pieces* hold a stream up to the word or the event that closes it.

    Clients leave there, and do not wait for the end of the body.
    """
    media, coding = content_of(fields)
    form = None if endpoint is None else endpoint.form_of(media)
    source = inflater(coding, CLEAR)
    if form is None or source is None:
        return False
    clear = b"".join(map(source.feed, pieces))
    if form.terminator is not None:
        return clear.rstrip().endswith(form.terminator.strip())
    watch = StreamWatch(form, inflater(b""))
    watch.feed(clear)
    return watch.finished

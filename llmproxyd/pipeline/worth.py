"""Whether a whole answer is one: what hides an error under a status of success is not kept."""

from __future__ import annotations

from llmproxyd.cache.interface import Entry
from llmproxyd.http.headers import content_of
from llmproxyd.inspection.content import look
from llmproxyd.inspection.inflate import inflated, inflater
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.relay import form_of
from llmproxyd.providers.base import EndpointKind


def worth_keeping(exchange: Exchange, entry: Entry) -> bool:
    """Whether *entry*, the whole answer to *exchange*, tells of no error.

    Only answers of inference are looked at: elsewhere an error may be what was asked for.  A
    stream in a coding that cannot be read here is not kept, as it may end with one.
    """
    route = exchange.route
    if route is None or route.kind is not EndpointKind.INFERENCE:
        return True
    if entry.status >= 300 or entry.method == b"HEAD" or not entry.body:
        return True
    media, coding = content_of(entry.headers)
    form = form_of(exchange, media)
    if form is not None:
        if coding and inflater(coding) is None:
            return False
        reader = UsageReader(None, form, coding)
        reader.feed(entry.body)
        return not reader.reading(True).failed
    if not coding and b'"error"' not in entry.body:
        return True
    body = inflated(entry.body, coding)
    return body is None or look(body, media).trouble is None

"""The commit: the upstream's head goes to the client, and nothing is retried after it.

What belongs to the upstream's connection stays here, ours is added, and it is seen to that those read
the answer along who have to.  The body follows (:mod:`~llmproxyd.pipeline.relay`), or is here already.
"""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.http.headers import content_of, relayed
from llmproxyd.inspection.answerid import answer_id
from llmproxyd.model import RawHeaders, Response
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.marks import marks_of, readable_by_pages
from llmproxyd.pipeline.taps import UsageTap
from llmproxyd.providers.base import StreamForm
from llmproxyd.wire.fields import with_block


def commit(
    exchange: Exchange,
    response: Response,
    seconds: Callable[[], float],
    more: RawHeaders = (),
    *,
    body: bytes | None = None,
    plain: bool = False,
) -> tuple[StreamForm | None, bytes]:
    """Send the head of the upstream's answer to the client.

    :param seconds: monotonic.
    :param more: fields of ours, in place of the upstream's of the same names (lower case).
    :param body: all of it, where it is here.
    :param plain: it is known to be no stream, and uncoded.
    :returns: the form of a stream, and the coding of the body.  The exchange may be over: what was
        fetched for others, who have nothing of it, goes no further.
    """
    headers = response.headers
    if plain:
        stream, coding = None, b""
    else:
        media, coding = content_of(headers)
        stream = form_of(exchange, media)
    if exchange.instead is not None:
        exchange.instead.relaying(response)
        if exchange.done:
            return stream, coding
    exchange.upstream_id = answer_id(headers)
    exchange.streamed = stream is not None
    # Nothing is said of a length where none is: HEAD may be answered without it.
    bodiless = exchange.request.method == b"HEAD" or response.status in (204, 304)
    length = None if bodiless else response.length
    fields = relayed(headers)
    if response.status == 204:
        # It could only be wrong (RFC 9110 §8.6), and would be misread by some.
        fields = [pair for pair in fields if pair[0].lower() != b"content-length"]
    if more:
        ours = {name for name, _ in more}
        fields = [pair for pair in fields if pair[0].lower() not in ours] + list(more)
    now = seconds()
    if exchange.cors:
        fields = readable_by_pages(fields, exchange.cors)
    if exchange.policy.marks:
        fields = with_block(fields, marks_of(exchange, headers, now))
    tap, plan = exchange.usage, exchange.plan
    usage = None if plan is None or response.status >= 400 else plan.usage
    if tap is None and usage is not None:
        if body is not None and stream is None and not coding:
            exchange.unread = usage, body
        else:
            tap = exchange.usage = UsageTap(seconds)
            exchange.taps = [tap, *(exchange.taps or ())]
    if tap is not None:
        tap.head(usage, stream, coding)
    exchange.start(
        Response(response.status, response.reason, fields, length, response.version, told=True), now
    )
    return stream, coding


def pass_whole(
    exchange: Exchange,
    response: Response,
    body: bytes,
    seconds: Callable[[], float],
    *,
    plain: bool = False,
) -> None:
    """Send an answer all of which is here.

    :param seconds: monotonic.
    :param plain: it is known to be no stream, and uncoded.
    """
    commit(exchange, response, seconds, body=body, plain=plain)
    if exchange.done:
        return
    if body:
        exchange.write(body, last=True)
    exchange.finish(seconds())


def form_of(exchange: Exchange, media: bytes) -> StreamForm | None:
    """The form of an answer of this ``Content-Type``, if it is a stream."""
    plan = exchange.plan
    route = None if plan is None else plan.route
    endpoint = None if route is None else route.endpoint
    return endpoint.form_of(media) if endpoint is not None and endpoint.forms else None

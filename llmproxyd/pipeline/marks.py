"""Fields of ours on answers that are passed through, where access or the cache is on.

What the upstream says stands as it is; ours stand beside it under names of our own, or under the
usual ones where the upstream uses none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmproxyd.http.headers import first
from llmproxyd.limits.interface import Standing
from llmproxyd.model import RawHeaders
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.wire.fields import fields_of

REQUEST_ID = b"x-request-id"
OUR_REQUEST_ID = b"x-llmproxyd-request-id"


def marks_of(exchange: Exchange, headers: RawHeaders, now: float) -> list[tuple[bytes, bytes]]:
    """What is added to an answer with *headers*, the upstream's own.

    The request id is the upstream's or the client's where there is one, else ours.

    :param now: monotonic seconds.
    """
    ours = exchange.request_id.encode()
    if _named(headers):
        marks = [(OUR_REQUEST_ID, ours)]
    else:
        theirs = first(exchange.request.headers, REQUEST_ID)
        marks = [(b"X-Request-ID", ours if theirs is None else theirs)]
        if theirs is not None:
            marks.append((OUR_REQUEST_ID, ours))
    if exchange.asked:
        marks.append((b"X-Upstream-Response-Time", b"%d" % round((now - exchange.asked) * 1000)))
    marks += exchange.cache_notes
    if exchange.standings:
        marks += limit_marks(exchange.standings)
    return marks


def _named(headers: RawHeaders) -> bool:
    """Whether the upstream has given it an id in the usual field."""
    return any(name.lower() == REQUEST_ID for name, _ in fields_of(headers).ids)


def limit_marks(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    """How limits stand, in fields that no provider uses; of several of a kind the one with least left."""
    marks = []
    for kind, standing in tightest(standings).items():
        name = kind.encode()
        marks += [
            (b"x-llmproxyd-ratelimit-limit-" + name, b"%d" % standing.want.per_minute),
            (b"x-llmproxyd-ratelimit-remaining-" + name, b"%d" % standing.remaining),
            (b"x-llmproxyd-ratelimit-reset-" + name, b"%.3f" % standing.reset),
        ]
    return marks


def tightest(standings: Sequence[Standing]) -> dict[str, Standing]:
    """Of each kind (``requests``, ``tokens``) the standing with least left."""
    found: dict[str, Standing] = {}
    for standing in standings:
        kind = standing.want.key.rpartition(":")[2]
        known = found.get(kind)
        if known is None or standing.remaining < known.remaining:
            found[kind] = standing
    return found


def readable_by_pages(headers: RawHeaders, cors: RawHeaders) -> list[tuple[bytes, bytes]]:
    """*headers* with those that let a web page read the answer, in place of the upstream's own."""
    ours = {name for name, _ in cors} - {b"vary"}
    return [*(pair for pair in headers if pair[0].lower() not in ours), *cors]

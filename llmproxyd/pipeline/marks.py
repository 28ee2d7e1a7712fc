"""Fields of ours on answers that are passed through, where access or the cache is on.

What the upstream says stands as it is; ours stand beside it under names of our own, or under the
usual ones where the upstream uses none of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmproxyd.limits.interface import Standing
from llmproxyd.model import RawHeaders
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import REQUEST_ID
from llmproxyd.wire.fields import fields_of

NOTES = b"\r\nCache-Status: %b\r\nX-Cache-Status: %b\r\nX-Cache-Debug: %b"
"""What is told of the cache: see :data:`~llmproxyd.pipeline.exchange.Notes`."""

LIMIT = (
    b"\r\nx-llmproxyd-ratelimit-limit-%b: %d"
    b"\r\nx-llmproxyd-ratelimit-remaining-%b: %d"
    b"\r\nx-llmproxyd-ratelimit-reset-%b: %.3f"
)


def marks_of(exchange: Exchange, headers: RawHeaders, now: float) -> bytes:
    """What is added to an answer with *headers*, the upstream's own: a block, as :class:`Lines` have it.

    The request id is the upstream's or the client's where there is one, else ours.

    :param now: monotonic seconds.
    """
    marks = id_marks(exchange, named=is_named(headers))
    if exchange.asked:
        marks += b"\r\nX-Upstream-Response-Time: %d" % round((now - exchange.asked) * 1000)
    if exchange.cache_notes is not None:
        marks += NOTES % exchange.cache_notes
    if exchange.standings:
        marks += limit_marks(exchange.standings)
    return marks


def id_marks(exchange: Exchange, *, named: bool) -> bytes:
    """The id of the request.

    :param named: the upstream has given it one in the usual field.
    """
    ours = exchange.request_id.encode()
    if named:
        return b"\r\nx-llmproxyd-request-id: " + ours
    plan = exchange.plan
    theirs = None if plan is None else plan.called
    if theirs is None:
        return b"\r\nX-Request-ID: " + ours
    return b"\r\nX-Request-ID: %b\r\nx-llmproxyd-request-id: %b" % (theirs, ours)


def is_named(headers: RawHeaders) -> bool:
    """Whether the upstream has given its answer an id in the usual field."""
    for name, _ in fields_of(headers).ids:  # noqa: SIM110 - a generator costs as much again
        if name.lower() == REQUEST_ID:
            return True
    return False


def limit_marks(standings: Sequence[Standing]) -> bytes:
    """How limits stand, in fields that no provider uses; of several of a kind the one with least left."""
    marks = b""
    for kind, standing in tightest(standings).items():
        name = kind.encode()
        told = name, standing.want.per_minute, name, standing.remaining, name, standing.reset
        marks += LIMIT % told
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

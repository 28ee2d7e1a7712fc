"""Rehearsed rate limits on real traffic: who has to wait, and what every answer tells of it.

The arithmetic is in :mod:`llmproxyd.faults.limits`.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

from llmproxyd.access.presented import credentials_of
from llmproxyd.faults.choose import Chosen, Engine
from llmproxyd.faults.limitreply import render_limit
from llmproxyd.faults.limits import Refusal, Ticket
from llmproxyd.faults.rules import Always, Rule
from llmproxyd.http.headers import content_of
from llmproxyd.inspection.spoken import Spoken
from llmproxyd.inspection.usage import UsageReader
from llmproxyd.model import End, Response, WallClock
from llmproxyd.pipeline import answer
from llmproxyd.pipeline.commit import form_of
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.playback import subject_of
from llmproxyd.pipeline.taps import READ
from llmproxyd.providers.base import EndpointKind, ErrorKind

CHARACTERS = 4
"""For a token, where nobody tells how many there were."""

_FAMILY = b"ratelimit-"


def check(exchange: Exchange, engine: Engine, wall: WallClock, now: float) -> bool:
    """Have the limits say whether *exchange* may go on; what it was charged is put right at its end.

    :param now: monotonic seconds.
    :return: it may not, and was answered so.
    """
    route = exchange.route
    if not engine.limits.working or route is None or route.kind is not EndpointKind.INFERENCE:
        return False
    estimate = -(-(exchange.body.length or 0) // CHARACTERS)
    ticket = engine.limited(subject_of(exchange, route.upstream.name), _key_of(exchange), estimate)
    if ticket is None:
        return False
    charge = exchange.charge = Charge(exchange, ticket, estimate, wall)
    if ticket.refusal is not None:
        _refuse(exchange, ticket.refusal, wall(), now)
        return True
    if ticket.counts_tokens:
        exchange.taps = [*(exchange.taps or ()), charge]
    return False


class Charge:
    """What one request was charged: told with the head of its answer, put right at its end.

    :param estimate: of the tokens of its question.
    """

    __slots__ = ("_dialect", "_endpoint", "_estimate", "_exchange", "_reader", "_spoken", "_ticket", "_wall")

    def __init__(self, exchange: Exchange, ticket: Ticket, estimate: int, wall: WallClock) -> None:
        self._exchange: Exchange | None = exchange
        self._ticket = ticket
        self._estimate = estimate
        self._wall = wall
        self._reader: UsageReader | None = None
        self._spoken: Spoken | None = None

    def amended(self, head: Response) -> Response:
        """*head* with the fields in which its provider tells of its limits, ours for the upstream's.

        What the proxy says for itself is left alone, and so is an upstream that is over a limit of its
        own.
        """
        exchange, ticket = self._exchange, self._ticket
        if exchange is None or exchange.code is not None or (head.status == 429 and ticket.refusal is None):
            return head
        if ticket.counts_tokens and head.status < 400:
            self._listen(exchange, head)
        fields = exchange.dialect.dialect.limits(ticket.meters(), self._wall())
        if not fields:
            return head
        family = fields[0][0].partition(_FAMILY)[0] + _FAMILY
        others = [pair for pair in head.headers if not pair[0].lower().startswith(family)]
        return replace(head, headers=[*others, *fields])

    def _listen(self, exchange: Exchange, head: Response) -> None:
        """Read along what the answer tells of its tokens, and how much it says."""
        endpoint = None if exchange.route is None else exchange.route.endpoint
        media, coding = content_of(head.headers)
        form = form_of(exchange, media)
        self._reader = UsageReader(None if endpoint is None else endpoint.usage, form, coding, limit=READ)
        self._spoken = Spoken(form, coding)

    def piece(self, data: bytes) -> None:
        """A piece of the body."""
        if self._reader is not None and self._spoken is not None:
            self._reader.feed(data)
            self._spoken.feed(data)

    def ended(self, end: End) -> None:
        """It is over: charge what was used."""
        reader, spoken = self._reader, self._spoken
        self._exchange = self._reader = self._spoken = None
        if reader is None or spoken is None:
            self._ticket.settle(0)
            return
        tokens = reader.reading(end is End.COMPLETE).tokens or {}
        told = tokens.get("total") or tokens.get("input", 0) + tokens.get("output", 0)
        self._ticket.settle(told or self._estimate + -(-spoken.characters // CHARACTERS))


def _refuse(exchange: Exchange, refusal: Refusal, wall: float, now: float) -> None:
    """Answer as the provider does over its limit."""
    kind = ErrorKind.RATE_LIMIT
    rule = Rule(name=refusal.limit.name, kind=kind, when=Always(), retry_after=refusal.wait)
    context = exchange.error_context(wall, kind, refusal.wait)
    reply = render_limit(exchange.dialect, context, refusal)
    answer.inject_reply(exchange, Chosen(rule, 1), reply, wall, now)


def _key_of(exchange: Exchange) -> str:
    """Who asks: the token of ours, or a hash of the credentials that were presented."""
    if exchange.grant is not None:
        return exchange.grant.grant.token.id
    presented = "\n".join(credentials_of(exchange.request))
    return blake2b(presented.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()

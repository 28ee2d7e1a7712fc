"""What is told of each attempt: to the error log, and to the record of its request."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxyd.model import AttemptMade, ErrorNoted, Response
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate
from llmproxyd.pipeline.judge import Setback
from llmproxyd.pipeline.means import Means
from llmproxyd.pipeline.record import Record, context_of, secrets_of


class Notes:
    """Notes on the attempts of one exchange; nothing is done where nobody wants them."""

    __slots__ = (
        "_began",
        "_emit",
        "_exchange",
        "_now",
        "_number",
        "_started",
        "_under_way",
        "_upstream",
        "_url",
        "_wall",
    )

    def __init__(self, exchange: Exchange, means: Means) -> None:
        self._exchange = exchange
        self._wall = means.wall
        self._now = means.wheel.seconds
        self._emit = means.emit
        self._number = 0
        self._under_way = False
        self._started = 0.0
        self._began = 0.0
        self._upstream = "-"
        self._url = b""

    def begun(self, number: int, upstream: str, url: bytes) -> None:
        """An attempt goes out."""
        self._number, self._upstream, self._url = number, upstream, url
        self._under_way = True
        self._started, self._began = self._wall(), self._now()

    def answered(self, head: Response) -> None:
        """Its answer goes to the client."""
        record = self._exchange.record
        if isinstance(record, Record):
            self._under_way = False
            record.attempt(self._made(head.status, None, None, None, None))

    def failed(
        self,
        setback: Setback,
        gate: Gate | None,
        reason: str,
        delay: float | None,
        breaker: Mapping[str, object] | None,
    ) -> None:
        """It failed.

        :param reason: why it is made again, or is not.
        :param delay: seconds until it is, ``None`` if it is not.
        """
        exchange = self._exchange
        record = exchange.record
        if not isinstance(record, Record):
            return
        handed_on = delay is None and setback.error is None and setback.stop is None
        # A failed answer that is handed on is noted when it goes; and time may run out between two.
        if self._under_way and not handed_on:
            self._under_way = False
            record.attempt(self._made(None, setback, gate, reason, delay))
        if delay is None:
            record.noted()
        if not exchange.policy.record_errors:
            return
        self._emit(
            ErrorNoted(
                code=setback.code,
                error_type="HTTPResponse" if setback.error is None else "UpstreamError",
                message=setback.message,
                wall=self._wall(),
                request_id=exchange.request_id,
                status=None if gate is None else gate.head.status,
                url=self._url.decode("latin-1"),
                headers=() if gate is None else gate.head.headers,
                body=None if gate is None else gate.excerpt(),
                context={**context_of(exchange), "decision": reason},
                request_headers=exchange.request.headers,
                attempt=self._number,
                delay=delay,
                final=delay is None,
                breaker=breaker,
                elapsed=self._now() - exchange.arrived,
                secrets=secrets_of(exchange),
            )
        )

    def _made(
        self,
        status: int | None,
        setback: Setback | None,
        gate: Gate | None,
        reason: str | None,
        delay: float | None,
    ) -> AttemptMade:
        return AttemptMade(
            number=self._number,
            upstream=self._upstream,
            url=self._url.decode("latin-1"),
            started=self._started,
            duration=self._now() - self._began,
            status=status if gate is None else gate.head.status,
            code=None if setback is None else setback.code,
            message=None if setback is None else f"{setback.message} ({reason})",
            headers=() if gate is None else gate.head.headers,
            body=None if gate is None else gate.excerpt(),
            delay=delay,
        )

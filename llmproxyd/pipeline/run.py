"""The way of one request, read from top to bottom.

route → guard → inject? → upstream → relay → one ``Finished`` event

Each step is a call into a module that knows nothing of the others.  The first attempt runs
on callbacks; nothing here waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from llmproxyd.errors import ClientGone, ProxyError, Refused
from llmproxyd.faults.choose import Chosen, Engine
from llmproxyd.faults.language import LanguageError, parse_field
from llmproxyd.faults.rules import Subject
from llmproxyd.http.body import BodySource
from llmproxyd.http.headers import first
from llmproxyd.inspection.request import END, WHOLE, asked
from llmproxyd.model import Arrived, End, Event, Finished, Request, Response, WallClock
from llmproxyd.pipeline import answer
from llmproxyd.pipeline.exchange import Exchange, Responder
from llmproxyd.pipeline.guard import check_browser
from llmproxyd.pipeline.policy import Policy
from llmproxyd.pipeline.relay import Relay
from llmproxyd.pipeline.route import Route
from llmproxyd.pipeline.upstream import Sender
from llmproxyd.providers.base import EndpointKind, Streams
from llmproxyd.wire.agent import abort

FAULT_FIELD = b"x-llmproxyd-fault"

TARGET = re.compile(rb"/[\x21-\x7e]*")
"""Origin form, RFC 9112 §3.2.1, in the characters that a URI may have."""


class Pipeline:
    """Everything a request passes, from its head to its end.

    :param policy: read once per request; assign another one to reload.
    :param emit: takes events.
    :param prefix: makes request ids unique over restarts.
    """

    log = Logger()

    def __init__(
        self,
        *,
        policy: Policy,
        sender: Sender,
        engine: Engine,
        emit: Callable[[Event], None],
        clock: IReactorTime,
        wall: WallClock,
        prefix: str,
    ) -> None:
        self.policy = policy
        self.engine = engine
        self.active: set[Exchange] = set()
        self.handled = 0
        self._sender = sender
        self._emit = emit
        self._clock = clock
        self._wall = wall
        self._prefix = prefix
        self._idle: list[Deferred[None]] = []

    def forward(self, request: Request, body: BodySource, responder: Responder) -> Exchange:
        """Take *request* all its way; its end is told by the exchange's one final event."""
        exchange = self._begin(request, body, responder)
        try:
            self._route(exchange)
            self._check(exchange)
            looked = self._look(exchange)
            if looked is None:
                self._decided(exchange)
            else:
                exchange.work = looked.cancel
                looked.addCallback(lambda _: self._decided(exchange))
                looked.addErrback(self._failed, exchange)
        except Exception:
            self._failed(Failure(), exchange)
        return exchange

    def client_gone(self, exchange: Exchange) -> None:
        """The client of *exchange* has closed its connection."""
        exchange.client_gone(self._clock.seconds())

    def when_idle(self) -> Deferred[None]:
        """Fires when no request is under way."""
        waiting: Deferred[None] = Deferred()
        if self.active:
            self._idle.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def cut_all(self) -> None:
        """End every request now: those without an answer get a 503, others break off visibly."""
        error = Refused(503, "shutting_down", "The proxy is stopping.", ((b"retry-after", b"1"),))
        for exchange in list(self.active):
            if exchange.give_up is not None:
                exchange.give_up(error)
                continue
            work = exchange.work
            self._refuse(exchange, error)
            if work is not None:
                work()

    # The steps, in order.

    def _begin(self, request: Request, body: BodySource, responder: Responder) -> Exchange:
        self.handled += 1
        number = self.handled
        exchange = Exchange(
            number,
            f"{self._prefix}-{number:x}",
            request,
            body,
            responder,
            self.policy,
            self._clock.seconds(),
            self._finished,
        )
        self.active.add(exchange)
        return exchange

    def _route(self, exchange: Exchange) -> None:
        router, request = exchange.policy.router, exchange.request
        try:
            if not TARGET.fullmatch(request.target):
                raise Refused(
                    400,
                    "bad_target",
                    "The request target must begin with a slash and be percent-encoded.",
                )
            route = router.route(request)
        except Refused:
            exchange.dialect = router.dialect_of(request)
            self._arrived(exchange, "-")
            raise
        exchange.route, exchange.dialect = route, route.dialect
        self._arrived(exchange, route.upstream.name)

    def _check(self, exchange: Exchange) -> None:
        policy, route, length = exchange.policy, exchange.route, exchange.body.length
        assert route is not None
        if policy.guard_browsers:
            check_browser(exchange.request, route.upstream)
        if length is not None and length > policy.max_body:
            raise Refused(
                413,
                "body_too_large",
                f"The request's body has {length} bytes; {policy.max_body} are allowed (server.max_body).",
            )

    def _look(self, exchange: Exchange) -> Deferred[None] | None:
        """Learn what an active rule asks of the body; ``None`` when nothing need be read."""
        route = exchange.route
        assert route is not None
        if not self.engine.active or route.kind is not EndpointKind.INFERENCE:
            return None
        exchange.model, exchange.streaming = _told_by_path(route)
        if not self.engine.reads_body:
            return None

        def read(excerpt: bytes) -> None:
            told = asked(excerpt)
            if exchange.model is None:
                exchange.model = told.model
            if exchange.streaming is None:
                exchange.streaming = _streams(route, told.stream)

        return exchange.body.excerpt(WHOLE, END).addCallback(read)

    def _decided(self, exchange: Exchange) -> None:
        """Inject, or send on."""
        chosen = self._choose(exchange)
        if chosen is not None:
            answer.inject(exchange, chosen, self._wall(), self._clock.seconds())
            return
        route = exchange.route
        assert route is not None
        sending = self._sender.send(route.upstream, exchange.request, route.target, exchange.body.producer())
        exchange.work = sending.cancel
        sending.addCallback(self._answered, exchange)
        sending.addErrback(self._failed, exchange)

    def _choose(self, exchange: Exchange) -> Chosen | None:
        route, request, engine = exchange.route, exchange.request, self.engine
        assert route is not None
        if exchange.policy.fault_header and route.kind is EndpointKind.INFERENCE:
            text = first(request.headers, FAULT_FIELD)
            if text is not None:
                try:
                    return engine.spend(parse_field(text.decode("latin-1")))
                except LanguageError as error:
                    message = f"{FAULT_FIELD.decode()}: {error}"
                    raise Refused(
                        400, "bad_fault", message, detail=f"{FAULT_FIELD.decode()} is not understood"
                    ) from None
        if not engine.active:
            return None
        return engine.choose(
            Subject(
                route.kind,
                route.upstream.name,
                route.target.partition(b"?")[0].decode("latin-1"),
                exchange.model,
                exchange.streaming,
            )
        )

    def _answered(self, result: tuple[Response, IResponse], exchange: Exchange) -> None:
        response, incoming = result
        route = exchange.route
        assert route is not None
        exchange.work = None
        idle = route.upstream.timeouts.idle
        relay = Relay(exchange, response, self._clock, self._wall, idle)
        try:
            relay.begin(response)
        except Exception:
            abort(getattr(incoming, "original", incoming))
            raise
        incoming.deliverBody(relay)

    # How it can end.

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        if exchange.done:
            if not isinstance(failure.value, CancelledError | ClientGone | ProxyError):
                self.log.failure("request {id} failed after its end", failure, id=exchange.request_id)
        elif isinstance(failure.value, ProxyError) and not exchange.committed:
            self._refuse(exchange, failure.value)
        else:
            self._broken(exchange, failure)

    def _refuse(self, exchange: Exchange, error: ProxyError) -> None:
        answer.refuse(exchange, error, self._wall(), self._clock.seconds())

    def _broken(self, exchange: Exchange, failure: Failure) -> None:
        """A fault of our own: told to the log whole, to the client in a word."""
        self.log.failure("request {id} failed within the proxy", failure, id=exchange.request_id)
        error = Refused(500, "internal_error", "The proxy failed; its log has the details.")
        if not exchange.committed:
            try:
                if exchange.dialect is None:
                    exchange.dialect = exchange.policy.router.dialect_of(exchange.request)
                self._refuse(exchange, error)
                return
            except Exception:
                self.log.failure("request {id} could not even be refused", id=exchange.request_id)
        exchange.cut(End.TRUNCATED, error.code, error.message, self._clock.seconds())

    def _arrived(self, exchange: Exchange, upstream: str) -> None:
        assert exchange.dialect is not None
        self._emit(
            Arrived(
                exchange.number,
                exchange.request_id,
                exchange.request.method.decode("latin-1"),
                exchange.path,
                exchange.dialect.name,
                upstream,
            )
        )

    def _finished(self, exchange: Exchange, event: Finished) -> None:
        self.active.discard(exchange)
        self._emit(event)
        if not self.active:
            waiting, self._idle = self._idle, []
            for one in waiting:
                one.callback(None)


def _told_by_path(route: Route[Any]) -> tuple[str | None, bool | None]:
    """The model and the wish for a stream, as far as the path alone tells them."""
    endpoint = route.endpoint
    if endpoint is None:
        return None, None
    match = endpoint.pattern.search(route.target.partition(b"?")[0])
    model = match.groupdict().get("model") if match else None
    streaming = {Streams.ALWAYS: True, Streams.NEVER: False}.get(endpoint.streams)
    return (None if model is None else model.decode("latin-1")), streaming


def _streams(route: Route[Any], stream: bool | None) -> bool:
    if route.endpoint is not None and route.endpoint.streams is Streams.BODY_UNLESS_FALSE:
        return stream is not False
    return bool(stream)

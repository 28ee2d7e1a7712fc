"""The way of one request, read from top to bottom.

route → guard → door? → allowlists? → inject? → cache? → transform → attempts → upstream → relay →
one ``Finished`` event

Each step is a call into a module that knows nothing of the others.  Where an upstream's policy
absorbs nothing, the one attempt is made right here; otherwise
:class:`~llmproxyd.pipeline.attempts.Attempts` make them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer

from llmproxyd.cache.interface import Cache, Entry
from llmproxyd.errors import ClientGone, ProxyError, Refused, UpstreamError
from llmproxyd.faults.choose import Chosen, Engine
from llmproxyd.faults.language import LanguageError, parse_field
from llmproxyd.faults.rules import Rule
from llmproxyd.http.body import NO_BODY, BodySource, Kept
from llmproxyd.http.headers import first
from llmproxyd.inspection.request import END, WHOLE, asked
from llmproxyd.model import Arrived, End, Event, Finished, Request, WallClock
from llmproxyd.pipeline import answer, limited, refusals, staged
from llmproxyd.pipeline.attempts import Attempts
from llmproxyd.pipeline.caching import Turn, look_up
from llmproxyd.pipeline.commit import pass_whole
from llmproxyd.pipeline.door import Entrance, body_check, may_ask_for_faults
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.means import Means
from llmproxyd.pipeline.plan import FAULT_FIELD, Caching, Plan, no_plan, plan_of
from llmproxyd.pipeline.playback import Rehearsal, subject_of
from llmproxyd.pipeline.policy import Policy, Upstream
from llmproxyd.pipeline.record import Record, broken, secrets_of
from llmproxyd.pipeline.relay import Relay
from llmproxyd.pipeline.roles import NOBODY, Responder
from llmproxyd.pipeline.route import Route
from llmproxyd.pipeline.sends import Sends
from llmproxyd.pipeline.serving import NO_TURN
from llmproxyd.pipeline.shelf import Shelf
from llmproxyd.pipeline.stage import play
from llmproxyd.pipeline.taps import UsageTap
from llmproxyd.pipeline.target import transformed
from llmproxyd.pipeline.upstream import body_too_large, explain, head_of
from llmproxyd.pipeline.watching import Watcher
from llmproxyd.providers.base import EndpointKind, Streams
from llmproxyd.wire.agent import WireResponse, abort
from llmproxyd.wire.body import BodyTooLarge
from llmproxyd.wire.head import BadRequest
from llmproxyd.wire.wheel import Wheel

NOTHING = (0, 0)

LINGER = 1.0
"""Seconds for the end of a stream whose client left at its last word: it may be kept then, and so may
the upstream's connection."""


class Pipeline:
    """Everything a request passes, from its head to its end.

    :param policy: read once per request; assign another one to reload.
    :param emit: takes events.
    :param announcing: whether anybody wants to know of arrivals.
    :param prefix: makes request ids unique over restarts.
    :param live: what moves at upstreams that absorb failure.
    :param entrance: lets requests in, where the policy has access on.
    :param cache: keeps answers, where the policy has a cache.
    :param watch: watches what clients do after a failure.
    :param draw: a number in [0, 1), for jitter.
    """

    log = Logger()

    def __init__(
        self,
        *,
        policy: Policy,
        sender: Sends,
        engine: Engine,
        emit: Callable[[Event], None],
        wheel: Wheel,
        wall: WallClock,
        prefix: str,
        live: Live,
        entrance: Entrance | None = None,
        cache: Cache | None = None,
        watch: Watcher | None = None,
        draw: Callable[[], float] = lambda: 0.5,
        announcing: Callable[[], bool] = lambda: True,
    ) -> None:
        self.policy = policy
        self.engine = engine
        self.active: set[Exchange] = set()
        self.handled = 0
        self._sender = sender
        self._emit = emit
        self._wheel = wheel
        self._now = wheel.seconds
        self._wall = wall
        self._prefix = prefix
        self._announcing = announcing
        self._idle: list[Deferred[None]] = []
        self._entrance = entrance
        self._drained = live.drained
        self.watch = watch or Watcher()
        self.shelf = None if cache is None else Shelf(cache, wall, wheel.seconds, self._again, self._failed)
        self._rehearsal = Rehearsal(engine, wheel, wall, self._failed)
        self._means = Means(sender, live, wheel, wall, draw, emit, self._failed, self._rehearsal)

    def forward(self, request: Request, body: BodySource, responder: Responder) -> Exchange:
        """Take *request* all its way; its end is told by the exchange's one final event."""
        exchange = self._begin(request, body, responder)
        try:
            plan = exchange.plan = plan_of(request, exchange.policy)
            if self._announcing():
                self._arrived(exchange, plan)
            # Nobody, operator or test, has anything to do with requests just now.
            quiet = not (self.engine.active or self._drained or self.watch.awake)
            if quiet and plan.straight:
                exchange.cors, exchange.outgoing = plan.cors, plan.outgoing
                self._check(exchange)
                self._send(exchange, body.producer())
            elif quiet and plan.absorbed:
                exchange.cors, exchange.outgoing = plan.cors, plan.outgoing
                exchange.model, exchange.streaming = plan.model, plan.streaming
                self._check(exchange)
                self._with_body(exchange, self._absorb)
            elif plan.refusal is not None:
                self._refuse(exchange, plan.refusal)
            elif plan.preflight is not None:
                answer.preflight(exchange, plan.preflight, self._wall(), self._now())
            else:
                exchange.cors = plan.cors
                self._check(exchange)
                self._let_in(exchange, plan, quiet=quiet)
        except Exception:
            self._failed(Failure(), exchange)
        return exchange

    def refused(self, request: Request, error: Refused, responder: Responder) -> None:
        """Answer a *request* that the connection already found fault with."""
        exchange = self._begin(request, NO_BODY, responder)
        try:
            plan = exchange.plan = no_plan(request, exchange.policy, error)
            self._arrived(exchange, plan)
            self._refuse(exchange, error)
        except Exception:
            self._failed(Failure(), exchange)

    def client_gone(self, exchange: Exchange) -> None:
        """The client of *exchange* has closed its connection."""
        exchange.client_gone(self._now())
        if exchange.said_all and not exchange.done:
            self._wheel.start(LINGER, partial(self._lingered, exchange))

    def _lingered(self, exchange: Exchange) -> None:
        if exchange.awaited is None or not exchange.awaited():
            exchange.abandon(self._now())

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
            if exchange.done:
                continue  # it ended with another, whom it waited for or worked for
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
            self._now(),
            self._finished,
        )
        policy = exchange.policy
        if policy.record_requests or policy.record_errors:
            exchange.record = Record(self._wall(), whole=policy.record_requests)
        if policy.capture != NOTHING:
            usage = exchange.usage = UsageTap(self._now, policy.capture, secrets_of(exchange))
            exchange.taps = [usage]
        self.active.add(exchange)
        return exchange

    def _check(self, exchange: Exchange) -> None:
        length = exchange.body.length
        if length is not None and length > exchange.policy.max_body:
            raise body_too_large(exchange.policy.max_body)

    def _let_in(self, exchange: Exchange, plan: Plan, *, quiet: bool) -> None:
        """Past the door, where there is one.

        :param quiet: neither operators nor tests have anything to do with requests just now.
        """
        if not exchange.policy.access:
            if plan.denied is not None:
                self._refuse(exchange, plan.denied)
                return
            exchange.outgoing = plan.outgoing
            self._go_on(exchange, plan, quiet=quiet)
            return
        assert self._entrance is not None
        entering = self._entrance.enter(exchange, plan)
        if entering is None:
            self._go_on(exchange, plan, quiet=quiet)
        else:
            entering.addCallback(lambda _: self._entered(exchange, plan))
            entering.addErrback(self._failed, exchange)

    def _entered(self, exchange: Exchange, plan: Plan) -> None:
        if not exchange.done:
            self._go_on(exchange, plan, quiet=False)

    def _go_on(self, exchange: Exchange, plan: Plan, *, quiet: bool) -> None:
        """Hold the body against the allowlists, where they ask for it."""
        granted = exchange.grant
        if quiet and plan.short and (granted is None or granted.reads_body is None):
            # None of the steps between has anything to look at.
            self._go_for_it(exchange)
            return
        check = body_check(exchange)
        if check is None:
            self._watched(exchange, plan)
            return
        keeping = exchange.body.keep()
        exchange.work = keeping.cancel
        keeping.addCallback(lambda kept: check(kept.read(kept.length)))
        keeping.addCallback(lambda _: self._watched(exchange, plan))
        keeping.addErrback(self._failed, exchange)

    def _watched(self, exchange: Exchange, plan: Plan) -> None:
        """Show the request to those who want to see it, whatever becomes of it."""
        route = plan.route
        assert route is not None
        watching = self.watch.watching and route.kind is EndpointKind.INFERENCE
        # A client that asks before it sends its body is answered before that.
        if not (watching or exchange.policy.capture[0]) or _asks_first(exchange):
            self._allowed(exchange, plan)
            return

        def shown(body: Kept, exchange: Exchange) -> None:
            if exchange.usage is not None:
                exchange.usage.request(body)
            if watching:
                exchange.watched = True
                self.watch.arrived(exchange, body)
            self._allowed(exchange, plan)

        self._with_body(exchange, shown)

    def _allowed(self, exchange: Exchange, plan: Plan) -> None:
        looked = self._look(exchange, plan)
        if looked is None:
            self._decided(exchange)
        else:
            exchange.work = looked.cancel
            looked.addCallback(lambda _: self._decided(exchange))
            looked.addErrback(self._failed, exchange)

    def _look(self, exchange: Exchange, plan: Plan) -> Deferred[None] | None:
        """Learn what an active rule or a policy asks of the body; ``None`` when nothing need be read."""
        route = plan.route
        assert route is not None
        injecting = self.engine.active and route.kind is EndpointKind.INFERENCE
        telling = exchange.policy.read_models
        if injecting or telling or route.upstream.absorbs:
            exchange.model, exchange.streaming = plan.model, plan.streaming
        if route.kind is not EndpointKind.INFERENCE:
            return None
        if not (telling or (injecting and self.engine.reads_body) or route.upstream.names_models):
            return None

        def read(excerpt: bytes) -> None:
            told = asked(excerpt)
            if exchange.model is None:
                exchange.model = told.model
            if exchange.streaming is None:
                exchange.streaming = _streams(route, told.stream)

        return exchange.body.excerpt(WHOLE, END).addCallback(read)

    def _decided(self, exchange: Exchange) -> None:
        """Choose what goes wrong, if anything is to."""
        if limited.check(exchange, self.engine, self._wall, self._now()):
            return
        chosen = self._choose(exchange)
        if chosen is None:
            self._go_for_it(exchange)
        else:
            play(exchange, chosen, self._rehearsal, partial(self._go_for_it, exchange))

    def _go_for_it(self, exchange: Exchange) -> None:
        """Look into the cache, or send on."""
        plan = exchange.plan
        caching = None if plan is None else plan.caching
        if caching is None or self.shelf is None:
            self._send_on(exchange)
        elif not caching.turn:
            exchange.cache, exchange.cache_notes = "bypass", NO_TURN
            self._send_on(exchange)
        else:
            self._take_turn(exchange, caching, self.shelf)

    def _take_turn(self, exchange: Exchange, caching: Caching, shelf: Shelf) -> None:
        if not caching.whole:
            look_up(exchange, caching, None, shelf, partial(self._send_on, exchange))
            return
        kept = exchange.body.at_hand()
        if kept is None:
            self._with_body(exchange, self._at_cache)
        else:
            look_up(exchange, caching, kept, shelf, partial(self._kept, kept, exchange))

    def _at_cache(self, body: Kept, exchange: Exchange) -> None:
        plan = exchange.plan
        assert plan is not None
        assert plan.caching is not None
        assert self.shelf is not None
        look_up(exchange, plan.caching, body, self.shelf, partial(self._kept, body, exchange))

    def _with_body(self, exchange: Exchange, following: Callable[[Kept, Exchange], None]) -> None:
        """Go on with the whole body, at once where it is at hand."""
        kept = exchange.body.at_hand()
        if kept is not None:
            following(kept, exchange)
            return
        keeping = exchange.body.keep()
        exchange.work = keeping.cancel
        keeping.addCallback(following, exchange)
        keeping.addErrback(self._failed, exchange)

    def _send_on(self, exchange: Exchange) -> None:
        """To the upstream, in one attempt or several."""
        plan = exchange.plan
        assert plan is not None
        if plan.short and not (self._drained or self.engine.active):
            self._send(exchange, exchange.body.producer())
            return
        route = plan.route
        assert route is not None
        self._check_drained(route)
        if route.upstream.absorbs or self._must_be_whole(exchange, route):
            self._with_body(exchange, self._kept)
        else:
            self._attempt(exchange, exchange.body.producer)

    def _check_drained(self, route: Route[Upstream]) -> None:
        """Refuse what an operator wants to be sent nowhere; what absorbs may go elsewhere."""
        if self._drained and route.upstream.name in self._drained and not route.upstream.absorbs:
            raise refusals.drained(route.upstream.name)

    def _must_be_whole(self, exchange: Exchange, route: Route[Upstream]) -> bool:
        """Whether the body must be at hand before the request is sent on; else it flows."""
        policy = exchange.policy
        recording = policy.record_requests or policy.capture[0]
        return bool(recording) or route.upstream.transforms.concerns(route.operation)

    def _kept(self, body: Kept, exchange: Exchange) -> None:
        plan = exchange.plan
        assert plan is not None
        if plan.short and not (self._drained or self.engine.active):
            self._send(exchange, body.producer())
            return
        route, record = plan.route, exchange.record
        assert route is not None
        self._check_drained(route)
        if isinstance(record, Record):
            record.request_body(body)
        if exchange.usage is not None:
            exchange.usage.request(body)
        if route.upstream.absorbs:
            self._absorb(body, exchange)
        else:
            self._attempt(exchange, transformed(route.upstream, exchange, body).producer)

    def _absorb(self, body: Kept, exchange: Exchange) -> None:
        """Send it on in as many attempts as the upstream's policy allows."""
        Attempts(exchange, body, self._means).begin()

    def _attempt(self, exchange: Exchange, produce: Callable[[], IBodyProducer | None]) -> None:
        """The one attempt, where nothing is absorbed; the upstream may be made to fail in it."""
        sending = None
        if self.engine.acts_upstream:
            going = exchange.outgoing
            assert going is not None
            sending = staged.send(
                exchange, going.upstream, going, produce, exchange.inform, self._sender, self._rehearsal
            )
        self._send(exchange, None if sending is not None else produce(), sending)

    def _send(
        self,
        exchange: Exchange,
        body: IBodyProducer | None,
        sending: Deferred[WireResponse] | None = None,
    ) -> None:
        """Send the request, unless it is *sending* already, and wait for its answer."""
        going = exchange.outgoing
        assert going is not None
        exchange.attempts = 1
        exchange.asked = self._now()
        if sending is None:
            sending = self._sender.send(going, body, exchange.inform)
        exchange.work = sending.cancel
        sending.addCallbacks(self._answered, self._failed, (exchange,), {}, (exchange,), {})

    def _choose(self, exchange: Exchange) -> Chosen | None:
        engine = self.engine
        policy = exchange.policy
        if not (engine.active or policy.fault_header or policy.access):
            return None
        route, request = exchange.route, exchange.request
        assert route is not None
        if route.kind is EndpointKind.INFERENCE and may_ask_for_faults(exchange):
            text = first(request.headers, FAULT_FIELD)
            if text is not None:
                return engine.spend(_asked_for(text))
        if not engine.active:
            return None
        return engine.choose(subject_of(exchange, route.upstream.name))

    def _answered(self, incoming: WireResponse, exchange: Exchange) -> None:
        going = exchange.outgoing
        assert going is not None
        exchange.work = None
        upstream = going.upstream
        try:
            head = head_of(incoming)
            if exchange.instead is not None and exchange.instead.answered(head):
                abort(incoming)
                return
            body = incoming.whole
            if body is not None:
                pass_whole(exchange, head, body, self._now)
                return
            idle, gather = upstream.timeouts.idle, upstream.flush_interval
            relay = Relay(exchange, self._wheel, self._wall, idle, gather=gather)
            relay.begin(head)
            incoming.forget_fields()
            incoming.deliverBody(relay)
            if exchange.responder is not None:
                exchange.responder.flush()
        except Exception:
            abort(incoming)
            self._failed(Failure(), exchange)

    def _again(self, served: Exchange, entry: Entry, body: Kept | None) -> None:
        """Ask the upstream whether *entry*, with which *served* was answered, still holds.

        :param body: of the request, where it belongs to the key.
        """
        plan, granted, shelf = served.plan, served.grant, self.shelf
        assert plan is not None
        assert plan.caching is not None
        assert shelf is not None
        exchange = self._begin(served.request, NO_BODY, NOBODY)
        exchange.policy, exchange.plan, exchange.grant = served.policy, plan, granted
        exchange.model, exchange.streaming = served.model, served.streaming
        exchange.outgoing = plan.outgoing if granted is None else granted.outgoing
        go = partial(self._send_on, exchange) if body is None else partial(self._kept, body, exchange)
        try:
            self._arrived(exchange, plan)
            Turn(exchange, plan.caching, body, shelf, go).revalidate(entry)
        except Exception:
            self._failed(Failure(), exchange)

    # How it can end.

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        # What came with the body may tell what became of it.
        value = failure.value
        if isinstance(value, BadRequest | BodyTooLarge):
            failure = Failure(explain(failure))
        if exchange.done:
            if not isinstance(failure.value, CancelledError | ClientGone | ProxyError):
                self._log_failure("request {id} failed after its end", failure, exchange)
        elif isinstance(failure.value, ProxyError) and not exchange.committed:
            exchange.failed = isinstance(failure.value, UpstreamError) and failure.value.blames
            if isinstance(failure.value, UpstreamError) and exchange.instead is not None:
                exchange.work = None
                if exchange.instead.failed():
                    return
            self._refuse(exchange, failure.value)
        else:
            self._broken(exchange, failure)

    def _refuse(self, exchange: Exchange, error: ProxyError) -> None:
        answer.refuse(exchange, error, self._wall(), self._now())

    def _broken(self, exchange: Exchange, failure: Failure) -> None:
        """A fault of our own: told to the log whole, to the client in a word."""
        self._log_failure("request {id} failed within the proxy", failure, exchange)
        error = Refused(500, "internal_error", "The proxy failed; its log has the details.")
        if exchange.policy.record_errors and isinstance(exchange.record, Record):
            exchange.record.noted()
            trace = failure.getTraceback()
            self._emit(broken(exchange, error, trace, self._wall(), self._now()))
        if not exchange.committed:
            try:
                if exchange.plan is None:
                    exchange.plan = no_plan(exchange.request, exchange.policy, error)
                self._refuse(exchange, error)
                return
            except Exception:
                self._log_failure("request {id} could not even be refused", Failure(), exchange)
        exchange.cut(End.TRUNCATED, error.code, error.message, self._now())

    def _log_failure(self, message: str, failure: Failure, exchange: Exchange) -> None:
        # What the client presented may stand in an exception's text.
        self.log.failure(message, failure, id=exchange.request_id, secrets=secrets_of(exchange))

    def _arrived(self, exchange: Exchange, plan: Plan) -> None:
        if not self._announcing():
            return
        route = plan.route
        self._emit(
            Arrived(
                exchange.number,
                exchange.request_id,
                plan.method,
                plan.path,
                plan.dialect.name,
                "-" if route is None else route.upstream.name,
            )
        )

    def _finished(self, exchange: Exchange, event: Finished) -> None:
        self.active.discard(exchange)
        event.wall = self._wall()
        if exchange.grant is not None and self._entrance is not None:
            self._entrance.leave(exchange.grant, event)
        if event.cache is not None and self.shelf is not None:
            self.shelf.count(event.cache, exchange)
        self._emit(event)
        if exchange.watched:
            self.watch.ended(exchange, event)
        record = exchange.record
        if record is not None and isinstance(record, Record):
            self._on_record(exchange, record, event)
        if self._idle and not self.active:
            waiting, self._idle = self._idle, []
            for one in waiting:
                one.callback(None)

    def _on_record(self, exchange: Exchange, record: Record, event: Finished) -> None:
        exchange.record = None
        failure = record.failure(exchange, event) if exchange.policy.record_errors else None
        if failure is not None:
            self._emit(failure)
        recorded = record.recorded(exchange, event)
        if recorded is not None:
            self._emit(recorded)


def _asked_for(text: bytes) -> Rule:
    """The fault that a request's own field names."""
    try:
        return parse_field(text.decode("latin-1"))
    except LanguageError as error:
        message = f"{FAULT_FIELD.decode()}: {error}"
        raise Refused(400, "bad_fault", message, detail=f"{FAULT_FIELD.decode()} is not understood") from None


def _streams(route: Route[Upstream], stream: bool | None) -> bool:
    if route.endpoint is not None and route.endpoint.streams is Streams.BODY_UNLESS_FALSE:
        return stream is not False
    return bool(stream)


def _asks_first(exchange: Exchange) -> bool:
    """Whether the client waits for a word before it sends the body."""
    return first(exchange.request.headers, b"expect") is not None and exchange.body.at_hand() is None

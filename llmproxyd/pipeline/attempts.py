"""The one retry loop: the attempts that one request gets, at one upstream after the other.

What is decided is decided by pure policies (``resilience/``) and by what is read of an answer
(``inspection/``); what moves (breakers, budgets, keys) is in :mod:`~llmproxyd.pipeline.live`.
The first attempt goes out at once; a further one only before the commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from twisted.python.failure import Failure

from llmproxyd.errors import ClientGone, ProxyError, Refused, Retryable, UpstreamError
from llmproxyd.http.body import Kept
from llmproxyd.http.headers import first
from llmproxyd.inspection.content import StreamWatch
from llmproxyd.inspection.inflate import inflater
from llmproxyd.model import CredentialRested, End, Event, RawHeaders, Response, Retrying, WallClock
from llmproxyd.pipeline import answer, judge
from llmproxyd.pipeline.deadline import Deadline
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate
from llmproxyd.pipeline.judge import Setback
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.notes import Notes
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.relay import Relay, first_content_timeout, form_of
from llmproxyd.pipeline.target import Target, targets_of
from llmproxyd.pipeline.upstream import Sender, head_of
from llmproxyd.resilience.breaker import Permit
from llmproxyd.resilience.credentials import Taken, rest_for
from llmproxyd.resilience.hints import wait_asked
from llmproxyd.resilience.retry import Tries, decide
from llmproxyd.resilience.verdict import HardStop, too_long, unpaid
from llmproxyd.units import format_duration
from llmproxyd.wire.agent import WireResponse
from llmproxyd.wire.wheel import Timer, Wheel

DO_NOT_RETRY = ((b"x-should-retry", b"false"),)
"""Tells the official SDKs that our attempts were theirs too."""


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts are made with.

    :param draw: a number in [0, 1), for jitter.
    :param failed: takes what nothing here accounts for.
    """

    sender: Sender
    live: Live
    wheel: Wheel
    wall: WallClock
    draw: Callable[[], float]
    emit: Callable[[Event], None]
    failed: Callable[[Failure, Exchange], None]


class Attempts:
    """All attempts of one exchange.

    :ivar number: of the present one, from 1, over all upstreams.
    """

    __slots__ = (
        "_bad",
        "_body",
        "_deadline",
        "_exchange",
        "_first",
        "_means",
        "_notes",
        "_permit",
        "_sent_at",
        "_taken",
        "_target",
        "_timer",
        "_tried_keys",
        "_tries",
        "_waiting",
        "number",
    )

    def __init__(self, exchange: Exchange, body: Kept, means: Means) -> None:
        self._exchange = exchange
        self._body = body
        self._means = means
        self._waiting: deque[Target] = targets_of(exchange, body)
        self._target: Target = self._waiting[0]
        self._permit: Permit | None = None
        self._taken: Taken | None = None
        self._tried_keys = 0
        self._tries = Tries()
        self._bad = False
        self._sent_at = 0.0
        self._timer: Timer | None = None
        total = self._target.upstream.timeouts.total
        self._deadline = Deadline(exchange, total, means.wheel, self._overdue)
        self._first: Timer | None = None
        self._notes = Notes(exchange, means.wall, means.emit)
        self.number = 0

    def begin(self) -> None:
        """Make the first attempt, or say why none is made."""
        exchange = self._exchange
        exchange.closing = self._closed
        left = self._next_target()
        if left is None:
            self._attempt()
        else:
            self._refuse_open(left)

    # One attempt.

    def _next_target(self) -> float | None:
        """Turn to the next upstream whose breaker lets a request through.

        :return: ``None``, or, where there is none, the least seconds until one may.
        """
        means, now = self._means, self._means.wheel.seconds()
        least: float | None = None
        while self._waiting:
            target = self._waiting.popleft()
            breaker = means.live.breaker(target.upstream, target.model)
            admitted = None if breaker is None else breaker.admit(now)
            if isinstance(admitted, float):
                least = admitted if least is None else min(least, admitted)
                continue
            self._settle(failed=True)
            self._target, self._permit = target, admitted
            self._tries, self._taken, self._tried_keys = Tries(), None, 0
            if target.upstream.resilience.retry.max_retries:
                means.live.budget(target.upstream).requests(now)
            return None
        return 1.0 if least is None else least

    def _attempt(self) -> None:
        """Send the request to the present upstream."""
        exchange, means, target = self._exchange, self._means, self._target
        self._timer = None
        if exchange.done:
            return
        upstream = target.upstream
        exchange.upstream = upstream.name
        now = means.wheel.seconds()
        ring = means.live.ring(upstream)
        if ring is not None:
            self._taken = ring.take(now)
            if self._taken is None:
                self._refuse_resting(ring.soonest(now))
                return
            self._tried_keys += 1
        self.number += 1
        going = target.outgoing(exchange.request, None if self._taken is None else self._taken.key)
        self._notes.begun(self.number, upstream.name, going.url)
        self._sent_at = now
        interim = None if upstream.holds else exchange.inform
        sending = means.sender.send(going, target.body.producer(), interim)
        exchange.work = sending.cancel
        sending.addCallbacks(self._answered, self._not_answered)
        sending.addErrback(means.failed, exchange)

    def _answered(self, incoming: WireResponse) -> None:
        exchange, means = self._exchange, self._means
        upstream = self._target.upstream
        head = head_of(incoming)
        form = form_of(exchange, head.headers)
        watch = None
        if form is not None and head.status < 400:
            reader = inflater(first(head.headers, b"content-encoding") or b"")
            watch = None if reader is None else StreamWatch(form, reader)
        granted = upstream.timeouts.first_content
        if not upstream.holds or not judge.must_hold(exchange, upstream, head, watch):
            if granted is None:
                watch = None
            relay = self._commit(head, watch)
            incoming.forget_fields()
            incoming.deliverBody(relay)
            self._flush()
            return
        gate = Gate(incoming, head, watch, upstream.resilience.hold, means.wheel, self._opened)
        exchange.work = gate.throw_away
        if granted is not None and watch is not None:
            left = max(self._sent_at + granted - means.wheel.seconds(), 0)
            self._first = means.wheel.start(left, partial(self._nothing_said, gate, granted))
        incoming.deliverBody(gate)

    def _nothing_said(self, gate: Gate, granted: float) -> None:
        """The stream was held and had no content in time."""
        self._first = None
        error = first_content_timeout(granted)
        gate.throw_away()
        self._react(Setback.of_error(error), None, error)

    def _opened(self, gate: Gate) -> None:
        """What was held is an answer, or is none."""
        self._stop_first()
        exchange = self._exchange
        if exchange.done:
            gate.throw_away()
            return
        setback = judge.judged(gate, self._target.upstream, exchange)
        if setback is None:
            self._let_through(gate)
        elif setback.stop is not None:
            self._stop(setback, setback.stop, gate)
        else:
            self._react(setback, gate, setback.error)

    def _not_answered(self, failure: Failure) -> None:
        """There was no answer."""
        error = failure.value
        if isinstance(error, UpstreamError) and not self._exchange.done:
            self._react(Setback.of_error(error), None, error)
        elif not isinstance(error, ClientGone):
            self._means.failed(failure, self._exchange)

    # What follows from a failure.

    def _react(self, setback: Setback, gate: Gate | None, error: ProxyError | None) -> None:
        """Try again, elsewhere, or hand the failure on."""
        means, exchange, upstream = self._means, self._exchange, self._target.upstream
        exchange.work = None
        now = means.wheel.seconds()
        if self._rest_key(setback, now):
            self._again(setback, gate, 0.0, "another key is tried")
            return
        retry = upstream.resilience.retry
        decision = decide(
            retry,
            setback.failed,
            self._tries,
            left=self._deadline.left(now),
            wall=means.wall(),
            draw=means.draw,
        )
        delay, reason = decision.delay, decision.reason
        if delay is not None and not means.live.budget(upstream).take(now):
            delay, reason = None, "the retry budget is spent"
        if delay is not None:
            self._again(setback, gate, delay, reason)
            return
        if not decision.hopeless and self._waiting and self._next_target() is None:
            self._again(setback, gate, 0.0, reason, elsewhere=upstream)
            return
        self._notes.failed(setback, gate, reason, None, self._breaker_state())
        self._bad = setback.counts
        spent = decision.spent or decision.delay is not None
        more = DO_NOT_RETRY if spent and retry.max_retries and retry.tell_sdk_not_to_retry else ()
        self._hand_on(setback, gate, error, more)

    def _again(
        self,
        setback: Setback,
        gate: Gate | None,
        delay: float,
        reason: str,
        elsewhere: Upstream | None = None,
    ) -> None:
        exchange, means, target = self._exchange, self._means, self._target
        if gate is not None:
            gate.throw_away()
        self._notes.failed(setback, gate, reason, delay, self._breaker_state())
        means.emit(
            Retrying(
                number=exchange.number,
                request_id=exchange.request_id,
                upstream=(elsewhere or target.upstream).name,
                failed=setback.words,
                delay=delay,
                retry=max(self._tries.retries, 1),
                of=max(target.upstream.resilience.retry.max_retries, 1),
                to=target.upstream.name,
            )
        )
        if delay > 0:
            self._timer = means.wheel.start(delay, self._attempt)
            exchange.work = self._timer.cancel
        else:
            self._attempt()

    def _rest_key(self, setback: Setback, now: float) -> bool:
        """Whether another key is to be tried, as the one that was used is refused."""
        means, upstream, taken = self._means, self._target.upstream, self._taken
        ring = means.live.ring(upstream)
        status = setback.failed.status
        if ring is None or taken is None or status is None:
            return False
        failed = setback.failed
        asked = wait_asked(failed.headers, failed.body, means.wall(), status)
        spent = unpaid(failed.code, failed.body) is not None
        seconds = rest_for(402 if spent else status, asked)
        if seconds is None or too_long(failed.code, failed.body) is not None:
            return False
        ring.rest(taken.index, seconds, now)
        left = ring.awake(now)
        means.emit(
            CredentialRested(
                upstream=upstream.name, which=taken.index + 1, status=status, seconds=seconds, left=left
            )
        )
        return left > 0 and self._tried_keys < len(upstream.keys)

    # How it ends.

    def _let_through(self, gate: Gate) -> None:
        watch = None
        if gate.watch is not None and self._target.upstream.timeouts.first_content is not None:
            watch = gate.watch if gate.watch.empty and not gate.watch.blind else None
        gate.pass_on(self._commit(gate.head, watch))
        self._flush()

    def _commit(self, head: Response, watch: StreamWatch | None = None, more: RawHeaders = ()) -> Relay:
        """Send the head of the answer to the client."""
        exchange, means, upstream = self._exchange, self._means, self._target.upstream
        self._bad = self._bad or head.status >= 500
        exchange.work = None
        if not self._bad and self._probing():
            # A stream may take hours, and nobody else would be let through as long.
            self._settle(failed=False)
        keepalive = upstream.resilience.stream_keepalive
        relay = Relay(exchange, means.wheel, means.wall, upstream.timeouts.idle, keepalive)
        self._notes.answered(head)
        relay.begin(head, more)
        granted = upstream.timeouts.first_content
        if watch is not None and granted is not None:
            relay.expect_content(watch, granted, self._sent_at + granted - means.wheel.seconds())
        self._deadline.committed()
        return relay

    def _flush(self) -> None:
        if self._exchange.responder is not None:
            self._exchange.responder.flush()

    def _hand_on(
        self, setback: Setback, gate: Gate | None, error: ProxyError | None, more: RawHeaders
    ) -> None:
        """Give the client the failure itself: the upstream's own answer, where there is one."""
        upstream, exchange = self._target.upstream, self._exchange
        listed = judge.models_instead(exchange, upstream, setback)
        if listed is not None:
            if gate is not None:
                gate.throw_away()
            answer.list_models(exchange, listed, self._means.wall(), self._means.wheel.seconds())
        elif error is not None:
            if gate is not None:
                gate.throw_away()
            exchange.failed = True
            self._refuse(error, more)
        else:
            assert gate is not None
            gate.pass_on(self._commit(gate.head, None, more))
            self._flush()

    def _stop(self, setback: Setback, rule: HardStop, gate: Gate) -> None:
        """Answer with what the operator's rule says, and with what the upstream said beneath."""
        text = gate.text
        gate.throw_away()
        self._bad = setback.counts
        self._notes.failed(setback, gate, rule.description or "a hard_stop rule", None, self._breaker_state())
        status = gate.head.status if gate.head.status >= 400 else 502
        original = text if rule.preserve_original_response else None
        answer.hard_stop(self._exchange, status, rule.user_message, original, self._means.wall(), self._now())

    def _refuse(self, error: ProxyError, more: RawHeaders = ()) -> None:
        answer.refuse(self._exchange, error, self._means.wall(), self._now(), more)

    def _refuse_open(self, left: float) -> None:
        seconds = max(-int(-left // 1), 1)
        name = self._target.upstream.name
        self._refuse(
            Refused(
                503,
                "circuit_open",
                f"The circuit breaker before the upstream {name} is open, as it failed too often; "
                f"it is tried again in {format_duration(seconds)}.",
                ((b"retry-after", b"%d" % seconds),),
            )
        )

    def _refuse_resting(self, left: float) -> None:
        if self._waiting and self._next_target() is None:
            self._attempt()
            return
        seconds = max(-int(-left // 1), 1)
        self._refuse(
            Refused(
                429,
                "credentials_at_rest",
                f"All stored keys of the upstream {self._target.upstream.name} were refused lately; "
                f"the first is tried again in {format_duration(seconds)}.",
                ((b"retry-after", b"%d" % seconds),),
            )
        )

    def _closed(self, end: End) -> None:
        """The exchange is over: what does the breaker learn of it?"""
        self._stop_first()
        self._deadline.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._bad or self._exchange.failed:
            self._settle(failed=True)
        else:
            self._settle(failed=False if end is End.COMPLETE and self.number else None)

    def _settle(self, *, failed: bool | None) -> None:
        """Tell the breaker how the present upstream did; ``None`` for neither well nor badly."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        now = self._now()
        if failed is None:
            permit.abandoned(now)
        elif failed:
            permit.failed(now)
        else:
            permit.succeeded(now)

    def _overdue(self, error: Retryable) -> None:
        """The request has taken too long, whatever it was at."""
        exchange = self._exchange
        if exchange.done:
            return
        if exchange.committed:
            if exchange.give_up is not None:
                exchange.give_up(error)
            return
        work, exchange.work = exchange.work, None
        setback = Setback.of_error(error)
        self._notes.failed(setback, None, "the deadline came", None, self._breaker_state())
        exchange.failed = self.number > 0
        self._refuse(error)
        if work is not None:
            work()

    def _probing(self) -> bool:
        breaker = self._means.live.breaker(self._target.upstream, self._target.model)
        return breaker is not None and breaker.state == "half-open"

    def _breaker_state(self) -> Mapping[str, object] | None:
        breaker = self._means.live.breaker(self._target.upstream, self._target.model)
        return None if breaker is None else breaker.snapshot(self._now()).told()

    def _stop_first(self) -> None:
        timer, self._first = self._first, None
        if timer is not None:
            timer.cancel()

    def _now(self) -> float:
        return self._means.wheel.seconds()

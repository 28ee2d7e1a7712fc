"""The one retry loop: the attempts that one request gets, at one upstream after the other.

What is decided is decided by pure policies (``resilience/``) and by what is read of an answer
(``inspection/``); what moves (breakers, budgets, keys) is in :mod:`~llmproxyd.pipeline.live`.
The first attempt goes out at once; a further one only before the commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from llmproxyd.errors import ClientGone, ProxyError, Retryable, UpstreamError
from llmproxyd.http.body import Kept
from llmproxyd.inspection.content import StreamWatch
from llmproxyd.model import CredentialRested, End, Event, RawHeaders, Response, Retrying, WallClock
from llmproxyd.pipeline import answer, judge, refusals
from llmproxyd.pipeline.deadline import Deadline
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate
from llmproxyd.pipeline.judge import Setback
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.notes import Notes
from llmproxyd.pipeline.policy import Upstream
from llmproxyd.pipeline.relay import Relay
from llmproxyd.pipeline.target import Target, fallbacks_of, own_target
from llmproxyd.pipeline.upstream import Sender, head_of
from llmproxyd.resilience.breaker import Breaker, Permit
from llmproxyd.resilience.credentials import Taken, rest_for
from llmproxyd.resilience.hints import wait_asked
from llmproxyd.resilience.retry import Tries, decide
from llmproxyd.resilience.verdict import HardStop, too_long, unpaid
from llmproxyd.wire.agent import WireResponse, abort
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
        "_body",
        "_breaker",
        "_deadline",
        "_exchange",
        "_failed",
        "_first",
        "_means",
        "_notes",
        "_others",
        "_permit",
        "_sent_at",
        "_taken",
        "_target",
        "_tried_keys",
        "_tries",
        "_wait",
        "number",
    )

    def __init__(self, exchange: Exchange, body: Kept, means: Means) -> None:
        self._exchange = exchange
        self._body = body
        self._means = means
        self._target = own_target(exchange, body)
        self._others: deque[Target] | None = None
        self._breaker: Breaker | None = None
        self._permit: Permit | None = None
        self._taken: Taken | None = None
        self._tried_keys = 0
        self._tries: Tries | None = None
        # How the present upstream did, as far as it has answered: what its breaker is to know.
        self._failed: bool | None = None
        self._sent_at = 0.0
        self._wait: IDelayedCall | None = None
        self._deadline: Deadline | None = None
        self._first: Timer | None = None
        # Nothing is noted where nobody wants it.
        wall, now = means.wall, means.wheel.seconds
        self._notes = None if exchange.record is None else Notes(exchange, wall, now, means.emit)
        self.number = 0

    def begin(self) -> None:
        """Make the first attempt, or say why none is made."""
        exchange, target = self._exchange, self._target
        exchange.closing = self._closed
        total = target.upstream.timeouts.total
        if total is not None or (exchange.plan is not None and exchange.plan.patience is not None):
            self._deadline = Deadline(exchange, total, self._means.wheel, self._overdue)
            left = self._deadline.left(self._now())
            if left is not None and left <= 0:
                return  # the body took all the time; the deadline tells the client in a moment
        left = self._enter(target)
        if left is not None:
            left = self._elsewhere(left)
        if left is None:
            self._attempt()
        else:
            self._refuse(refusals.circuit_open(target.upstream.name, left))

    # One attempt.

    def _enter(self, target: Target) -> float | None:
        """Turn to *target*, if its breaker lets a request through; else the seconds until it may."""
        means, upstream = self._means, target.upstream
        now = means.wheel.seconds()
        breaker = means.live.breaker(upstream, target.model)
        if breaker is not None:
            admitted = breaker.admit(now)
            if isinstance(admitted, float):
                return admitted
            self._settle(failed=self._failed)
            self._permit = admitted
        else:
            self._settle(failed=self._failed)
        self._breaker, self._failed = breaker, None
        self._target, self._tries, self._taken, self._tried_keys = target, None, None, 0
        if upstream.resilience.retry.max_retries:
            means.live.budget(upstream).requests(now)
        return None

    def _elsewhere(self, least: float) -> float | None:
        """Turn to the next upstream that stands in and lets a request through.

        :return: ``None``, or the least seconds until one may, *least* or less.
        """
        if self._others is None:
            self._others = fallbacks_of(self._exchange, self._body)
        while self._others:
            left = self._enter(self._others.popleft())
            if left is None:
                return None
            least = min(least, left)
        return least

    def _attempt(self) -> None:
        """Send the request to the present upstream."""
        exchange, means, target = self._exchange, self._means, self._target
        if exchange.done:
            return
        upstream = target.upstream
        exchange.upstream = upstream.name
        now = self._sent_at = means.wheel.seconds()
        ring = means.live.ring(upstream) if len(upstream.keys) > 1 else None
        if ring is not None:
            self._taken = ring.take(now)
            if self._taken is None:
                self._refuse_resting(ring.soonest(now))
                return
        self.number += 1
        self._failed = None
        going = target.outgoing(exchange.request, None if self._taken is None else self._taken.key)
        if self._notes is not None:
            self._notes.begun(self.number, upstream.name, going.url)
        interim = None if upstream.holds or self._others else exchange.inform
        sending = means.sender.send(going, target.body.producer(), interim)
        exchange.work = sending.cancel
        sending.addCallbacks(self._answered, self._not_answered)

    def _answered(self, incoming: WireResponse) -> None:
        try:
            self._begun(incoming)
        except Exception:
            abort(incoming)
            self._broken(Failure())

    def _begun(self, incoming: WireResponse) -> None:
        """The head of an answer is here."""
        exchange, upstream = self._exchange, self._target.upstream
        head = head_of(incoming)
        granted = upstream.timeouts.first_content
        watch: StreamWatch | None = None
        # One that stands in for another is looked at as long as there is a third.
        holds = upstream.holds or bool(self._others)
        if holds or granted is not None:
            answered = judge.begun(exchange, upstream, head)
            watch = answered.watch
            if holds and answered.hold and not judge.evidently_good(incoming, answered):
                self._hold(incoming, head, watch, granted)
                return
        relay = self._commit(head, watch)
        incoming.forget_fields()
        incoming.deliverBody(relay)
        self._flush()

    def _hold(
        self, incoming: WireResponse, head: Response, watch: StreamWatch | None, granted: float | None
    ) -> None:
        exchange, means = self._exchange, self._means
        gate = Gate(incoming, head, watch, self._target.upstream.resilience.hold, means.wheel, self._opened)
        exchange.work = gate.throw_away
        if granted is not None and watch is not None:
            left = max(self._sent_at + granted - means.wheel.seconds(), 0)
            self._first = means.wheel.start(left, partial(self._nothing_said, gate, granted))
        incoming.deliverBody(gate)

    def _nothing_said(self, gate: Gate, granted: float) -> None:
        """The stream was held and had no content in time."""
        self._first = None
        error = refusals.first_content_timeout(granted)
        gate.throw_away()
        try:
            self._react(Setback.of_error(error), None, error)
        except Exception:
            self._broken(Failure())

    def _opened(self, gate: Gate) -> None:
        """There is nothing more to wait for."""
        self._stop_first()
        try:
            self._judge(gate)
        except Exception:
            gate.throw_away()
            abort(gate.incoming)
            self._broken(Failure())

    def _judge(self, gate: Gate) -> None:
        """What was held is an answer, or is none."""
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
        try:
            if isinstance(error, UpstreamError) and not self._exchange.done:
                self._react(Setback.of_error(error), None, error)
            elif not isinstance(error, ClientGone):
                self._means.failed(failure, self._exchange)
        except Exception:
            self._broken(Failure())

    # What follows from a failure.

    def _react(self, setback: Setback, gate: Gate | None, error: ProxyError | None) -> None:
        """Try again, elsewhere, or hand the failure on."""
        means, exchange, upstream = self._means, self._exchange, self._target.upstream
        exchange.work = None
        self._failed = setback.counts
        now = means.wheel.seconds()
        if self._rest_key(setback, now):
            self._again(setback, gate, 0.0, "another key is tried")
            return
        retry = upstream.resilience.retry
        if self._tries is None:
            self._tries = Tries()
        left = None if self._deadline is None else self._deadline.left(now)
        decision = decide(retry, setback.failed, self._tries, left=left, wall=means.wall(), draw=means.draw)
        delay, reason = decision.delay, decision.reason
        if delay is not None and not means.live.budget(upstream).take(now):
            delay, reason = None, "the retry budget is spent"
        if delay is not None:
            self._again(setback, gate, delay, reason)
            return
        breaker = self._breaker
        if not decision.hopeless and self._elsewhere(0.0) is None:
            self._again(setback, gate, 0.0, reason, (upstream, breaker))
            return
        self._note(setback, gate, reason, None, self._breaker)
        spent = decision.spent or decision.delay is not None
        more = DO_NOT_RETRY if spent and retry.max_retries and retry.tell_sdk_not_to_retry else ()
        self._hand_on(setback, gate, error, more)

    def _again(
        self,
        setback: Setback,
        gate: Gate | None,
        delay: float,
        reason: str,
        left: tuple[Upstream, Breaker | None] | None = None,
    ) -> None:
        """Make another attempt in *delay* seconds.

        :param left: the upstream that failed, and its breaker, where the next one goes elsewhere.
        """
        exchange, means, target = self._exchange, self._means, self._target
        upstream, breaker = left or (target.upstream, self._breaker)
        if gate is not None:
            gate.throw_away()
        self._note(setback, gate, reason, delay, breaker)
        means.emit(
            Retrying(
                number=exchange.number,
                request_id=exchange.request_id,
                upstream=upstream.name,
                failed=setback.words,
                delay=delay,
                retry=max(self._tries.retries if self._tries is not None else 0, 1),
                of=max(target.upstream.resilience.retry.max_retries, 1),
                to=target.upstream.name,
            )
        )
        if delay > 0:
            self._wait = means.wheel.exactly(delay, self._waited)
            exchange.work = self._stop_waiting
        else:
            self._attempt()

    def _waited(self) -> None:
        """The wait before another attempt is over."""
        self._wait = None
        try:
            self._attempt()
        except Exception:
            self._broken(Failure())

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
        self._tried_keys += 1
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
        self._failed = bool(self._failed) or head.status >= 500
        exchange.work = None
        if not self._failed and self._probing():
            # A stream may take hours, and nobody else would be let through as long.
            self._settle(failed=False)
        keepalive = upstream.resilience.stream_keepalive
        relay = Relay(exchange, means.wheel, means.wall, upstream.timeouts.idle, keepalive)
        if self._notes is not None:
            self._notes.answered(head)
        relay.begin(head, more)
        granted = upstream.timeouts.first_content
        if watch is not None and granted is not None:
            relay.expect_content(watch, granted, self._sent_at + granted - means.wheel.seconds())
        if self._deadline is not None:
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
                if self._notes is not None:
                    self._notes.answered(gate.head)
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
        self._failed = setback.counts
        self._note(setback, gate, rule.description or "a hard_stop rule", None, self._breaker)
        status = gate.head.status if gate.head.status >= 400 else 502
        original = text if rule.preserve_original_response else None
        answer.hard_stop(self._exchange, status, rule.user_message, original, self._means.wall(), self._now())

    def _refuse(self, error: ProxyError, more: RawHeaders = ()) -> None:
        answer.refuse(self._exchange, error, self._means.wall(), self._now(), more)

    def _refuse_resting(self, left: float) -> None:
        name = self._target.upstream.name
        if self._elsewhere(left) is None:
            self._attempt()
        else:
            self._refuse(refusals.keys_at_rest(name, left))

    def _broken(self, failure: Failure) -> None:
        """A fault of our own: the client is told, and nothing goes on."""
        exchange = self._exchange
        work, exchange.work = exchange.work, None
        self._means.failed(failure, exchange)
        if work is not None:
            work()

    def _closed(self, end: End) -> None:
        """The exchange is over: what does the breaker learn of it?"""
        self._stop_first()
        if self._deadline is not None:
            self._deadline.end()
        self._stop_waiting()
        failed = self._exchange.failed or self._failed
        # Who broke off a good answer was not the upstream, and it may yet have gone wrong.
        self._settle(failed=failed if failed or end is End.COMPLETE else None)

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
        self._note(setback, None, "the deadline came", None, self._breaker)
        exchange.failed = self.number > 0
        self._refuse(error)
        if work is not None:
            work()

    def _probing(self) -> bool:
        return self._permit is not None and self._breaker is not None and self._breaker.state == "half-open"

    def _note(
        self,
        setback: Setback,
        gate: Gate | None,
        reason: str,
        delay: float | None,
        breaker: Breaker | None,
    ) -> None:
        if self._notes is not None:
            state = None if breaker is None else breaker.snapshot(self._now()).told()
            self._notes.failed(setback, gate, reason, delay, state)

    def _stop_waiting(self) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.cancel()

    def _stop_first(self) -> None:
        timer, self._first = self._first, None
        if timer is not None:
            timer.cancel()

    def _now(self) -> float:
        return self._means.wheel.seconds()

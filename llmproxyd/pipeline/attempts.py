"""The one retry loop: the attempts that one request gets, at one upstream after the other.

What is decided is decided by pure policies (``resilience/``) and by what is read of an answer
(``inspection/``); what moves (breakers, budgets, keys) is in :mod:`~llmproxyd.pipeline.live`.
The first attempt goes out at once; a further one only before the commit.
"""

from __future__ import annotations

from functools import partial
from math import inf

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.errors import ClientGone, ProxyError, UpstreamError
from llmproxyd.http.body import Kept
from llmproxyd.inspection.answerid import answer_id
from llmproxyd.inspection.content import StreamWatch
from llmproxyd.model import End, Response, Retrying
from llmproxyd.pipeline import judge, refusals, staged
from llmproxyd.pipeline.deadline import Deadline, comes
from llmproxyd.pipeline.ending import DO_NOT_RETRY, Ending
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate
from llmproxyd.pipeline.judge import Setback
from llmproxyd.pipeline.means import Means
from llmproxyd.pipeline.notes import Notes
from llmproxyd.pipeline.target import Fallbacks, own_target
from llmproxyd.pipeline.turn import Turn
from llmproxyd.pipeline.upstream import head_of
from llmproxyd.resilience.retry import decide
from llmproxyd.wire.agent import WireResponse, abort
from llmproxyd.wire.wheel import Timer


class Attempts(Ending):
    """All attempts of one exchange."""

    log = Logger()

    __slots__ = ("_body", "_first", "_others", "_wait")

    def __init__(self, exchange: Exchange, body: Kept, means: Means) -> None:
        self._exchange = exchange
        self._means = means
        self._turn = Turn(own_target(exchange, body), means.live)
        self._body = body
        self._others: Fallbacks | None = None
        self._wait: IDelayedCall | None = None
        self._first: Timer | None = None
        self._deadline: Deadline | None = None
        # Nothing is noted where nobody wants it.
        self._notes = None if exchange.record is None else Notes(exchange, means)
        self.number = 0

    def begin(self) -> None:
        """Make the first attempt, or say why none is made."""
        exchange, turn = self._exchange, self._turn
        exchange.closing = self._closed
        now = self._means.wheel.seconds()
        if comes(exchange, now, turn.upstream.timeouts.headers):
            left = self._left(now, inf)
            if left is not None and left <= 0:
                return  # the body took all the time; the deadline tells the client in a moment
        left = turn.begin(now)
        if left is not None:
            left = self._elsewhere(left)
            self._left(now, inf)  # which may be the more patient
        if left is None:
            self._attempt(now)
        else:
            name = turn.upstream.name
            drained = name in self._means.live.drained
            self._refuse_unasked(refusals.drained(name) if drained else refusals.circuit_open(name, left))

    def _left(self, now: float, within: float) -> float | None:
        """Seconds to the deadline, which is at work from now on; ``None`` where it is further away.

        :param within: seconds until this is asked again or the request is over.
        """
        deadline = self._deadline
        if deadline is None:
            if not comes(self._exchange, now, within):
                return None
            deadline = self._deadline = Deadline(self._exchange, self._means.wheel, self._overdue)
        return deadline.left(now)

    # One attempt.

    def _elsewhere(self, least: float) -> float | None:
        """Turn to the next upstream that stands in and lets a request through.

        :return: ``None``, or the least seconds until one may, *least* or less.
        """
        if self._others is None:
            self._others = Fallbacks(self._exchange, self._body)
        for target in self._others:
            turn, now = Turn(target, self._means.live), self._now()
            left = turn.begin(now)
            if left is None:
                self._turn.settle(now, failed=self._turn.failed)
                self._turn = turn
                return None
            least = min(least, left)
        return least

    def _attempt(self, now: float) -> None:
        """Send the request to the present upstream."""
        exchange, means, turn = self._exchange, self._means, self._turn
        if exchange.done:
            return
        upstream = turn.upstream
        exchange.upstream = upstream.name
        if len(upstream.keys) > 1:
            left = turn.take_key(now)
            if left is not None:
                self._refuse_resting(left)
                return
        self.number += 1
        exchange.attempts += 1
        exchange.asked = self._sent_at = now
        turn.failed = None
        holds = upstream.holds or bool(self._others)
        # What the plan has prepared does for the first one.
        going = turn.prepared or turn.outgoing(exchange.request, held=holds)
        if self._notes is not None:
            self._notes.begun(self.number, upstream.name, going.url)
        interim = None if holds else exchange.inform
        produce = turn.target.body.producer
        sending = None
        engine = means.rehearsal.engine
        if engine.active and engine.acts_upstream:
            self._left(now, inf)  # a rehearsed failure takes what time it likes
            sending = staged.send(exchange, upstream, going, produce, interim, means.sender, means.rehearsal)
        if sending is None:
            sending = means.sender.send(going, produce(), interim)
        exchange.work = sending.cancel
        sending.addCallbacks(self._answered, self._not_answered)

    def _answered(self, incoming: WireResponse) -> None:
        """The head of an answer is here."""
        exchange, upstream = self._exchange, self._turn.upstream
        granted = upstream.timeouts.first_content
        # One that stands in for another is looked at as long as there is a third.
        holds = upstream.holds or bool(self._others)
        watch: StreamWatch | None = None
        body: bytes | None = None
        try:
            head = head_of(incoming)
            if exchange.instead is not None and (head.status == 304 or not holds):
                self._turn.failed = head.status >= 500
                if self._instead_of(head):
                    abort(incoming)
                    return
            if holds or granted is not None:
                kind = judge.kind_of(exchange, upstream, head)
                if kind is judge.Kind.JSON:
                    body = incoming.whole if judge.evidently_good(incoming.whole) else None
                elif kind is judge.Kind.STREAM:
                    watch = judge.watch_of(exchange, head)
                if holds and body is None and kind is not judge.Kind.PASSES:
                    self._hold(incoming, head, watch, granted)
                    return
            if body is not None:
                self._pass_whole(head, body)
                return
            relay = self._commit(head, watch)
            incoming.forget_fields()
            incoming.deliverBody(relay)
            if exchange.responder is not None:
                exchange.responder.flush()
        except Exception:
            abort(incoming)
            self._broken(Failure())

    def _hold(
        self, incoming: WireResponse, head: Response, watch: StreamWatch | None, granted: float | None
    ) -> None:
        exchange, means, upstream = self._exchange, self._means, self._turn.upstream
        hold, idle = upstream.resilience.hold, upstream.timeouts.idle
        self._left(means.wheel.seconds(), hold.time)
        gate = Gate(incoming, head, watch, hold, means.wheel, self._opened, idle)
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
        setback = judge.judged(gate, self._turn.upstream, exchange)
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
        means, exchange, turn = self._means, self._exchange, self._turn
        upstream = turn.upstream
        exchange.work = None
        turn.failed = setback.counts
        now = means.wheel.seconds()
        if len(upstream.keys) > 1 and self._rest_key(setback, now):
            self._again(setback, gate, 0.0, "another key is tried")
            return
        retry = upstream.resilience.retry
        left = self._left(now, inf)
        decision = decide(retry, setback.failed, turn.tries, left=left, wall=means.wall(), draw=means.draw)
        delay, reason = decision.delay, decision.reason
        if delay is not None and not means.live.budget(upstream).take(now):
            delay, reason = None, "the retry budget is spent"
            self.log.warn(
                "{upstream} {words}, not trying again: its retry budget is spent [{id}]",
                upstream=upstream.name,
                words=setback.words,
                id=exchange.request_id,
            )
        if delay is not None:
            self._again(setback, gate, delay, reason)
            return
        if not decision.hopeless and self._elsewhere(0.0) is None:
            self._again(setback, gate, 0.0, reason, turn)
            return
        self._note(setback, gate, reason, None, turn)
        spent = decision.spent or decision.delay is not None
        more = DO_NOT_RETRY if spent and retry.max_retries and retry.tell_sdk_not_to_retry else ()
        self._hand_on(setback, gate, error, more)

    def _again(
        self,
        setback: Setback,
        gate: Gate | None,
        delay: float,
        reason: str,
        left: Turn | None = None,
    ) -> None:
        """Make another attempt in *delay* seconds.

        :param left: the turn that is over, where the next attempt goes elsewhere.
        """
        exchange, means, turn = self._exchange, self._means, self._turn
        before = left or turn
        if gate is not None:
            gate.throw_away()
        self._note(setback, gate, reason, delay, before)
        means.emit(
            Retrying(
                number=exchange.number,
                request_id=exchange.request_id,
                upstream=before.upstream.name,
                failed=setback.words,
                delay=delay,
                retry=turn.tries.retries,
                of=turn.upstream.resilience.retry.max_retries,
                to=turn.upstream.name,
                upstream_id=None if gate is None else answer_id(gate.head.headers),
            )
        )
        if delay > 0:
            self._wait = means.wheel.exactly(delay, self._waited)
            exchange.work = self._stop_waiting
        else:
            self._attempt(means.wheel.seconds())

    def _waited(self) -> None:
        """The wait before another attempt is over."""
        self._wait = None
        try:
            self._attempt(self._now())
        except Exception:
            self._broken(Failure())

    def _rest_key(self, setback: Setback, now: float) -> bool:
        """Whether another key is to be tried, as the one that was used is refused."""
        rested = self._turn.rest_key(setback, self._means.wall(), now)
        if rested is None:
            return False
        self._means.emit(rested)
        return rested.left > 0 and self._turn.has_other_keys

    # Where it ends.

    def _refuse_resting(self, left: float) -> None:
        name = self._turn.upstream.name
        if self._elsewhere(left) is None:
            self._attempt(self._now())
        else:
            self._refuse_unasked(refusals.keys_at_rest(name, left))

    def _broken(self, failure: Failure) -> None:
        """A fault of our own: the client is told, and nothing goes on."""
        exchange = self._exchange
        work, exchange.work = exchange.work, None
        self._means.failed(failure, exchange)
        if work is not None:
            work()

    def _closed(self, end: End) -> None:
        """The exchange is over: what does the breaker learn of it?"""
        if self._first is not None:
            self._stop_first()
        if self._deadline is not None:
            self._deadline.end()
        if self._wait is not None:
            self._stop_waiting()
        turn = self._turn
        permit = turn.permit
        if permit is not None:
            failed = self._exchange.failed or turn.failed
            if failed is False and end is End.COMPLETE:
                permit.succeeded(self._means.wheel.seconds())  # as nearly all of them
            else:
                # Who broke off a good answer was not the upstream, and it may yet have gone wrong.
                turn.settle(self._now(), failed=True if failed else None)

    def _stop_waiting(self) -> None:
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.cancel()

    def _stop_first(self) -> None:
        timer, self._first = self._first, None
        if timer is not None:
            timer.cancel()

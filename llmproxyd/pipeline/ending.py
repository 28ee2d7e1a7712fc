"""What the client gets in the end, of whatever attempt: an answer, a failure, a refusal."""

from __future__ import annotations

from llmproxyd.errors import ProxyError, Refused, Retryable
from llmproxyd.inspection.content import StreamWatch
from llmproxyd.model import RawHeaders, Response
from llmproxyd.pipeline import answer, judge
from llmproxyd.pipeline.commit import pass_whole
from llmproxyd.pipeline.deadline import Deadline
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.gate import Gate
from llmproxyd.pipeline.judge import Setback
from llmproxyd.pipeline.means import Means
from llmproxyd.pipeline.notes import Notes
from llmproxyd.pipeline.relay import Relay
from llmproxyd.pipeline.turn import Turn
from llmproxyd.resilience.verdict import HardStop

DO_NOT_RETRY = ((b"x-should-retry", b"false"),)
"""Tells the official SDKs that our attempts were theirs too."""


class Ending:
    """The ways in which the attempts for one exchange can end.

    :ivar number: of the present attempt, from 1, over all upstreams.
    """

    __slots__ = ("_deadline", "_exchange", "_means", "_notes", "_sent_at", "_turn", "number")

    # Set by the attempts themselves, in one go: they are made for every request.
    _deadline: Deadline | None
    _exchange: Exchange
    _means: Means
    _notes: Notes | None
    _sent_at: float
    _turn: Turn
    number: int

    def _let_through(self, gate: Gate) -> None:
        watch = None
        if gate.watch is not None and self._turn.upstream.timeouts.first_content is not None:
            watch = gate.watch if gate.watch.empty and not gate.watch.blind else None
        gate.pass_on(self._commit(gate.head, watch))
        self._flush()

    def _commit(self, head: Response, watch: StreamWatch | None = None, more: RawHeaders = ()) -> Relay:
        """Send the head of the answer to the client."""
        exchange, means, upstream = self._exchange, self._means, self._turn.upstream
        self._accept(head)
        timeouts = upstream.timeouts
        relay = Relay(
            exchange,
            means.wheel,
            means.wall,
            timeouts.idle,
            upstream.resilience.stream_keepalive,
            gather=upstream.flush_interval,
        )
        relay.begin(head, more)
        if watch is not None and timeouts.first_content is not None:
            granted = timeouts.first_content
            relay.expect_content(watch, granted, self._sent_at + granted - means.wheel.seconds())
        if self._deadline is not None and not exchange.done:
            self._deadline.committed()
        return relay

    def _pass_whole(self, head: Response, body: bytes) -> None:
        """Send an answer, all of which is here, that is no stream and uncoded."""
        self._accept(head)
        pass_whole(self._exchange, head, body, self._means.wheel.seconds, plain=True)
        if self._deadline is not None and not self._exchange.done:
            self._deadline.committed()

    def _accept(self, head: Response) -> None:
        """The answer with this head is the client's."""
        turn = self._turn
        permit = turn.permit
        failed = turn.failed = bool(turn.failed) or head.status >= 500
        self._exchange.work = None
        if permit is not None and permit.probes and not failed:
            # A stream may take hours, and nobody else would be let through as long.
            turn.settle(self._now(), failed=False)
        if self._notes is not None:
            self._notes.answered(head)

    def _instead_of(self, head: Response | None) -> bool:
        """Whether something else answers in the place of the upstream, or of its failure."""
        instead = self._exchange.instead
        if instead is None:
            return False
        return instead.failed() if head is None else instead.answered(head)

    def _flush(self) -> None:
        if self._exchange.responder is not None:
            self._exchange.responder.flush()

    def _hand_on(
        self, setback: Setback, gate: Gate | None, error: ProxyError | None, more: RawHeaders
    ) -> None:
        """Give the client the failure itself: the upstream's own answer, where there is one."""
        upstream, exchange = self._turn.upstream, self._exchange
        exchange.failed = error is not None and setback.counts
        if self._instead_of(None if gate is None or error is not None else gate.head):
            if gate is not None:
                gate.throw_away()
            return
        listed = judge.models_instead(exchange, upstream, setback)
        if listed is not None:
            exchange.failed = False
            if gate is not None:
                gate.throw_away()
                if self._notes is not None:
                    self._notes.answered(gate.head)
            answer.list_models(exchange, listed, self._means.wall(), self._means.wheel.seconds())
        elif error is not None:
            if gate is not None:
                gate.throw_away()
            self._refuse(error, more)
        else:
            assert gate is not None
            if gate.head.status < 400:
                exchange.instead = None  # nobody else is to be told that this is an answer
            gate.pass_on(self._commit(gate.head, None, more))
            self._flush()

    def _stop(self, setback: Setback, rule: HardStop, gate: Gate) -> None:
        """Answer with what the operator's rule says, and with what the upstream said beneath."""
        exchange, retry = self._exchange, self._turn.upstream.resilience.retry
        text, head = gate.text, gate.head
        gate.throw_away()
        self._turn.failed = setback.counts
        self._note(setback, gate, rule.description or "a hard_stop rule", None, self._turn)
        status = head.status if head.status >= 400 else 502
        more = [pair for pair in head.headers if pair[0].lower() == b"retry-after"][:1]
        if not more and status in (429, 503):
            more = [(b"retry-after", b"%d" % -int(-retry.max_wait // 1))]
        if retry.tell_sdk_not_to_retry:
            more += DO_NOT_RETRY
        original = text if rule.preserve_original_response else None
        wall, now = self._means.wall(), self._now()
        answer.hard_stop(exchange, status, rule.user_message, original, wall, now, more)

    def _refuse(self, error: ProxyError, more: RawHeaders = ()) -> None:
        answer.refuse(self._exchange, error, self._means.wall(), self._now(), more)

    def _refuse_unasked(self, error: Refused) -> None:
        """No upstream may be asked."""
        if self._instead_of(None):
            return
        listed = judge.models_instead(self._exchange, self._turn.upstream, Setback.of_error(error))
        if listed is None:
            self._refuse(error)
        else:
            answer.list_models(self._exchange, listed, self._means.wall(), self._now())

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
        self._note(setback, None, "the deadline came", None, self._turn)
        # A client may wait as briefly as it likes: that speaks against nobody.
        impatient = self._deadline is not None and self._deadline.impatient
        exchange.failed = self.number > 0 and not impatient
        if not self._instead_of(None):
            self._refuse(error)
        if work is not None:
            work()

    def _note(
        self,
        setback: Setback,
        gate: Gate | None,
        reason: str,
        delay: float | None,
        turn: Turn,
    ) -> None:
        if self._notes is not None:
            breaker = turn.breaker
            state = None if breaker is None else breaker.snapshot(self._now()).told()
            self._notes.failed(setback, gate, reason, delay, state)

    def _now(self) -> float:
        return self._means.wheel.seconds()

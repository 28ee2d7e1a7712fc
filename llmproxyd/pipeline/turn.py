"""One upstream's turn at a request: what it has used of its keys and retries, and how it does."""

from __future__ import annotations

from llmproxyd.model import CredentialRested, Request
from llmproxyd.pipeline.judge import Setback
from llmproxyd.pipeline.live import Live
from llmproxyd.pipeline.target import Target
from llmproxyd.pipeline.upstream import Outgoing
from llmproxyd.resilience.breaker import Breaker, Permit
from llmproxyd.resilience.credentials import Taken, rest_for
from llmproxyd.resilience.hints import wait_asked
from llmproxyd.resilience.retry import Tries
from llmproxyd.resilience.verdict import about_the_request, in_flight, too_long, unpaid

DRAINED = 30.0
"""Seconds until an upstream that an operator has drained may be asked for again."""


class Turn:
    """The turn of one upstream.

    A permit of its breaker is asked for once, for all attempts, and told one outcome.

    :ivar permit: leave of its breaker, as long as that was told nothing.
    :ivar prepared: what is sent but for the body, where nothing of it depends on this turn.
    :ivar failed: how it did, as far as it has answered: what its breaker is to know.
    """

    __slots__ = (
        "_live",
        "_taken",
        "_tries",
        "_used_up",
        "breaker",
        "failed",
        "permit",
        "prepared",
        "target",
        "upstream",
    )

    def __init__(self, target: Target, live: Live) -> None:
        self.target = target
        upstream = self.upstream = target.upstream
        self.prepared = target.prepared if len(upstream.keys) < 2 else None
        self.breaker: Breaker | None = None
        self.failed: bool | None = None
        self._live = live
        self.permit: Permit | None = None
        self._taken: Taken | None = None
        self._tries: Tries | None = None
        self._used_up = 0

    def begin(self, now: float) -> float | None:
        """Ask for admission: ``None``, or the seconds until there may be one."""
        live, upstream = self._live, self.upstream
        if upstream.name in live.drained:
            return DRAINED
        resilience = upstream.resilience
        policy = resilience.breaker
        if policy.enabled:
            breaker = self.breaker = live.breakers.of(policy, upstream.name, self.target.model)
            admitted = breaker.admit(now)
            if isinstance(admitted, float):
                return admitted
            self.permit = admitted
        if resilience.retry.max_retries:
            live.budget(upstream).requests(now)
        return None

    @property
    def tries(self) -> Tries:
        """The retries that it had."""
        if self._tries is None:
            self._tries = Tries()
        return self._tries

    def take_key(self, now: float) -> float | None:
        """Choose among several keys: ``None``, or the seconds until one may be used again."""
        ring = self._live.ring(self.upstream)
        if ring is None:
            return None
        self._taken = ring.take(now)
        return ring.soonest(now) if self._taken is None else None

    def outgoing(self, request: Request, *, held: bool) -> Outgoing:
        """What is sent upstream, but for the body."""
        key = None if self._taken is None else self._taken.key
        return self.target.outgoing(request, key, held=held)

    def rest_key(self, setback: Setback, wall: float, now: float) -> CredentialRested | None:
        """Put the key that was used to rest, if it is refused; ``None`` where it is not to blame."""
        ring, taken, failed = self._live.ring(self.upstream), self._taken, setback.failed
        status = failed.status
        if ring is None or taken is None or status is None:
            return None
        if too_long(failed.code, failed.body) or about_the_request(failed.code, failed.body):
            return None
        if status == 402 and in_flight(failed.body):
            return None
        asked = wait_asked(failed.headers, failed.body, wall, status)
        seconds = rest_for(402 if unpaid(failed.code, failed.body) else status, asked)
        if seconds is None:
            return None
        ring.rest(taken.index, seconds, now)
        self._used_up += 1
        return CredentialRested(
            upstream=self.upstream.name,
            which=taken.index + 1,
            status=status,
            seconds=seconds,
            left=ring.awake(now),
        )

    @property
    def has_other_keys(self) -> bool:
        """Whether there is a key that this request has not tried."""
        return self._used_up < len(self.upstream.keys)

    def settle(self, now: float, *, failed: bool | None) -> None:
        """Tell the breaker how it did, once; ``None`` for neither well nor badly."""
        permit, self.permit = self.permit, None
        if permit is None:
            return
        if failed is None:
            permit.abandoned(now)
        elif failed:
            permit.failed(now)
        else:
            permit.succeeded(now)

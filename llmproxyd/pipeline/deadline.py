"""The time that a whole request has, all its attempts and the waits between them included."""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.errors import Retryable
from llmproxyd.pipeline.exchange import Exchange
from llmproxyd.pipeline.plan import PATIENCE
from llmproxyd.units import format_duration
from llmproxyd.wire.wheel import TICK, Timer, Wheel

TOTAL = "timeouts.total"


def comes(exchange: Exchange, now: float, within: float) -> bool:
    """Whether the deadline of *exchange* may come *within* so many seconds.

    Mostly it may not, as the client's SDK is as patient as we are, and nothing need be set then.  A
    moment is no matter, which the wheel would not tell apart either.
    """
    plan = exchange.plan
    if plan is None or plan.route is None:
        return False
    patience = plan.patience
    if plan.route.upstream.timeouts.total is not None:
        return True
    return patience is not None and now + within > exchange.arrived + patience + 2 * TICK


class Deadline:
    """What ends a request that takes too long.

    An SDK's patience bounds the time to the commit alone: a stream that runs may take hours.

    :param expired: is told once, with the error that this is.
    """

    __slots__ = ("_arrived", "_expired", "_granted", "_name", "_timer", "_total", "_wheel")

    def __init__(self, exchange: Exchange, wheel: Wheel, expired: Callable[[Retryable], None]) -> None:
        plan, route = exchange.plan, exchange.route
        total = None if route is None else route.upstream.timeouts.total
        self._arrived = exchange.arrived
        self._total = total
        self._wheel = wheel
        self._expired: Callable[[Retryable], None] | None = expired
        self._granted: float | None = None
        self._name = ""
        self._timer: Timer | None = None
        patience = None if plan is None else plan.patience
        if patience is not None and (total is None or patience < total):
            self._grant(patience, PATIENCE.decode())
        else:
            self._grant(total, TOTAL)

    @property
    def impatient(self) -> bool:
        """Whether it is the client that does not wait as long as the upstream may take."""
        return self._granted != self._total

    def left(self, now: float) -> float | None:
        """Seconds until it, ``None`` if there is none."""
        return None if self._granted is None else self._arrived + self._granted - now

    def committed(self) -> None:
        """The answer is on its way: from now on the total alone counts."""
        if self._granted != self._total:
            self._stop()
            self._grant(self._total, TOTAL)

    def _grant(self, seconds: float | None, name: str) -> None:
        self._granted, self._name = seconds, name
        left = self.left(self._wheel.seconds())
        if left is not None:
            self._timer = self._wheel.start(max(left, 0), self._expire)

    def end(self) -> None:
        """The request is over; nobody is held on to."""
        self._stop()
        self._expired = None

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _expire(self) -> None:
        self._timer = None
        granted = format_duration(self._granted or 0)
        message = f"The request was not done within {granted} ({self._name})."
        if self._expired is not None:
            self._expired(Retryable(504, "total_timeout", message))

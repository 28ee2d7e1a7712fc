"""All that a named policy under ``resilience:`` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmproxyd.resilience.breaker import BreakerPolicy
from llmproxyd.resilience.retry import Retry
from llmproxyd.resilience.timeouts import TimeoutOverrides
from llmproxyd.resilience.verdict import HardStop, Recategorize
from llmproxyd.units import Duration, Size


@dataclass(frozen=True, slots=True)
class Hold:
    """How long an answer may be held before it is committed to.

    :param bytes: of its body, at most.
    :param time: seconds since its head, at most.
    """

    bytes: Size = 64 * 1024
    time: Duration = 10.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        for name in ("bytes", "time"):
            if getattr(self, name) < 0:
                yield name, f"found {getattr(self, name):g}; accepted: 0 or more"


@dataclass(frozen=True, slots=True)
class Resilience:
    """What absorbs failure on the way to an upstream.  By default nothing does.

    :param stream_keepalive: seconds of silence in a stream after which its client is sent an SSE
        comment; ``None`` for never.
    :param recategorize: answers that are taken for others; the first rule that matches holds.
    :param hard_stop: answers that are final; the first rule that matches holds.
    """

    timeouts: TimeoutOverrides = TimeoutOverrides()
    retry: Retry = Retry()
    breaker: BreakerPolicy = BreakerPolicy()
    hold: Hold = Hold()
    stream_keepalive: Duration | None = None
    recategorize: tuple[Recategorize, ...] = ()
    hard_stop: tuple[HardStop, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        if self.stream_keepalive is not None and self.stream_keepalive <= 0:
            yield (
                "stream_keepalive",
                f"found {self.stream_keepalive:g}, which would never stop; accepted: a duration above 0",
            )

    @property
    def holds(self) -> bool:
        """Whether an answer must be looked at before it is committed to."""
        return bool(self.retry.max_retries or self.recategorize or self.hard_stop)

"""How many attempts an upstream may get beyond the requests that are for it.

Retries help against a failure that is rare; against an outage they multiply the load that
keeps it going.  So they are granted as a share of the requests, over a sliding window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmproxyd.units import Duration

_BUCKETS = 10
"""Into which the window is cut: what is noted is forgotten by a tenth of it."""

_ROUNDING = 1e-9
"""Retries; 0.29 of 100 requests are 29, not 28.999999999999996."""


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """Retries never multiply an outage.

    :param ratio: retries per request, over the window.
    :param min_per_second: retries a second that are always granted.
    :param window: seconds over which both are counted.
    """

    ratio: float = 0.2
    min_per_second: float = 10.0
    window: Duration = 10.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the keys."""
        for name in ("ratio", "min_per_second"):
            if getattr(self, name) < 0:
                yield name, f"found {getattr(self, name):g}; accepted: 0 or more"
        if self.window <= 0:
            yield "window", f"found {self.window:g}; accepted: a duration above 0"


class Budget:
    """Grants the retries of one upstream.

    The bound: at the moment of each grant, that one included, no more than ``ratio`` × *requests
    noted* + ``min_per_second`` × ``window`` retries were granted in the ``window`` seconds before.
    Time is cut into tenths of the window.  A grant is remembered for a window at least and 1.1
    windows at most, a request for a window at most and 0.9 at least: so the bound is exact, and
    what is withheld beyond it is due to that tenth alone.  Nothing is saved up for later.

    :param now: monotonic seconds, as everywhere here; one that goes back is as if it stood still.
    """

    __slots__ = (
        "_allowed",
        "_granted",
        "_next",
        "_policy",
        "_requests",
        "_slot",
        "_start",
        "_tick",
        "_width",
    )

    def __init__(self, policy: BudgetPolicy, now: float) -> None:
        self._policy = policy
        self._allowed = policy.min_per_second * policy.window + _ROUNDING
        self._width = policy.window / _BUCKETS
        self._start = now
        self._tick = 0
        self._next = now + self._width
        self._slot = 0
        self._requests = [0] * (_BUCKETS + 1)
        self._granted = [0] * (_BUCKETS + 1)

    def adopt(self, policy: BudgetPolicy) -> bool:
        """Go by *policy* from now on, with what was granted so far; whether that can be, as the window is
        the same.
        """
        if policy.window != self._policy.window:
            return False
        self._policy = policy
        self._allowed = policy.min_per_second * policy.window + _ROUNDING
        return True

    def requests(self, now: float) -> None:
        """Note one request of a client's."""
        if now >= self._next:
            self._turn(now)
        self._requests[self._slot] += 1

    def take(self, now: float) -> bool:
        """Whether one retry is granted.  If so it is spent."""
        if now >= self._next:
            self._turn(now)
        if self._left() < 1:
            return False
        self._granted[self._slot] += 1
        return True

    def state(self, now: float) -> Mapping[str, object]:
        """What was granted over the window, for how many requests, and what is left."""
        if now >= self._next:
            self._turn(now)
        return {
            "granted": sum(self._granted),
            "requests": self._counted(),
            "left": max(0, int(self._left())),
        }

    def _counted(self) -> int:
        """Requests within the window: all but the oldest bucket, which may reach beyond it."""
        return sum(self._requests) - self._requests[(self._slot + 1) % len(self._requests)]

    def _left(self) -> float:
        return self._policy.ratio * self._counted() + self._allowed - sum(self._granted)

    def _turn(self, now: float) -> None:
        """Go on to the bucket of *now*, and forget what the buckets in between held."""
        # Counted from the start: a sum of widths would drift off.
        tick = int((now - self._start) / self._width)
        for _ in range(min(tick - self._tick, len(self._requests))):
            self._slot = (self._slot + 1) % len(self._requests)
            self._requests[self._slot] = self._granted[self._slot] = 0
        self._tick = tick
        self._next = self._start + (tick + 1) * self._width

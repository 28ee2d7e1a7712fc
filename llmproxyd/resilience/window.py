"""Outcomes over the last seconds, in a few numbers."""

from __future__ import annotations

BUCKETS = 10
"""Parts of a window.  It is left behind part by part: what it holds is 0.9 to 1 window old at most."""


class Window:
    """Outcomes of the last so many seconds, in :data:`BUCKETS` parts.

    Where the clock goes back all is counted in the latest part.

    :ivar calls: as of the last :meth:`age` or :meth:`add`, as is *failures*.
    """

    __slots__ = ("_calls", "_failures", "_slot", "_width", "calls", "failures", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._width = max(seconds / BUCKETS, 1e-6)
        self._slot = 0
        self.clear()

    def clear(self) -> None:
        """Forget all outcomes."""
        self.calls = self.failures = 0
        self._calls = [0] * BUCKETS
        self._failures = [0] * BUCKETS

    def age(self, now: float) -> None:
        """Forget what has left the window at *now* (monotonic seconds)."""
        slot = int(now / self._width)
        for passed in range(self._slot + 1, min(slot, self._slot + BUCKETS) + 1):
            place = passed % BUCKETS
            self.calls -= self._calls[place]
            self.failures -= self._failures[place]
            self._calls[place] = self._failures[place] = 0
        self._slot = max(slot, self._slot)

    def add(self, now: float, failed: bool) -> None:
        """Count one outcome."""
        self.age(now)
        place = self._slot % BUCKETS
        self.calls += 1
        self._calls[place] += 1
        self.failures += failed
        self._failures[place] += failed

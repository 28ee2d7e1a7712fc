"""Rate limits of one host, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from llmproxyd.access.buckets import holds, owing, refilled, remaining, until_full, wait
from llmproxyd.limits.interface import Standing, Taken, Want

MOST = 100_000
"""Buckets that are kept, some 250 bytes each.

Beyond that the one that was left alone for longest is forgotten, and is full when it is asked for
again.  Whoever was left alone for a minute is full anyway, so this gives something away only where
more keys than these are active within one minute.
"""


class MemoryLimiter:
    """Token buckets in one dictionary.

    :param now: seconds of a monotonic clock; one that jumps does no harm.
    :param most: buckets that are kept.
    """

    def __init__(self, now: Callable[[], float], *, most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()  # level, since when

    def take(self, wants: Sequence[Want]) -> Taken:
        """Take all of *wants*, or nothing; their keys differ."""
        now = self._now()
        found = []
        admitted = True
        for want in wants:
            bucket = self._bucket(want.key, want.per_minute, now)
            found.append(bucket)
            if not holds(bucket[0], want.amount):
                admitted = False
        if admitted:
            for want, bucket in zip(wants, found, strict=True):
                bucket[0] -= want.amount
        return taken(wants, [bucket[0] for bucket in found], admitted)

    def spend(self, wants: Sequence[Want]) -> None:
        """Take the amounts in any case."""
        now = self._now()
        for want in wants:
            bucket = self._bucket(want.key, want.per_minute, now)
            bucket[0] = owing(bucket[0], want.amount, want.per_minute)

    def state(self) -> dict[str, object]:
        """For status and metrics."""
        return {"backend": "memory", "buckets": len(self._buckets)}

    def close(self) -> None:
        """Nothing is held open."""

    def _bucket(self, key: str, per_minute: int, now: float) -> list[float]:
        buckets = self._buckets
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = [float(per_minute), now]
            if len(buckets) > self._most:
                buckets.popitem(last=False)
            return bucket
        buckets.move_to_end(key)
        bucket[0] = refilled(bucket[0], bucket[1], per_minute, now)
        bucket[1] = now
        return bucket


def taken(wants: Sequence[Want], levels: Sequence[float], admitted: bool) -> Taken:
    """What is told of *wants*, whose buckets hold *levels* now."""
    standings = []
    longest = 0.0
    for want, level in zip(wants, levels, strict=True):
        standings.append(Standing(want, remaining(level), until_full(level, want.per_minute)))
        if not admitted:
            longest = max(longest, wait(level, want.amount, want.per_minute))
    return Taken(longest, tuple(standings))

"""Deadlines by the thousand: one clock tick serves them all.

A timer of Twisted's costs a heap operation when it is set, moved and cancelled, which every
request does several times.  Here a deadline is a place in a bucket of a tick's width: setting
and cancelling are a dictionary's, moving it on is one assignment.  What is lost is precision:
a deadline is noticed up to two ticks late, never early.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

TICK = 0.1
"""Seconds."""


class Timer:
    """One deadline; made by :meth:`Wheel.start`."""

    __slots__ = ("_expired", "_slot", "_wheel", "due")

    def __init__(self, wheel: Wheel, due: float, expired: Callable[[], None]) -> None:
        self.due = due
        self._wheel = wheel
        self._slot = -1
        self._expired: Callable[[], None] | None = expired

    @property
    def active(self) -> bool:
        """Whether it can still expire."""
        return self._expired is not None

    def restart(self, seconds: float) -> None:
        """Expire *seconds* from now instead.  To move it on is cheap, to shorten it is not."""
        if self._expired is None:
            return
        due = self._wheel.seconds() + seconds
        if due < self.due:
            self._wheel.drop(self)
            self.due = due
            self._wheel.put(self)
        else:
            self.due = due

    def cancel(self) -> None:
        """It does not expire any more; does nothing the second time."""
        if self._expired is not None:
            self._expired = None
            self._wheel.drop(self)


class Wheel:
    """All deadlines of one reactor.

    :param tick: seconds between two looks.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, tick: float = TICK) -> None:
        self.seconds: Callable[[], float] = clock.seconds
        self._clock = clock
        self._tick = tick
        self._buckets: dict[int, dict[Timer, None]] = {}
        self._next: IDelayedCall | None = None
        self._passed = self._slot_of(clock.seconds())

    def start(self, seconds: float, expired: Callable[[], None]) -> Timer:
        """A deadline *seconds* from now, at which *expired* is called once."""
        due = self.seconds() + seconds
        timer = Timer(self, due, expired)
        # What :meth:`put` does, where others with the same time to go came before: one after the other does.
        slot = int(due / self._tick) + 1
        bucket = self._buckets.get(slot)
        if bucket is None or slot <= self._passed:
            self.put(timer)
        else:
            timer._slot = slot
            bucket[timer] = None
        return timer

    def exactly(self, seconds: float, expired: Callable[[], None]) -> IDelayedCall:
        """The same without a tick's delay, at the price of a timer: for what is rare."""
        return self._clock.callLater(seconds, expired)

    @property
    def waiting(self) -> int:
        """How many deadlines are set."""
        return sum(map(len, self._buckets.values()))

    def put(self, timer: Timer) -> None:
        """Give *timer* its bucket: the first that is looked at when it is due."""
        if not self._buckets:
            # After a rest: what has passed meanwhile held nothing.
            self._passed = max(self._passed, self._slot_of(self.seconds()))
        slot = max(int(timer.due / self._tick), self._passed) + 1
        timer._slot = slot
        bucket = self._buckets.get(slot)
        if bucket is None:
            self._buckets[slot] = {timer: None}
        else:
            bucket[timer] = None
        if self._next is None:
            self._next = self._clock.callLater(self._tick, self._turn)

    def drop(self, timer: Timer) -> None:
        """Take *timer* out of its bucket."""
        bucket = self._buckets.get(timer._slot)
        if bucket is not None:
            bucket.pop(timer, None)
            if not bucket:
                del self._buckets[timer._slot]
                if not self._buckets:
                    self.stop()

    def stop(self) -> None:
        """Forget all of them."""
        self._buckets.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _slot_of(self, when: float) -> int:
        return int(when / self._tick)

    def _turn(self) -> None:
        self._next = None
        now = self.seconds()
        reached = self._slot_of(now)
        if reached - self._passed > len(self._buckets):
            due = sorted(slot for slot in self._buckets if slot <= reached)
        else:
            due = [slot for slot in range(self._passed + 1, reached + 1) if slot in self._buckets]
        self._passed = reached
        for slot in due:
            for timer in list(self._buckets.pop(slot, ())):
                self._look_at(timer, now)
        if self._buckets and self._next is None:
            self._next = self._clock.callLater(self._tick, self._turn)

    def _look_at(self, timer: Timer, now: float) -> None:
        expired = timer._expired
        if expired is None:
            return
        if timer.due > now:
            self.put(timer)
            return
        timer._expired = None
        try:
            expired()
        except Exception:
            self.log.failure("what was to happen at a deadline failed")

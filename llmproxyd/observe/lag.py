"""How late the event loop runs what is due: the first thing to look at when everything is slow."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.task import LoopingCall

INTERVAL = 0.5
"""Seconds between two looks."""

WINDOW = 60.0
"""Seconds that a delay is remembered: longer than scrapes are apart, so that each is seen."""


class Lag:
    """Measures by how much a call comes too late that is due every *interval*.

    :param clock: the reactor's, in monotonic seconds.
    """

    def __init__(self, clock: Any, interval: float = INTERVAL, window: float = WINDOW) -> None:
        self._clock = clock
        self._interval = interval
        self._late: deque[float] = deque([0.0], maxlen=max(1, round(window / interval)))
        self._due = 0.0
        self._call = LoopingCall.withCount(self._look)
        self._call.clock = clock

    def start(self) -> None:
        """Measure from now on."""
        self._due = self._clock.seconds() + self._interval
        self._call.start(self._interval, now=False)

    def stop(self) -> None:
        """Measure no more."""
        if self._call.running:
            self._call.stop()

    @property
    def worst(self) -> float:
        """Seconds of the longest delay within the window."""
        return max(self._late)

    def _look(self, intervals: int) -> None:
        # A long delay swallows some looks: what it is late for is the first of them.
        self._late.append(max(0.0, self._clock.seconds() - self._due))
        self._due += intervals * self._interval

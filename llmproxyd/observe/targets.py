"""How each upstream did when it was last asked: what health checks tell without asking it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from llmproxyd.model import End, Event, Finished
from llmproxyd.observe.sink import Batched

Status = Literal["ok", "failing", "unknown"]


class Targets(Batched):
    """A subscriber of the sink that remembers the last outcome at each upstream.

    What was injected or refused here says nothing about an upstream, nor does a request whose
    client left.
    """

    def __init__(self) -> None:
        self._last: dict[str, Status] = {}

    def __call__(self, event: Event) -> None:
        """Take *event*."""
        if type(event) is Finished:
            self.finished(iter((event,)))

    def finished(self, events: Iterator[Finished]) -> None:
        """Take *events*."""
        told: set[str] = set()
        for event in reversed(list(events)):
            if event.upstream in told:
                continue  # a later one has told
            if event.failed:
                self._last[event.upstream] = "failing"
            elif event.code is None and event.fault is None and event.end is End.COMPLETE:
                self._last[event.upstream] = "ok" if event.status < 500 else "failing"
            else:
                continue
            told.add(event.upstream)

    def status(self, upstream: str) -> Status:
        """The last known state of *upstream*, ``unknown`` as long as nobody asked it."""
        self.settle()
        return self._last.get(upstream, "unknown")

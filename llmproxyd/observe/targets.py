"""How each upstream did when it was last asked: what health checks tell without asking it."""

from __future__ import annotations

from typing import Literal

from llmproxyd.model import End, Event, Finished

Status = Literal["ok", "failing", "unknown"]


class Targets:
    """A subscriber of the sink that remembers the last outcome at each upstream.

    What was injected or refused here says nothing about an upstream, nor does a request whose
    client left.
    """

    def __init__(self) -> None:
        self._last: dict[str, Status] = {}

    def __call__(self, event: Event) -> None:
        """Take *event*."""
        if type(event) is not Finished:
            return
        if event.failed:
            self._last[event.upstream] = "failing"
        elif event.code is None and event.fault is None and event.end is End.COMPLETE:
            self._last[event.upstream] = "failing" if event.status >= 500 else "ok"

    def status(self, upstream: str) -> Status:
        """The last known state of *upstream*, ``unknown`` as long as nobody asked it."""
        return self._last.get(upstream, "unknown")

"""The request log: one line a request, formatted here and written in batches.

On a terminal a request is also announced when it arrives.  Lines hold the path without its
query (Gemini's ``?key=`` stands there), and never a header value or a body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import TypeGuard

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from llmproxyd.model import (
    Arrived,
    BreakerChanged,
    CredentialRested,
    End,
    Event,
    FaultsChanged,
    Finished,
    Retrying,
    WallClock,
)
from llmproxyd.observe import journald
from llmproxyd.observe.logs import json_line, json_time, text_time
from llmproxyd.observe.output import Output

Absorbed = Retrying | BreakerChanged | CredentialRested
"""What tells of failures that a client may never see."""

Line = Arrived | Finished | FaultsChanged | Absorbed
"""Events that have a line here."""

FLUSH = 0.05
"""Seconds that a line may wait for others."""

NAMESPACE = "llmproxyd.requests"
"""What the lines belong to, as far as their level is concerned."""

BATCH = 500
"""Lines that are written at once at the latest."""


class RequestLog:
    """A subscriber of the sink.

    :param least: ``info`` writes every request, ``warn`` only those that the proxy answered
        because something failed and what it did about failures, ``error`` and ``critical`` none.
    """

    def __init__(
        self,
        output: Output,
        clock: IReactorTime,
        wall: WallClock,
        *,
        as_json: bool,
        least: str = "info",
    ) -> None:
        self._output = output
        self._clock = clock
        self._wall = wall
        self._as_json = as_json
        self._line: Callable[[Line, float], str] = json_event if as_json else self._text_event
        self._format = self._marked if output.journald else self._line
        self._least = least
        self._waiting: list[str] = []
        self._timer: IDelayedCall | None = None

    def __call__(self, event: Event) -> None:
        """Take *event*; its line follows within :data:`FLUSH` seconds."""
        if not self._wanted(event):
            return
        # Kept as text: thousands of events that wait would keep the garbage collector at work.
        self._waiting.append(self._format(event, self._wall()))
        if len(self._waiting) >= BATCH:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(FLUSH, self.flush)

    @property
    def announces(self) -> bool:
        """Whether a request is told of when it arrives."""
        return self._least in ("debug", "info") and self._output.terminal and not self._as_json

    def set_level(self, namespace: str, level: str) -> None:
        """Write from *level* on, where *namespace* is that of these lines or above it."""
        if f"{NAMESPACE}.".startswith(f"{namespace.rstrip('.')}."):
            self._least = level

    def flush(self) -> None:
        """Write what is waiting."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._output.write("".join(waiting))

    def _wanted(self, event: Event) -> TypeGuard[Line]:
        every = self._least in ("debug", "info")
        if isinstance(event, Finished):
            return every or (self._least == "warn" and event.code is not None)
        if isinstance(event, Arrived):
            return every and self._output.terminal and not self._as_json
        if isinstance(event, FaultsChanged):
            watched = self._output.terminal and not self._as_json
            return every and not (watched and event.commanded)
        return isinstance(event, Absorbed) and (every or self._least == "warn")

    def _marked(self, event: Line, wall: float) -> str:
        return journald.marked(self._line(event, wall), level_of(event))

    def _text_event(self, event: Line, wall: float) -> str:
        return f"{text_time(wall)} {text_event(event, symbols=self._output.symbols)}\n"


def level_of(event: Line) -> str:
    """``warn`` for what tells of a failure."""
    failed = event.code is not None if isinstance(event, Finished) else isinstance(event, Absorbed)
    return "warn" if failed else "info"


def text_event(event: Line, *, symbols: bool) -> str:
    """*event* in a line for people."""
    if not isinstance(event, (Finished, Arrived)):
        sign, told = _told(event)
        return f"{sign} {told}" if symbols else told
    way = _way(event.method, event.path, event.provider, event.upstream)
    if isinstance(event, Arrived):
        return f"{'📨 ' if symbols else ''}#{event.number} {way}"
    sign = _sign(event) + " " if symbols else ""
    told = (
        f"{sign}#{event.number} {way}: {event.status} in {event.duration * 1000:.0f} ms, {event.sent} bytes"
    )
    if event.fault is not None:
        told += f" (injected {event.fault}{', never reached' if event.unreached else ''})"
    if event.end is not End.COMPLETE and event.end is not End.CLIENT_GONE:
        told += f" (cut: {event.end})"
    if event.code is not None:
        told += f" {event.code}" if event.detail is None else f" {event.code}: {event.detail}"
    return f"{told} [{event.request_id}]"


def _told(event: FaultsChanged | Absorbed) -> tuple[str, str]:
    """The symbol and the text of what is not the line of a request."""
    if isinstance(event, FaultsChanged):
        return "🔧", f"Mode: {event.words} ({event.cause})"
    if isinstance(event, Retrying):
        again = f"trying again in {event.delay:.1f} s ({event.retry} of {event.of})"
        if event.to != event.upstream:
            again = f"trying {event.to} instead"
        elif not event.retry:
            again = "trying another key"
        return "🔁", f"{event.upstream} {event.failed}, {again} [{event.request_id}]"
    if isinstance(event, BreakerChanged):
        told = f"Breaker {event.name}: {event.before} -> {event.after}, {event.cause}"
        told += f"; next probe in {_seconds(event.seconds)}" if event.seconds > 0 else ""
        return "✅" if event.after == "closed" else "⚠️", told
    rest = f"rests for {_seconds(event.seconds)} after a {event.status}"
    return "🔑", f"{event.upstream}: key {event.which} {rest}; {event.left} left"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}".removesuffix(".0") + " s"


@lru_cache(maxsize=256)
def _way(method: str, path: str, provider: str, upstream: str) -> str:
    """What was asked for and who was asked: the same for most requests of a client."""
    via = "" if upstream in (provider, "-") else f" at {upstream}"
    return f"{method} {path} -> {provider}{via}"


def _sign(event: Finished) -> str:
    if event.fault is not None:
        return "💥"
    if event.end is End.CLIENT_GONE:
        return "👋"
    return "✅" if event.code is None and event.status < 400 else "⚠️"


def json_event(event: Line, wall: float) -> str:
    """*event* as a line of JSON."""
    members: dict[str, object] = {"ts": json_time(wall), "level": level_of(event)}
    if not isinstance(event, (Finished, Arrived)):
        if isinstance(event, FaultsChanged):
            members |= {"event": "faults", "mode": event.words, "cause": event.cause}
        else:
            members |= {"event": _ABSORBED[type(event)], **asdict(event)}
        return json_line(members)
    members |= {
        "event": "arrived" if isinstance(event, Arrived) else "request",
        "number": event.number,
        "request_id": event.request_id,
        "method": event.method,
        "path": event.path,
        "provider": event.provider,
        "upstream": event.upstream,
    }
    if isinstance(event, Finished):
        members |= {
            "status": event.status,
            "ms": round(event.duration * 1000, 1),
            "bytes": event.sent,
            "injected": event.fault,
            "end": event.end.value,
            "code": event.code,
            "detail": event.detail,
        }
        if event.unreached:
            members["unreached"] = True
    return json_line(members)


_ABSORBED: dict[type[Absorbed], str] = {
    Retrying: "retry",
    BreakerChanged: "breaker",
    CredentialRested: "credential_rested",
}

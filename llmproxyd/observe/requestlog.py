"""The request log: one line a request, formatted here and written in batches.

On a terminal a request is also announced when it arrives.  Lines hold the path without its
query (Gemini's ``?key=`` stands there), and never a header value or a body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
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
from llmproxyd.observe.sink import Batched

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

_COMPLETE = End.COMPLETE


class RequestLog(Batched):
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
        if type(event) is Finished:
            self.finished(iter((event,)))
        elif self._wanted(event):
            self._waiting.append(self._format(event, self._wall()))
            self._write_soon()

    def finished(self, events: Iterator[Finished]) -> None:
        """Take *events*; their lines follow likewise."""
        every, failures = self._every, self._least == "warn"
        if every and not self._as_json:
            self._add_texts(events)
        elif every or failures:
            for event in events:
                if every or event.code is not None:
                    self._waiting.append(self._format(event, event.wall))
        self._write_soon()

    def _add_texts(self, events: Iterator[Finished]) -> None:
        """Add the lines of *events* for people.

        They ended within :data:`FLUSH` seconds, so the time is told of the first one.  What most have in
        common with the one before them stands in *way* already.
        """
        lines, symbols = self._waiting, self._output.symbols
        mark = journald.mark_of("info") if self._output.journald else ""
        time = way = method = path = provider = upstream = ""
        status = 0
        for event in events:
            if not time:
                time = mark + text_time(event.wall)
            plain = event.code is None and event.fault is None and event.end is _COMPLETE
            if symbols or not plain:
                lines.append(self._format(event, event.wall))
                continue
            if not (
                event.path == path
                and event.status == status
                and event.upstream == upstream
                and event.provider == provider
                and event.method == method
            ):
                method, path, provider, upstream = event.method, event.path, event.provider, event.upstream
                status = event.status
                way = f"{_way(method, path, provider, upstream)}: {status} in "
            taken = int(event.duration * 1000 + 0.5)
            lines.append(f"{time} #{event.number} {way}{taken} ms, {event.sent} bytes [{event.request_id}]\n")

    def waiting(self) -> None:
        """Lines are to follow before long."""
        if self._timer is None and (self._every or self._least == "warn"):
            self._timer = self._clock.callLater(FLUSH, self.flush)

    def _write_soon(self) -> None:
        if len(self._waiting) >= BATCH:
            self.flush()
        elif self._waiting and self._timer is None:
            self._timer = self._clock.callLater(FLUSH, self.flush)

    @property
    def announces(self) -> bool:
        """Whether a request is told of when it arrives."""
        return self._every and self._output.terminal and not self._as_json

    def set_level(self, namespace: str, level: str) -> None:
        """Write from *level* on, where *namespace* is that of these lines or above it."""
        if f"{NAMESPACE}.".startswith(f"{namespace.rstrip('.')}."):
            self.settle()
            self._least = level

    def flush(self) -> None:
        """Write what is waiting."""
        self.settle()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._output.write("".join(waiting))

    @property
    def _every(self) -> bool:
        return self._least in ("debug", "info")

    def _wanted(self, event: Event) -> TypeGuard[Line]:
        every = self._every
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
    taken = int(event.duration * 1000 + 0.5)
    told = f"{sign}#{event.number} {way}: {event.status} in {taken} ms, {event.sent} bytes"
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


def _way(method: str, path: str, provider: str, upstream: str) -> str:
    """What was asked for and who was asked."""
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

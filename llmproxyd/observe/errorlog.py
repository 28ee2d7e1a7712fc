"""The error log: a file for each thing that failed, filed under its code.

Every attempt that failed, every breaker that opened and every error of ours is one record, in
the format of the SillyTavern middleware; what it did not know (the breaker, the times, a trace)
is added.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmproxyd.config.schema import ErrorLogging
from llmproxyd.model import BreakerChanged, ErrorNoted, Event, RawHeaders, WallClock
from llmproxyd.observe.files import STAMP, Folder, file_word, local_time, stamp
from llmproxyd.observe.requestfiles import LINE, RULE, body_text, phrase
from llmproxyd.observe.writer import Writer
from llmproxyd.redaction import Redactor

NAMES = re.compile(rf"(?P<code>[A-Za-z0-9.-][A-Za-z0-9._-]*)_(?P<stamp>{STAMP})(?:_\d{{1,3}})?\.log")
"""What the files are called: ``{code}_{YYYYMMDD_HHMMSS_mmm}.log``."""

LISTED = 100
"""Files that a summary names."""

MEGABYTE = 1_000_000

HOUR = 3600.0
HOURS = 24

_OVERHEAD = 4096


class ErrorLog:
    """A subscriber of the sink.

    :ivar folder: where they go.
    :ivar redactor: for the records from now on.
    """

    def __init__(self, settings: ErrorLogging, writer: Writer, redactor: Redactor, wall: WallClock) -> None:
        self._settings = settings
        self.folder = Folder(
            settings.folder,
            max_files=settings.max_files,
            names=NAMES,
            max_bytes=settings.max_file_size_mb * MEGABYTE,
        )
        self._writer = writer
        self._wall = wall
        self.redactor = redactor

    def __call__(self, event: Event) -> None:
        """Have *event* written if it tells of a failure; it is not looked into before that."""
        if isinstance(event, BreakerChanged):
            event = _breaker_record(event, self._wall())
        if isinstance(event, ErrorNoted):
            self._writer.put(ErrorRecord(event, self.folder, self.redactor, self._settings))

    def summary(self) -> Mapping[str, object]:
        """What ``/logs/errors`` tells.  It reads the folder: not for the reactor's thread."""
        state = self._writer.state()
        found = summary(self.folder, self._wall())
        counts = {name: state[name] for name in ("queued", "dropped", "failed")}
        return {"enabled": self._settings.enabled, **found, **counts}


def _breaker_record(event: BreakerChanged, wall: float) -> ErrorNoted:
    verb = "lets a probe through" if event.after == "half-open" else f"is {event.after}"
    return ErrorNoted(
        code="circuit_" + event.after.replace("-", "_"),
        error_type="CircuitBreaker",
        message=f"The circuit breaker of {event.name} {verb}: {event.cause}",
        wall=wall,
        context={"request_type": "circuit_breaker", "name": event.name},
        breaker={
            "name": event.name,
            "state": event.after,
            "before": event.before,
            "cause": event.cause,
            "seconds": event.seconds,
        },
    )


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """The file of one error, to be."""

    event: ErrorNoted
    folder: Folder
    redactor: Redactor
    settings: ErrorLogging

    @property
    def stem(self) -> str:
        """``503_20250830_143045_123``."""
        return f"{file_word(self.event.code, 'error')}_{stamp(self.event.wall)}"

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        body = self.event.body
        return _OVERHEAD + len(self.event.trace or "") + (0 if body is None else len(body.data))

    def render(self, name: str) -> str:
        """The whole file."""
        event = self.event
        redactor = self.redactor.knowing(event.secrets)
        when = local_time(event.wall).isoformat(timespec="microseconds")
        lines = [RULE, f"ERROR LOG - {when}", RULE]
        lines += [f"Error Code: {file_word(event.code, 'error')}", f"File: {name}", "", *_retry(event)]
        lines += ["ERROR DETAILS:", LINE]
        details = _details(event, redactor, self.settings, when)
        lines.append(json.dumps(details, ensure_ascii=False, indent=2, default=str))
        if self.settings.include_stack_traces and event.trace:
            lines += ["", "STACK TRACE:", LINE, event.trace.rstrip()]
        # Once more as a whole: keys of context and numbers have not been looked at.
        return redactor.text("\n".join(lines) + "\n")


def _retry(event: ErrorNoted) -> Iterator[str]:
    """The section on what follows, where this was an attempt of several."""
    if event.attempt is None or (event.delay is None and event.attempt == 1):
        return
    yield LINE
    yield f"RETRY ATTEMPT #{event.attempt}"
    yield (
        "Retry Delay: none, it was the last"
        if event.delay is None
        else f"Retry Delay: {event.delay:.2f} seconds"
    )
    yield LINE
    yield ""


def _details(event: ErrorNoted, redactor: Redactor, settings: ErrorLogging, when: str) -> dict[str, object]:
    body = event.body
    details: dict[str, object] = {
        "timestamp": when,
        "error_type": event.error_type,
        "error_message": redactor.text(event.message),
        "status_code": event.status,
        "status_text": None if event.status is None else phrase(event.status),
        "url": None if event.url is None else redactor.url(event.url),
        "headers": _fields(event.headers, redactor),
        "response_text": None if body is None else body_text(body, event.headers, redactor, pretty=False),
    }
    if settings.include_request_context:
        details["context"] = _context(event, redactor)
    details |= {"retry_attempt": event.attempt, "retry_delay": event.delay, "final": event.final}
    details["request_id"] = event.request_id
    if event.breaker is not None:
        details["circuit_breaker"] = _clean(event.breaker, redactor)
    if settings.include_timing:
        details["timing"] = {"elapsed": event.elapsed}
    return details


def _context(event: ErrorNoted, redactor: Redactor) -> dict[str, object]:
    context = {"request_type": "forward_request", "target_url": event.url, **event.context}
    found = {name: _clean(value, redactor) for name, value in context.items() if value is not None}
    found["timestamp"] = event.wall
    if event.request_headers:
        found["request_headers"] = _fields(event.request_headers, redactor)
    return found


def _fields(headers: RawHeaders, redactor: Redactor) -> dict[str, str]:
    """Header fields by name, those of one name in one."""
    found: dict[str, str] = {}
    for name, value in redactor.fields(headers):
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _clean(value: object, redactor: Redactor) -> object:
    """*value* without secrets in its texts, whatever holds them."""
    if isinstance(value, str | bytes):
        return redactor.url(value) if isinstance(value, str) and "://" in value else redactor.text(value)
    if isinstance(value, Mapping):
        return {str(name): _clean(member, redactor) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(member, redactor) for member in value]
    return value


def summary(folder: Folder, now: float) -> Mapping[str, object]:
    """What is in *folder*, from its files' names and times.

    :param now: seconds since the epoch.
    :returns: ``files`` (newest first, :data:`LISTED` at most, each with ``name``, ``code``,
        ``size`` in bytes and ``modified``), ``total_files``, ``total_size``, ``by_code``,
        ``oldest``, ``newest``, and ``last_24_hours``: a count an hour, the present one last.
    """
    found = sorted(folder.files(), key=lambda file: (file.modified, file.name), reverse=True)
    codes = Counter(_code(file.name) for file in found)
    hours = [0] * HOURS
    for file in found:
        ago = int(max(now - file.modified, 0.0) // HOUR)
        if ago < HOURS:
            hours[HOURS - 1 - ago] += 1
    return {
        "folder": str(folder.path),
        "total_files": len(found),
        "total_size": sum(file.size for file in found),
        "by_code": dict(codes.most_common()),
        "oldest": _time(found[-1].modified) if found else None,
        "newest": _time(found[0].modified) if found else None,
        "last_24_hours": {"total": sum(hours), "by_hour": hours},
        "files": [
            {"name": f.name, "code": _code(f.name), "size": f.size, "modified": _time(f.modified)}
            for f in found[:LISTED]
        ],
    }


def _code(name: str) -> str:
    match = NAMES.fullmatch(name)
    return "" if match is None else match["code"]


def _time(wall: float) -> str:
    return local_time(wall).astimezone().isoformat(timespec="milliseconds")

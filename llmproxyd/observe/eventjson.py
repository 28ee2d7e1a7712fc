"""How one finished request becomes one JSON object, for files, webhooks and streams.

The members' names are documented in docs/events.rst and stay as they are: programs read them.
All stand in every event, ``null`` where nothing is known, but for the bodies, which stand there
only when they were captured.  What a client or an upstream chose (path, model) is
without secrets and bounded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from llmproxyd.inspection.findings import MOST
from llmproxyd.inspection.inflate import inflater
from llmproxyd.inspection.prices import Prices
from llmproxyd.model import Body, Captured, End, Finished, Reading
from llmproxyd.redaction import Redactor, printable

TEXT = 512
"""Characters of a text that others chose."""

CLEAR = 4
"""Times as many bytes as were captured may come of them when they are inflated."""

_GZIP = b"\x1f\x8b"
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context §3.2: later versions may say more, behind that."""

_ENDS = {end: end.value for end in End} | {End.CLIENT_GONE: "client_abort"}
_NOTHING_READ = Reading()
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_OVERHEAD = 1024
_ALL = (1 << 62, 1 << 62)


@dataclass(frozen=True, slots=True)
class Told:
    """A finished request on its way out.

    :param id: of the event; the same however often it is sent.
    :param wall: seconds since the epoch when the request ended.
    """

    id: str
    wall: float
    finished: Finished
    size: int = field(init=False)
    """Bytes that it holds while it waits, about."""

    def __post_init__(self) -> None:
        captured = self.finished.captured
        size = _OVERHEAD
        if captured is not None:
            size += sum(len(body.data) for body in (captured.request, captured.response) if body)
        object.__setattr__(self, "size", size)


class EventFormat:
    """Tells of requests.  Any thread may use it.

    :param redactor: knows the secrets of the configuration.
    :param bodies: bytes that are told of the bodies of request and answer, as far as they were kept.
    """

    def __init__(self, redactor: Redactor, prices: Prices, bodies: tuple[int, int] = _ALL) -> None:
        self._redactor = redactor
        self._bodies = bodies
        self._prices = prices
        # Few paths and models make up most requests.
        self._cleaned = lru_cache(maxsize=1024)(self._clean)

    def line(self, told: Told) -> bytes:
        """*told* as JSON on a line of its own."""
        # Lone surrogates, which are no UTF-8, become escapes that are JSON's too.
        return (self.text(told) + "\n").encode("utf-8", "backslashreplace")

    def text(self, told: Told) -> str:
        """*told* as JSON, without a line feed."""
        return _JSON.encode(self.members(told))

    def members(self, told: Told) -> dict[str, Any]:
        """*told* as an object."""
        finished = told.finished
        reading = finished.reading or _NOTHING_READ
        told_of: dict[str, Any] = {
            "id": told.id,
            "event": "request",
            "ts": time_text(told.wall),
            "request_id": self._text(finished.request_id),
            "project": finished.project,
            "token": finished.token,
            "client": finished.peer,
            "traceparent": trace(finished.traceparent),
            "test": self._text(finished.test),
            "method": self._text(finished.method),
            "path": self._text(finished.path),
            "upstream": finished.upstream,
            "provider": finished.provider,
            "operation": finished.operation,
            "kind": finished.kind,
            "model": self._text(finished.model),
            "response_model": self._text(reading.model),
            "status": finished.status,
            "end": _ENDS[finished.end],
            "stream": finished.streamed,
            "attempts": finished.attempts,
            "cache": finished.cache,
            "fault": finished.fault,
            "injected": finished.injected,
            "unreached": finished.unreached,
            "code": finished.code,
            "detail": self._text(finished.detail),
            "upstream_failed": finished.failed,
            "first_byte_ms": _milliseconds(finished.began),
            "first_token_ms": _milliseconds(finished.first),
            "duration_ms": _milliseconds(finished.duration),
            "request_bytes": finished.received,
            "response_bytes": finished.sent,
            "usage": _usage(reading),
            "cost": _rounded(self._prices.of(reading, finished.model)),
            "finish_reason": self._text(reading.finish),
            "upstream_request_id": self._text(finished.upstream_id),
        }
        if finished.captured is not None:
            self._add_bodies(told_of, finished.captured)
        return told_of

    def _add_bodies(self, told_of: dict[str, Any], captured: Captured) -> None:
        bodies = ("request_body", captured.request), ("response_body", captured.response)
        for (name, body), limit in zip(bodies, self._bodies, strict=True):
            if body is not None and limit:
                told_of[name] = self._body(_first(body, limit), captured.secrets)

    def _body(self, body: Body, secrets: tuple[str, ...]) -> dict[str, Any]:
        """A body as text without secrets; ``null`` for the text of one that is none.

        :param secrets: that must not stand in it, beside those that are known anyway.
        """
        limit = CLEAR * len(body.data)
        source = inflater(b"gzip", limit) if body.data.startswith(_GZIP) else None
        data = body.data if source is None else source.feed(body.data)
        cut = body.cut or (source is not None and not source.whole)
        text = _decoded(data, cut)
        if text is not None:
            text = self._redactor.text(text, secrets)
            text = self._redactor.cut(text) if cut else text
        return {"text": text, "bytes": max(body.length, len(body.data)), "truncated": cut}

    def _text(self, text: str | None) -> str | None:
        return None if text is None else self._cleaned(text)

    def _clean(self, text: str) -> str:
        # A little more than is shown, so that a secret at the cut is still known by its form.
        shown = self._redactor.text(text[: 2 * TEXT])
        if len(text) > 2 * TEXT:
            shown = self._redactor.cut(shown)
        shown = printable(shown)
        return shown if len(shown) <= TEXT else f"{shown[:TEXT]}…"


def time_text(wall: float) -> str:
    """RFC 3339 in UTC with milliseconds; the epoch for a time that is none."""
    try:
        when = datetime.fromtimestamp(wall, UTC)
    except (ValueError, OverflowError, OSError):
        when = datetime.fromtimestamp(0, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def trace(field: str | None) -> str | None:
    """What of the field ``traceparent`` names a trace and its parent; ``None`` if it does not."""
    match = None if field is None else _TRACE.match(field.strip())
    return None if match is None else match.group()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _rounded(cost: float | None) -> float | None:
    return None if cost is None else round(cost, 9)


def _first(body: Body, limit: int) -> Body:
    """The first *limit* bytes of *body*."""
    if len(body.data) <= limit:
        return body
    return Body(data=body.data[:limit], cut=True, length=body.length)


def _usage(reading: Reading) -> dict[str, int] | None:
    """Token counts by OpenTelemetry's names, those that were told and can be believed."""
    if not reading.tokens:
        return None
    return {f"{name}_tokens": count for name, count in reading.tokens.items() if 0 <= count <= MOST}


def _decoded(data: bytes, cut: bool) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if not cut or error.start < len(data) - 3:
            return None
        text = data[: error.start].decode()  # cut within its last character
    return None if "\0" in text else text

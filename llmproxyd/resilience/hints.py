"""How long an upstream asks to be left alone, as its answers say it.

RFC 9110 §10.2.3 for ``Retry-After``; ``retry-after-ms`` and ``x-should-retry`` as the SDKs of
OpenAI and Anthropic read them; the rate-limit families of both; Google's ``RetryInfo``;
OpenRouter's ``metadata``.  Nothing here raises, whatever an upstream sends: what makes no
sense is as if it were absent, and what could mean two things is not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice

from llmproxyd.http.dates import seconds_meant
from llmproxyd.model import RawHeaders

LONGEST = 1e9
"""Seconds; who asks for more is not believed."""

_HOUR = 3600.0
_DAY = 86400.0
_VALUE = 64
"""Bytes of the longest value that is read; no date has as many."""
_LIST = 100
"""Entries of a list in a body that are looked at."""

_RATE_LIMITED = frozenset({429, 503})
"""Statuses that a spent limit explains.  The fields stand on every answer, also on successes."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_SIGNED = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|μs|ms|s|m|h|d)")
_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": _HOUR,
    "d": _DAY,
}
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})")

_Fields = dict[str, list[str]]


def wait_asked(headers: RawHeaders, body: object | None, wall: float, status: int) -> float | None:
    """Seconds for which the sender of this answer wants no further request, ``None`` if it says nothing.

    The first that says something decides: ``retry-after-ms``, ``retry-after``, the rate-limit
    fields (of a 429 or 503), Google's ``RetryInfo``, OpenRouter's ``metadata``.  Where a field
    stands several times the longest time does.

    :param body: the answer's JSON value, where it has one.
    :param wall: seconds since the epoch.
    """
    asked = _by_fields(_read(headers), wall, status)
    if asked is not None:
        return asked
    error = error_of(body)
    asked = _retry_info(error)
    return asked if asked is not None else _metadata(error, wall, status)


def should_retry(headers: RawHeaders) -> bool | None:
    """What ``x-should-retry`` says, ``None`` without it and where it contradicts itself."""
    said = {value.strip().lower() for name, value in headers if name.lower() == b"x-should-retry"}
    return said == {b"true"} if said in ({b"true"}, {b"false"}) else None


def names_retry_info(body: object | None) -> bool:
    """Whether Google's ``RetryInfo`` stands in *body* and names a time."""
    return _retry_info(error_of(body)) is not None


def _read(headers: RawHeaders) -> _Fields:
    """The values of each field that can be of use, by its name in lower case."""
    fields: _Fields = {}
    for name, value in headers:
        lower = name.lower()
        if b"retry-after" in lower or b"ratelimit" in lower:
            text = value.strip()
            if len(text) <= _VALUE:
                fields.setdefault(lower.decode("latin-1"), []).append(text.decode("utf-8", "replace"))
    return fields


def _by_fields(fields: _Fields, wall: float, status: int) -> float | None:
    """What header fields ask for, in order of their rank."""
    asked = _longest(_scaled(text, 0.001) for text in fields.get("retry-after-ms", ()))
    if asked is None:
        asked = _longest(_retry_after(text, wall) for text in fields.get("retry-after", ()))
    if asked is None and status in _RATE_LIMITED:
        asked = _limits(fields, wall)
    return asked


def _retry_after(text: str, wall: float) -> float | None:
    """Delay seconds, fractions included, or an HTTP date."""
    seconds = _scaled(text, 1.0)
    if seconds is None:
        seconds = _until(seconds_meant(text.encode(errors="replace"), wall), wall)
    return seconds


def _limits(fields: _Fields, wall: float) -> float | None:
    """Seconds until the limit that was hit is lifted.

    That limit is one with nothing remaining.  Where none is, it may be one that does not tell
    what remains; one with something remaining was not hit, as far as anybody can say.
    """
    resets: dict[str, float] = {}
    remaining: dict[str, float] = {}
    for name, values in fields.items():
        family, kind = _family(name)
        if kind == "reset":
            seconds = _longest(_reset(text, wall) for text in values)
            if seconds is not None:
                resets[family] = seconds
        elif kind == "remaining":
            told = [float(text) for text in values if _SIGNED.fullmatch(text)]
            if told:
                remaining[family] = min(told)
    spent = [seconds for family, seconds in resets.items() if remaining.get(family, 1) <= 0]
    untold = [seconds for family, seconds in resets.items() if family not in remaining]
    return max(spent or untold, default=None)


def _family(name: str) -> tuple[str, str]:
    """The family that the field *name* belongs to, and whether it tells ``reset`` or ``remaining``."""
    if name.startswith("x-ratelimit-"):
        kind, _, family = name.removeprefix("x-ratelimit-").partition("-")
        return f"x-{family}", kind
    if name.startswith("anthropic-ratelimit-"):
        family, _, kind = name.removeprefix("anthropic-ratelimit-").rpartition("-")
        return f"anthropic-{family}", kind
    return "", ""


def _reset(text: str, wall: float) -> float | None:
    """Seconds until a reset that is told as a duration, a time, or a bare number.

    A bare number counts as seconds below an hour, and as epoch seconds or milliseconds where it
    lies within a day from now or in the past.  Anything else is no number to wait by: 30000 may
    be half a minute or a working day.
    """
    if _NUMBER.fullmatch(text):
        number = float(text)
        if number < _HOUR:
            return number
        for least, unit in ((1e9, 1.0), (1e12, 1000.0)):
            if least <= number < 10 * least:
                left = _until(number / unit, wall)
                return left if left is not None and left <= _DAY else None
        return None
    seconds = _duration(text)
    return seconds if seconds is not None else _until(_rfc3339(text), wall)


def _retry_info(error: Mapping[object, object]) -> float | None:
    """``retryDelay`` of Google's ``RetryInfo``: ``"26s"``, ``"3.5s"``."""
    details = error.get("details")
    if not isinstance(details, list):
        return None
    return _longest(
        _duration(delay)
        for detail in details[:_LIST]
        if isinstance(detail, Mapping)
        and _text(detail.get("@type")).endswith("google.rpc.RetryInfo")
        and (delay := _text(detail.get("retryDelay")))
    )


def _metadata(error: Mapping[object, object], wall: float, status: int) -> float | None:
    """What OpenRouter tells beside an error: seconds, or the header fields of whoever it asked."""
    metadata = error.get("metadata")
    if not isinstance(metadata, Mapping):
        return None
    asked = _longest(iter([_scaled(_text(metadata.get("retry_after_seconds")), 1.0)]))
    told = metadata.get("headers")
    if asked is None and isinstance(told, Mapping):
        fields = {
            name.lower(): [_text(value)]
            for name, value in islice(told.items(), _LIST)
            if isinstance(name, str)
        }
        asked = _by_fields(fields, wall, status)
    return asked


def error_of(body: object | None) -> Mapping[object, object]:
    """The error object of *body*, which may stand in a one-element array (Gemini's streams)."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error = body.get("error") if isinstance(body, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def _text(value: object) -> str:
    """A JSON value as a header field would have it; empty for one that none could have."""
    if isinstance(value, str):
        return value.strip() if len(value) <= _VALUE else ""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        return ""
    return str(value)


def _scaled(text: str, unit: float) -> float | None:
    """The plain number *text*, times *unit*."""
    return float(text) * unit if _NUMBER.fullmatch(text) else None


def _duration(text: str) -> float | None:
    """Seconds of a duration as Go and protobuf write it: ``6m0s``, ``17ms``, ``1h2m3.5s``."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _rfc3339(text: str) -> float | None:
    """Epoch seconds of an RFC 3339 time."""
    upper = text.upper()
    if not _RFC3339.fullmatch(upper):
        return None
    try:
        return datetime.fromisoformat(upper).timestamp()
    except (ValueError, OverflowError):
        return None


def _until(when: float | None, wall: float) -> float | None:
    """Seconds from *wall* to *when*, 0 if that is past."""
    return None if when is None else max(0.0, when - wall)


def _longest(waits: Iterator[float | None]) -> float | None:
    """The longest of *waits* that can be believed."""
    return max((wait for wait in waits if wait is not None and 0 <= wait <= LONGEST), default=None)

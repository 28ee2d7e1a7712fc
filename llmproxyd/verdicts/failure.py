"""What the answer to a request was to the client: good, a failure, or something that tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from llmproxyd.faults.rules import Breakage
from llmproxyd.inspection.content import look
from llmproxyd.inspection.errors import told
from llmproxyd.model import End, RawHeaders
from llmproxyd.providers.base import ErrorKind
from llmproxyd.resilience.hints import names_retry_info, should_retry, wait_asked
from llmproxyd.resilience.retry import NATIVE
from llmproxyd.resilience.verdict import about_the_request, in_flight, too_long, unpaid

LONGEST_WAIT = 3600.0
"""Seconds that a client is waited for beyond the window, at most."""

_AFTER = (b"retry-after-ms", b"retry-after")

_HOPELESS: Mapping[str, str] = {
    ErrorKind.CONTEXT_LENGTH: "the request is too long for the model",
    ErrorKind.QUOTA: "the quota is spent",
    ErrorKind.AUTHENTICATION: "the key is refused",
    ErrorKind.PERMISSION: "access is refused",
    ErrorKind.NOT_FOUND: "there is no such thing",
    ErrorKind.CONTENT_FILTER: "what the request says is refused",
    ErrorKind.TOO_LARGE: "the request is too large",
}
"""Why the same request would meet the same error, by its kind."""

_BY_STATUS: Mapping[int, str] = {
    400: "the request itself is refused",
    401: _HOPELESS[ErrorKind.AUTHENTICATION],
    403: _HOPELESS[ErrorKind.PERMISSION],
    404: _HOPELESS[ErrorKind.NOT_FOUND],
    405: "the method is refused",
    407: _HOPELESS[ErrorKind.AUTHENTICATION],
    410: _HOPELESS[ErrorKind.NOT_FOUND],
    413: _HOPELESS[ErrorKind.TOO_LARGE],
    415: "the media type is refused",
    422: "the request itself is refused",
}

_KINDS = frozenset(kind.value for kind in ErrorKind)

_RETRYABLE = NATIVE | {425}

_TELL_NOTHING = frozenset(
    {
        Breakage.GARBAGE,
        Breakage.DUPLICATE,
        Breakage.REORDER,
        Breakage.NO_USAGE,
        Breakage.EMPTY,
        Breakage.WRONG_LENGTH,
    }
)
"""Faults that a client may take for an answer or for a failure, whichever it likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, as the client can know it.

    :param what: in a few words: ``429 rate_limit_exceeded``.
    :param retryable: the same request may succeed later; ``None`` where nobody can say.
    :param hopeless: why the same request would fail again; ``None`` where it may not.
    :param wait: seconds that it was asked to wait, ``None`` where it was not.
    :param told_by: which field or member asked for it.
    :param slack: seconds by which *wait* may be read otherwise: a date has whole seconds.
    :param again: what ``x-should-retry`` said.
    :param begun: the model had said something already.
    :param silent: the answer looks whole and is not.
    """

    what: str
    retryable: bool | None = None
    hopeless: str | None = None
    wait: float | None = None
    told_by: str = ""
    slack: float = 0.0
    again: bool | None = None
    begun: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How a request ended.

    :param at: when its head went to the client, monotonic seconds; when it was over, where none did.
    :param over: when it was over.
    :param failure: ``None`` for a good answer.
    :param clear: whether anybody can say what it was to the client.
    :param cut: its connection ended with it.
    """

    at: float
    over: float
    failure: Failure | None = None
    clear: bool = True
    cut: bool = False


@dataclass(slots=True, kw_only=True)
class Sent:
    """What the client was sent.

    :param status: 0 where nothing was sent.
    :param body: the beginning of an error, in the clear.
    :param end: of the answer.
    :param said: the model said something in it.
    :param trouble: the error object that came within the stream.
    :param complete: whether a stream said that it is complete; ``None`` where it is none, or cannot be read.
    :param fault: the kind of the fault that it was chosen for.
    :param ours: it is an error of the proxy's own.
    """

    status: int = 0
    headers: RawHeaders = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    end: End = End.COMPLETE
    said: bool = False
    trouble: Mapping[str, object] | None = field(default=None, repr=False)
    complete: bool | None = None
    fault: str | None = None
    ours: bool = False


class Unclear(Enum):
    """Of an answer that tells nothing."""

    UNCLEAR = "unclear"


UNCLEAR: Final = Unclear.UNCLEAR


def failure_of(sent: Sent, wall: float) -> Failure | Unclear | None:
    """What went wrong with what was *sent*: ``None`` if nothing did, :data:`UNCLEAR` if nobody can say.

    :param wall: seconds since the epoch.
    """
    if sent.end is End.CLIENT_GONE:
        return UNCLEAR
    if sent.status == 0:
        return Failure(what="a connection closed without an answer", retryable=True)
    if sent.ours and 400 <= sent.status < 500 and sent.status not in _RETRYABLE:
        return UNCLEAR  # other fields may mend it: we find fault with more than a provider
    if sent.status >= 400:
        return _error(sent, wall)
    if sent.fault in _TELL_NOTHING or (sent.fault == Breakage.TRUNCATE and sent.complete is None):
        return UNCLEAR
    if sent.trouble is not None:
        return _in_stream(sent)
    if sent.end in (End.TRUNCATED, End.IDLE):
        return Failure(
            what="an answer that broke off", retryable=None if sent.said else True, begun=sent.said
        )
    if sent.complete is False:
        return Failure(what="a stream without its end", begun=sent.said, silent=True)
    if sent.end is End.IN_BAND_ERROR:
        return UNCLEAR
    return None


def _error(sent: Sent, wall: float) -> Failure:
    media = next((value for name, value in sent.headers if name.lower() == b"content-type"), b"")
    value = look(sent.body, media).value
    code = told(value).code
    wait, told_by, slack = _wait(sent.headers, value, wall)
    again = should_retry(sent.headers)
    hopeless = None if again else _hopeless(sent, code, value)
    retryable = None if hopeless else (sent.status in _RETRYABLE or again) or None
    return Failure(
        what=f"{sent.status} {code}" if code else f"{sent.status}",
        retryable=False if hopeless or again is False else retryable,
        hopeless=hopeless,
        wait=wait,
        told_by=told_by,
        slack=slack,
        again=again,
    )


def _hopeless(sent: Sent, code: str | None, value: object) -> str | None:
    status = sent.status
    if sent.fault in _KINDS:
        return _HOPELESS.get(sent.fault or "")
    if too_long(code, value):
        return _HOPELESS[ErrorKind.CONTEXT_LENGTH]
    if status == 402 and in_flight(value):
        return None
    if status == 402 or unpaid(code, value):
        return _HOPELESS[ErrorKind.QUOTA]
    if about_the_request(code, value):
        return _HOPELESS[ErrorKind.CONTENT_FILTER]
    return _BY_STATUS.get(status)


def _in_stream(sent: Sent) -> Failure:
    code = told(sent.trouble).code
    hopeless = _hopeless(sent, code, {"error": dict(sent.trouble or {})})
    return Failure(
        what=f"an error in the stream ({code})" if code else "an error in the stream",
        retryable=False if hopeless else None if sent.said else True,
        hopeless=hopeless,
        begun=sent.said,
    )


def _wait(headers: RawHeaders, value: object, wall: float) -> tuple[float | None, str, float]:
    """Seconds that the client was asked to wait in so many words, by what, and how exactly.

    Fields that tell when a limit is filled up again ask for nothing.
    """
    for name in _AFTER:
        fields = [pair for pair in headers if pair[0].lower() == name]
        seconds = wait_asked(fields, None, wall, 0)
        if seconds is not None:
            dated = any(not value.strip()[:1].isdigit() for _, value in fields)
            return min(seconds, LONGEST_WAIT), name.decode(), 1.0 if dated else 0.0
    seconds = wait_asked((), value, wall, 0)
    if seconds is None:
        return None, "", 0.0
    by = "RetryInfo" if names_retry_info(value) else "retry_after_seconds"
    return min(seconds, LONGEST_WAIT), by, 0.0

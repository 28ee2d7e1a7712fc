"""What an error says, in whatever shape a provider words it.

The shapes: an object below ``error`` (most), a text there (Ollama, Venice, xAI), flat members
(Databricks, Bedrock, Cohere, Mistral, elder vLLM), ``detail`` as a text or a list (FastAPI),
and any of these in an array (Gemini).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from llmproxyd.providers.events import JsonObject, member, objects
from llmproxyd.redaction import REDACTED

_MESSAGE = 500
"""Characters that are kept of a message."""

_CODE = 100
"""Characters that are kept of a code or a type."""

_SCAN = 4 * _MESSAGE

# Providers repeat the key that they refuse, mostly but not always with stars in it.
_KEY = re.compile(
    r"\b(?:sk-|gsk_|xai-|fw_|dapi|hf_|AIza|ya29\.|AKIA|ASIA|eyJ)[A-Za-z0-9_\-.*]{8,}"
    r"|(?i:\bbearer\s+)[^\s\"',]{8,}"
)
_WORD = re.compile(r"[\w.\-:/]+")


@dataclass(frozen=True, slots=True)
class Told:
    """What an error says of itself; ``None`` where it does not.

    :param code: the most specific word for machines: the code, else that of the details, else
        the type, else the status in words.
    :param type: its class, where the dialect has one.
    :param message: for people, printable and at most 500 characters; anything like a key is
        taken out.  It may repeat what the client sent.
    :param status: the HTTP status that it names, 400 to 599.
    """

    code: str | None = None
    type: str | None = None
    message: str | None = field(default=None, repr=False)
    status: int | None = None


def told(value: object) -> Told:
    """What the error *value* says: a provider's whole error body, or the error object in it."""
    outer = _object(value)
    if outer is None:
        return Told(message=_message(value))
    inner = _inner(outer)
    kind = _first_text(inner, ("type", "error_type", "__type")) or _first_text(outer, ("error_type",))
    if kind is not None:
        kind = kind.rpartition("#")[2]  # AWS: com.amazonaws…#ThrottlingException
    if kind == "error" or (inner is outer and inner.get("type") == "error"):
        kind = None  # of the event, not of the error
    beside = None if inner is outer else _code(outer)
    code = _code(inner) or _details_code(inner) or beside or kind or _label(inner.get("status"))
    return Told(code, kind, _message_of(inner, outer), _status(inner) or _status(outer))


def _object(value: object) -> JsonObject | None:
    """The object that tells most: *value*, or the first error in it if it is an array."""
    if isinstance(value, dict):
        return value
    found = objects(value)
    return next((item for item in found if item.get("error")), found[0] if found else None)


def _inner(outer: JsonObject) -> JsonObject:
    """The error object within a body; the body itself if its members are flat."""
    if outer.get("object") == "response" or outer.get("type") == "response.failed":
        outer = member(outer, "response") or outer
    for name in ("error", "errors", "detail"):
        found = outer.get(name)
        if isinstance(found, list):
            found = next(iter(objects(found)), None)
        if isinstance(found, dict) and found:
            # FastAPI puts what is raised below ``detail``, and that may be a whole body.
            nested = found.get("error")
            return nested if isinstance(nested, dict) and nested else found
    return outer


def _code(value: JsonObject) -> str | None:
    """The code of *value*, if it is no status; ``error`` as a word beside a message is one, too."""
    for name in ("code", "error_code"):
        code = value.get(name)
        if isinstance(code, int) and not isinstance(code, bool) and not 100 <= code <= 599:
            return _label(str(code)) if abs(code) < 10**9 else None
        if found := _label(code):
            return found
    word = value.get("error")
    if isinstance(word, str) and _WORD.fullmatch(word[:_CODE]) and _first_text(value, _TEXTS):
        return _label(word)
    return None


def _details_code(value: JsonObject) -> str | None:
    """The code in what an error has as details: Anthropic's, Google's ``ErrorInfo``, OpenRouter's."""
    for item in objects(value.get("details")):
        if reason := _label(item.get("reason")):
            return reason
    for name in ("details", "metadata"):
        if found := _first_text(member(value, name), ("error_code", "provider_error_code", "error_type")):
            return found
    return None


_TEXTS = ("message", "Message", "msg", "detail", "error_description", "error_message", "errorMessage")


def _message_of(inner: JsonObject, outer: JsonObject) -> str | None:
    findings = outer.get("detail")
    if isinstance(findings, list) and (found := _message(findings)) is not None:
        return found
    for place in (inner, outer):
        for name in (*_TEXTS, "error"):
            if (found := _message(place.get(name))) is not None:
                return found
    return None


def _message(value: object) -> str | None:
    """*value* as a message: a text, or a list of them (or of what FastAPI found wrong)."""
    if isinstance(value, list):
        found = [part for item in value[:8] if (part := _message(_finding(item))) is not None]
        return _message("; ".join(found))
    if not isinstance(value, str):
        return None
    text = _KEY.sub(REDACTED, value[:_SCAN])
    shown = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(shown.split())[:_MESSAGE] or None


def _finding(item: object) -> object:
    """One of FastAPI's findings, ``{loc, msg, type}``, as a text."""
    if not isinstance(item, dict):
        return item if isinstance(item, str) else None
    text, place = item.get("msg", item.get("message")), item.get("loc")
    if not isinstance(text, str) or not isinstance(place, list):
        return text if isinstance(text, str) else None
    return ".".join(str(part) for part in place[:8] if isinstance(part, (str, int))) + ": " + text


def _label(value: object) -> str | None:
    """*value* as a code: one printable line."""
    if not isinstance(value, str):
        return None
    shown = "".join(char if char.isprintable() else " " for char in value[: 2 * _CODE])
    return _KEY.sub(REDACTED, " ".join(shown.split()))[:_CODE] or None


def _first_text(value: JsonObject, names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := _label(value.get(name)))), None)


_STATUSES = ("code", "status", "status_code", "raw_status_code", "http_status", "statusCode")


def _status(value: JsonObject) -> int | None:
    """The first number in *value* that is an error's HTTP status; Azure writes some as texts."""
    for name in _STATUSES:
        found = value.get(name)
        if isinstance(found, str) and len(found) == 3 and found.isascii() and found.isdigit():
            found = int(found)
        if isinstance(found, int) and 400 <= found <= 599:
            return found
    return None


def status_of(value: object) -> int | None:
    """The HTTP status that an error stands for which came with a status of success.

    Its own number if it names one, else what its provider answers to an error of that name;
    ``None`` for a name that says nothing.
    """
    found = told(value)
    if found.status is not None:
        return found.status
    body = _object(value)
    words = None if body is None else _label(_inner(body).get("status"))
    for name in (found.code, found.type, words):
        if name is not None and (status := _meant(name)) is not None:
            return status
    return None


def _meant(name: str) -> int | None:
    """The status that goes with *name*, written in whatever case and with whatever between."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain in _NAMES:
        return _NAMES[plain]
    return next((status for part, status in _PARTS if part in plain), None)


# Names whose meaning their parts would not give.
_NAMES = {
    # OpenAI and those like it.
    "serverisoverloaded": 503,
    "slowdown": 429,
    "requests": 429,
    "tokens": 429,
    "creditbalanceexhausted": 429,
    "invalidapikey": 401,
    "modelnotfound": 404,
    "requestforbidden": 403,
    "unsupportedcountryregionterritory": 403,
    "requesttoolarge": 413,
    "payloadtoolarge": 413,
    "notsupportederror": 501,
    "preconditionfailed": 412,
    "server": 500,
    "error": 500,  # Cohere's reason to finish
    # Anthropic: https://docs.anthropic.com/en/api/errors.
    "apierror": 500,
    "conflicterror": 409,
    # Groq's flex tier, and Mistral's.
    "capacityexceeded": 498,
    "servicetiercapacityexceeded": 429,
    # Google: https://cloud.google.com/apis/design/errors#handling_errors.
    "cancelled": 499,
    "failedprecondition": 400,
    "outofrange": 400,
    "aborted": 409,
    "alreadyexists": 409,
    "resourceexhausted": 429,
    "dataloss": 500,
    "unknown": 500,
    "unimplemented": 501,
    # Databricks.
    "requestlimitexceeded": 429,
    "resourcedoesnotexist": 404,
    # AWS: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html.
    "servicequotaexceededexception": 400,
    "modeltimeoutexception": 408,
    "modelnotreadyexception": 429,
    "modelerrorexception": 424,
    "modelstreamerrorexception": 424,
    "unrecognizedclientexception": 403,
}

# Parts of names, the more telling first.
_PARTS = (
    ("ratelimit", 429),
    ("toomanyrequests", 429),
    ("throttl", 429),
    ("quota", 429),
    ("exhausted", 429),
    ("overload", 529),
    ("contextlength", 400),
    ("contextsize", 400),
    ("contextwindow", 400),
    ("timeout", 504),
    ("timedout", 504),
    ("deadline", 504),
    ("unavailable", 503),
    ("authentic", 401),
    ("unauthorized", 401),
    ("permission", 403),
    ("forbidden", 403),
    ("accessdenied", 403),
    ("notfound", 404),
    ("billing", 402),
    ("payment", 402),
    ("insufficientcredit", 402),
    ("contentpolicy", 400),
    ("contentfilter", 400),
    ("invalid", 400),
    ("badrequest", 400),
    ("validation", 400),
    ("unprocessable", 422),
    ("internal", 500),
    ("servererror", 500),
)

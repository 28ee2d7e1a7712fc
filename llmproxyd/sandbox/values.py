"""JSON in and out, and the shapes in which handlers pass it on.  Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from llmproxyd.errors import Refused

JSON = b"application/json"
SSE = b"text/event-stream; charset=utf-8"
NDJSON = b"application/x-ndjson"

Json = Mapping[str, object]
"""A JSON object."""

CREATED = 1767225600
"""When everything here was created, seconds since the epoch: fixed, so that replies are too."""
CREATED_TEXT = "2026-01-01T00:00:00Z"


MAX_DEPTH = 100
"""Levels of nesting that are read; all that walks a value may recurse, so there must be a limit."""


class Event(NamedTuple):
    """One event of a stream.

    :param data: its bytes, framing included; written at once.
    :param token: it carries a token of the reply, so the pace applies to it.
    """

    data: bytes
    token: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as handlers see it.

    :param provider: the name the request was addressed to.
    :param named: the model that the path names, decoded; empty where it names none.
    :param query: the decoded query, last value of each name.
    :param content: the request's body.
    :param base: the URL under which the client of the sandbox reached this provider.
    :param models: the models this provider lists here.
    """

    provider: str
    named: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    base: str = ""
    models: tuple[str, ...] = ("sandbox-echo",)

    def json(self) -> Json:
        """The body's JSON object.

        :raises Refused: the body is something else.
        """
        try:
            value = loads(self.content)
        except (ValueError, RecursionError):
            raise bad_request("The request body is not valid JSON.") from None
        if not isinstance(value, dict):
            raise bad_request("The request body must be a JSON object.")
        return value


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece.

    :param inference: it was thought up by the model: it waits for ``first_token``.
    """

    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    inference: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer event by event; the events are made as they are written, never stored."""

    events: Iterator[Event]
    content_type: bytes = SSE


Answer = Whole | Stream


def bad_request(message: str) -> Refused:
    """The error for a body that cannot be answered."""
    return Refused(400, "sandbox_bad_request", message)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


def loads(text: str | bytes) -> object:
    """The JSON value of *text*; what JSON has no word for (``NaN``, ``1e999``) is refused.

    :raises ValueError: *text* is no JSON, or no UTF-8, or nested too deeply.
    """
    value: object = json.loads(text, parse_float=_finite, parse_constant=_finite)
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def text_json(value: object) -> str:
    """*value* as compact JSON text, non-ASCII kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def dump(value: object) -> bytes:
    """*value* as compact UTF-8 JSON.

    Half a surrogate pair, which a client can smuggle in by a lone escape, becomes ``?``.
    """
    return text_json(value).encode("utf-8", "replace")


def whole(value: object) -> Whole:
    """The answer of an inference endpoint."""
    return Whole(dump(value), inference=True)


def metadata(value: object) -> Whole:
    """The answer of a list or a lookup."""
    return Whole(dump(value))


def named_event(value: Json, *, token: bool = False) -> Event:
    """*value* as a server-sent event that bears the name of its ``type``."""
    return Event(b"event: " + str(value["type"]).encode() + b"\ndata: " + dump(value) + b"\n\n", token)


def data_event(value: Json, *, token: bool = False, end: bytes = b"\n\n") -> Event:
    """*value* as a server-sent event without a name."""
    return Event(b"data: " + dump(value) + end, token)


def as_object(value: object) -> Json:
    """*value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """*value* if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """*value* if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def objects(value: object) -> list[Json]:
    """The objects in the array *value*."""
    return [item for item in as_list(value) if isinstance(item, dict)]


def required(body: Json, name: str) -> list[Json]:
    """The objects of the array that *body* must have as *name*.

    :raises Refused: it has none, or an empty one.
    """
    found = objects(body.get(name))
    if not found:
        raise bad_request(f"Missing required parameter: '{name}' must be a non-empty array of objects.")
    return found

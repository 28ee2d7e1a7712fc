"""What an answer holds before anybody is told of it: the first content, or an error that hides.

Providers report failures under status 200, too: a stream that opens with an error event, a
body that is an error object, or none at all.  As long as nothing was sent to the client, such
an answer can still count as a failed attempt.  Both readers here work on copies and never
raise; what they cannot read they say nothing about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from llmproxyd.http.sse import DONE, LIMIT, Event, EventReader
from llmproxyd.inspection.inflate import Inflater
from llmproxyd.providers import cohere, openai
from llmproxyd.providers.base import StreamForm
from llmproxyd.providers.events import JsonObject, error_event, objects

_TEXT = 2000
"""Characters that are kept of an error's event that is no JSON."""


class Content(Enum):
    """The sign that the model said something."""

    CONTENT = "content"


CONTENT: Final = Content.CONTENT


@dataclass(frozen=True, slots=True)
class Trouble:
    """The sign that an event is an error.

    :param value: the error object, in the shape of its dialect (:func:`~.errors.told` reads it).
    :param event: the data of the event that it came in, without framing.
    """

    value: JsonObject = field(repr=False)
    event: bytes = field(repr=False)


Sign = Content | Trouble


class StreamWatch:
    """Watches the beginning of one stream for the first sign of what becomes of it.

    It can go on behind that: each piece is judged for itself.

    :param inflater: for the content coding of the body; ``None`` where it cannot be read.
    :param limit: bytes that one event may have.
    :ivar finished: the stream said that it is complete, by its terminator or its last event.
    :ivar empty: no content came so far, no call, no refusal and no reason to finish.
    """

    __slots__ = ("_form", "_inflater", "_reader", "empty", "finished")

    def __init__(self, form: StreamForm, inflater: Inflater | None, limit: int = LIMIT) -> None:
        self._form = form
        self._inflater = inflater
        self._reader = EventReader(form.framing, limit)
        self.finished = False
        self.empty = True

    @property
    def blind(self) -> bool:
        """Whether something of the stream could not be read: its coding is unknown or broken, an
        event was too large.  What is not seen may be content, so it must not be waited for.
        """
        source = self._inflater
        return source is None or source.broken or source.full or self._reader.overflowed

    def feed(self, data: bytes) -> Sign | None:
        """The first sign in the next piece of the body, ``None`` if there is none in it."""
        if self._inflater is None:
            return None
        return self._first(self._reader.feed(self._inflater.feed(data)))

    def end(self) -> Sign | None:
        """The sign in what the end of the body completes: errors are often left unfinished."""
        return self._first(self._reader.end())

    def _first(self, events: Iterable[Event]) -> Sign | None:
        first = None
        for event in events:
            sign = self._sign(event)
            if sign is CONTENT:
                self.empty = False
            first = first or sign
        return first

    def _sign(self, event: Event) -> Sign | None:
        name, data = event
        if data == DONE:
            self.finished = True
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return self._unread(event)
        found: Sign | None = None
        # Where an event is an array (Gemini's errors may be), each of its objects is one.
        for item in value if isinstance(value, list) else (value,):
            if isinstance(item, dict):
                found = found or self._judged(name, item, data)
            elif item:
                found = found or CONTENT
        return found

    def _judged(self, name: str, value: JsonObject, data: bytes) -> Sign | None:
        self.finished = self.finished or self._form.closes(name, value)
        error = self._form.failure(name, value)
        if error is not None:
            return Trouble(error, data)
        return CONTENT if self._form.content(name, value) else None

    def _unread(self, event: Event) -> Sign | None:
        """An event that is no JSON is an error if its name says so, else whatever was sent."""
        text = event.data.decode("utf-8", "replace").strip()[:_TEXT]
        error = self._form.failure(event.name, {"message": text})
        if error is not None:
            return Trouble(error, event.data)
        return CONTENT if text else None


@dataclass(frozen=True, slots=True)
class Found:
    """What a whole answer holds.

    :param trouble: the error object that it is, or one made up here for a body that is not what
        it says; ``None`` for an answer that is none.
    :param value: its JSON value, ``None`` if it is not JSON.
    """

    trouble: JsonObject | None = field(repr=False)
    value: object = field(repr=False)


_FIRST = re.compile(rb"(?:\xef\xbb\xbf)?\s*[{\[]")
"""How an object or an array begins."""

_NOTHING = Found(None, None)
_EMPTY = Found({"message": "The upstream's answer is empty."}, None)
_NOT_JSON = Found({"message": "The upstream's answer is said to be JSON and is not."}, None)


def look(body: bytes, content_type: bytes) -> Found:
    """Whether a whole answer with a status of success is an error all the same.

    It is meant for endpoints of inference.  Elsewhere ``error`` may be a member of what was
    asked for: a job that failed can be looked up with success.  Answers that never have a body
    (204, HEAD) must not be given.

    :param body: in the clear, without content coding.
    :param content_type: the value of ``Content-Type``, empty if there is none.
    """
    media = content_type.partition(b";")[0].strip().lower()
    claims = media in (b"application/json", b"text/json") or media.endswith(b"+json")
    if not claims and _FIRST.match(body) is None:
        return _NOTHING
    # DeepSeek sends empty lines in front of the body, as a sign of life.  Half a character within
    # a text, as local servers send it, does not make it less JSON.
    text = body.decode(json.detect_encoding(body), "replace").strip()
    if not text:
        return _EMPTY
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        # A stream under a wrong name is read by clients that asked for one: several values, or events.
        stream = error.msg == "Extra data" or text.startswith(("data:", "event:", ":"))
        return _NOT_JSON if claims and not stream else _NOTHING
    except (ValueError, RecursionError):
        return _NOTHING  # an endless number, or nested too deeply: JSON, but not for us
    return Found(_trouble(value), value)


def _trouble(value: object) -> JsonObject | None:
    if isinstance(value, list):  # Gemini's stream without ``alt=sse``
        return next((error for item in objects(value) if (error := error_event("", item))), None)
    if not isinstance(value, dict):
        return None
    if value.get("object") in ("response", "interaction") and value.get("status") == "failed":
        return openai.failed_response(value)
    return cohere.failure("", value) or openai.choice_failure(value)

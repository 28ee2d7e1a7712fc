"""What the events of a stream are told by: the questions that several dialects share.

An event is given by its name (empty where the framing has none) and its JSON object.  Each
dialect's own answers stand in its file, beside the stream form that they belong to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

JsonObject = Mapping[str, object]

_SILENT = frozenset({"role", "type", "id", "index", "format", "status", "channel", "mimeType", "toolUseId"})
"""Members that say where a piece belongs and what it is, not what the model said."""

_CODED = _SILENT | {"signature", "thoughtSignature", "thought_signature", "encrypted_content", "data"}
"""Members whose texts are no tokens of the model's."""

_DEPTH = 6


def says(value: object, depth: int = _DEPTH) -> bool:
    """Whether anything stands in *value* that a model said: some text that is not empty.

    Names and arguments of calls are such texts; roles, types, ids and numbers are not.
    """
    if isinstance(value, str):
        return bool(value)
    if isinstance(value, dict):
        return not depth or any(
            says(member, depth - 1) for name, member in value.items() if name not in _SILENT
        )
    if isinstance(value, list):
        return not depth or any(says(item, depth - 1) for item in value)
    return False


def length(value: object, depth: int = _DEPTH) -> int:
    """Characters of the texts in *value* that a model said; what is nested too deeply counts nothing."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict) and depth:
        return sum(length(member, depth - 1) for name, member in value.items() if name not in _CODED)
    if isinstance(value, list) and depth:
        return sum(length(item, depth - 1) for item in value)
    return 0


def arguments(value: object) -> str:
    """A piece of the arguments of a call: a text as it is, an object that is not empty as JSON."""
    if not isinstance(value, dict):
        return value if isinstance(value, str) else ""
    try:
        return json.dumps(value) if value else ""
    except RecursionError:
        return "{}"


def first_arguments(*values: object) -> str:
    """The first of *values* that holds a piece of arguments, empty if none does."""
    return next((piece for piece in map(arguments, values) if piece), "")


def objects(value: object) -> list[JsonObject]:
    """The objects in the array *value*, none if it is no array."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def member(value: JsonObject, name: str) -> JsonObject:
    """The object *name* in *value*, an empty one if there is none."""
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def kind_of(name: str, value: JsonObject) -> str:
    """The type of an event: of its object, else the name of the event itself."""
    kind = value.get("type", value.get("event_type"))
    return kind if isinstance(kind, str) else name


def any_event(_name: str, _value: JsonObject) -> bool:
    """Every event is content, as far as is known."""
    return True


def no_tool(_name: str, _value: JsonObject) -> str:
    """No event holds arguments of a call."""
    return ""


def everything(_name: str, value: JsonObject) -> object:
    """All of an event was said by the model, as far as is known."""
    return value


def error_member(_name: str, value: JsonObject) -> JsonObject | None:
    """The error at the top of an object: ``error`` as an object, or as a text or a flag.

    In the second case the object itself is the error: a code or a message may stand beside it.
    Empty ones are none: many objects have the member and say ``null``, or ``null`` in all of it.
    """
    error = value.get("error")
    if isinstance(error, dict):
        return error if any(item not in (None, "", [], {}) for item in error.values()) else None
    return value if error is True or (error and isinstance(error, (str, list))) else None


def error_event(name: str, value: JsonObject) -> JsonObject | None:
    """The error of an event that is one by its name, its type or its members.

    ``{"object": "error"}`` is vLLM's elder one and Mistral's; an event with the name ``error``
    may hold the bare error (llama.cpp, OpenAI's responses).
    """
    found = error_member(name, value)
    if found is None and "error" in (name, value.get("type"), value.get("event_type"), value.get("object")):
        return value
    return found

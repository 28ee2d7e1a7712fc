"""The few members of a request's body that a policy may ask for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

WHOLE = 1024 * 1024
"""Bodies up to this many bytes are looked at whole; larger ones only at both ends."""

END = 64 * 1024

# A quote before the name that is not escaped: inside a JSON string it would be ``\"model\"``.
_MODEL = re.compile(rb'(?<!\\)"model"\s*:\s*"((?:[^"\\]|\\.){0,512})"')
_STREAM = re.compile(rb'(?<!\\)"stream"\s*:\s*(true|false)')


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for; ``None`` where it does not say or could not be read."""

    model: str | None = None
    stream: bool | None = None


def asked(excerpt: bytes) -> Asked:
    """What the JSON body of which this is an excerpt asks for; nothing for any other body.

    :param excerpt: the whole body up to :data:`WHOLE` bytes, else its first and last :data:`END`.
    """
    try:
        value = json.loads(excerpt)
    except (ValueError, RecursionError):
        return _searched(excerpt)
    if not isinstance(value, dict):
        return Asked()
    model, stream = value.get("model"), value.get("stream")
    return Asked(_sendable(model), stream if isinstance(stream, bool) else None)


def _searched(excerpt: bytes) -> Asked:
    model, stream = _MODEL.search(excerpt), _STREAM.search(excerpt)
    return Asked(
        None if model is None else _text(model.group(1)),
        None if stream is None else stream.group(1) == b"true",
    )


def _text(raw: bytes) -> str | None:
    try:
        value = json.loads(b'"' + raw + b'"')
    except ValueError:
        return None
    return _sendable(value)


def _sendable(value: object) -> str | None:
    """*value* if it is a text that can be told in an answer: half a surrogate pair cannot."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value

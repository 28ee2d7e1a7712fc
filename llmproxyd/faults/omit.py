"""Members taken out of a JSON text; all its other bytes stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from llmproxyd.providers.base import Place

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def without(data: bytes, places: Collection[Place]) -> bytes:
    """*data* without the members at *places* that are not null; unchanged if it is no JSON object.

    :param places: a place is looked for in objects only, not through arrays.
    """
    text = data.decode("utf-8", "surrogateescape")
    try:
        spans = list(_spans(text, _skip(text, text.startswith("\ufeff")), frozenset(places))[0])
    except (ValueError, IndexError, RecursionError):
        return data
    parts, at = [], 0
    for begin, end in spans:
        parts.append(text[at:begin])
        at = end
    return ("".join(parts) + text[at:]).encode("utf-8", "surrogateescape") if spans else data


def _skip(text: str, at: int) -> int:
    """Where what is no white space begins, from *at* on."""
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


Span = tuple[int, int]


def _spans(text: str, at: int, places: frozenset[Place]) -> tuple[list[Span], int]:
    """What is to be taken out of the value that begins *at*, and where it ends.

    :raises ValueError: it is no JSON.
    :raises IndexError: it breaks off.
    """
    if not places or text[at] != "{":
        return [], _DECODER.raw_decode(text, at)[1]
    members: list[Span] = []
    gone: set[int] = set()
    within: list[tuple[int, list[Span]]] = []
    at = _skip(text, at + 1)
    while text[at] != "}":
        begin = at
        if text[at] != '"':
            raise ValueError("no name")
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("no colon")
        value = _skip(text, at + 1)
        deeper = frozenset(place[1:] for place in places if len(place) > 1 and place[0] == name)
        spans, at = _spans(text, value, deeper)
        if (name,) in places and text[value:at] != "null":
            gone.add(len(members))
        within.append((len(members), spans))
        members.append((begin, at))
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
            if text[at] != '"':
                raise ValueError("no member behind a comma")
        elif text[at] != "}":
            raise ValueError("no comma")
    found = _cuts(members, gone)
    found += [span for number, spans in within if number not in gone for span in spans]
    return sorted(found), at + 1


def _cuts(members: list[Span], gone: set[int]) -> list[Span]:
    """The members that are *gone*, each with a comma that is not needed any more."""
    found = []
    stays = False  # a member in front of it
    for number, (begin, end) in enumerate(members):
        if number not in gone:
            stays = True
        elif stays:
            found.append((members[number - 1][1], end))
        else:
            found.append((begin, members[number + 1][0] if number + 1 < len(members) else end))
    return found

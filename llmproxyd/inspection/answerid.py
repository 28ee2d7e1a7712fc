"""The id that an upstream gave to a request: what its support asks for."""

from __future__ import annotations

from collections.abc import Callable

from llmproxyd.model import RawHeaders
from llmproxyd.wire.fields import ANSWER_IDS, Fields

LONGEST = 128
"""Characters of an id that are kept."""

_KNOWN = 1024
"""Spellings that are remembered."""


class _Ids(dict[bytes, bool]):
    """Whether a field holds such an id, by spelling; one that is met for the first time is looked at once."""

    def __missing__(self, name: bytes) -> bool:
        named = name.lower() in ANSWER_IDS
        if len(self) < _KNOWN and len(name) <= 64:
            self[name] = named
        return named


_is_id: Callable[[bytes], bool] = _Ids().__getitem__


def answer_id(headers: RawHeaders) -> str | None:
    """The first id among the fields of an answer."""
    places = headers.special if isinstance(headers, Fields) else range(len(headers))
    for place in places:
        name, value = headers[place]
        if _is_id(name) and value:
            return value[:LONGEST].decode("latin-1")
    return None
